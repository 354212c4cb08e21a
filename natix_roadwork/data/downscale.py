"""Make one photo smaller.

In come stored bytes; out go the bytes of a JPEG no longer than `max_side`, or the same bytes where nothing is to do.
`data/downscaled_copy.py` applies this to a whole data set.
"""

import io
from dataclasses import dataclass

from PIL import Image

from natix_roadwork.data.photo_header import read_header
from natix_roadwork.model.photo import load_photo


@dataclass(frozen=True)
class DownscaledPhoto:
    """A photo after downscaling.

    Attributes:
        data: Encoded bytes.
        size: Upright width and height in pixels where the photo was made smaller, else None.
        problem: Why the photo cannot be read, or the empty string; its bytes are then unchanged.
    """

    data: bytes
    size: tuple[int, int] | None = None
    problem: str = ""


def downscale_photo(data: bytes, max_side: int, quality: int, max_megapixels: float = 80.0) -> DownscaledPhoto:
    """Shrink a photo so that its longer side is `max_side`, with its EXIF orientation applied once and then gone.

    A photo that is small enough keeps its bytes, EXIF data included; so does one that cannot be read, for the loader
    to name and drop.

    Args:
        data: Encoded photo.
        max_side: Longest side of the result in pixels.
        quality: JPEG quality of a shrunk photo.
        max_megapixels: Larger photos count as unreadable, as in `load_rows`.
    """
    try:
        header = read_header(data, max_megapixels)
        longest = max(header.width, header.height)
        if longest <= max_side:
            return DownscaledPhoto(data)
        photo = Image.fromarray(load_photo(data, max_megapixels))
    except ValueError as error:
        return DownscaledPhoto(data, problem=str(error))
    size = tuple(max(1, round(side * max_side / longest)) for side in photo.size)
    buffer = io.BytesIO()
    photo.resize(size, Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=quality)
    return DownscaledPhoto(buffer.getvalue(), size)

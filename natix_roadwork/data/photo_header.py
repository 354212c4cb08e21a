"""Check a photo from its header, without decoding it.

In come the stored bytes or the path of a photo; out goes its upright size, or the reason it cannot be used.
"""

import io
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image

from natix_roadwork.model.photo import PHOTO_FORMATS, load_photo


EXIF_ORIENTATION = 0x0112
# Orientations 5 to 8 turn the photo by a quarter: the upright width is the stored height.
QUARTER_TURNS = (5, 6, 7, 8)
JPEG_FORMATS = ("JPEG", "MPO")
JPEG_END = b"\xff\xd9"
TAIL_BYTES = 64
HEADER_ERRORS = (OSError, SyntaxError, ValueError, struct.error, EOFError, TypeError, IndexError)


@dataclass(frozen=True)
class PhotoHeader:
    """What the header of a photo says.

    Attributes:
        width: Upright width in pixels, EXIF orientation applied.
        height: Upright height in pixels.
        num_bytes: Size of the stored photo.
    """

    width: int
    height: int
    num_bytes: int


def read_header(
    source: bytes | pa.Buffer | str | os.PathLike[str], max_megapixels: float = 80.0, *, decode: bool = False
) -> PhotoHeader:
    """Read a photo's size from its header and look for damage that shows without decoding.

    A JPEG that does not end in its end marker is decoded, to see whether it is cut off; formats with checksums are
    verified. Other damage inside the picture data is found only with `decode=True`.

    Args:
        source: Stored bytes, or a path.
        max_megapixels: Largest accepted size in millions of pixels.
        decode: Decode the whole photo.

    Raises:
        ValueError: With the reason the photo cannot be used.
    """
    is_path = isinstance(source, (str, os.PathLike))
    num_bytes = os.path.getsize(source) if is_path else len(source)
    if num_bytes == 0:
        raise ValueError("the photo is empty (0 bytes)")
    with open(source, "rb") if is_path else pa.BufferReader(source) as file:
        image = _open(file)
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise ValueError(
                f"the photo has {width}x{height} = {width * height / 1e6:.1f} million pixels, "
                f"more than max_megapixels={max_megapixels:g}"
            )
        if _turned(image):
            width, height = height, width
        if image.format not in JPEG_FORMATS:
            _verify(file)
        elif not decode:
            file.seek(max(0, num_bytes - TAIL_BYTES))
            decode = JPEG_END not in file.read(TAIL_BYTES)
    if decode:
        load_photo(Path(source).read_bytes() if is_path else bytes(source), max_megapixels)
    return PhotoHeader(width, height, num_bytes)


def _open(file: io.IOBase) -> Image.Image:
    """Open a photo as `load_photo` will, with the reason in words where that fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(file, formats=PHOTO_FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"the photo is too large: {error}") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"the photo is none of {', '.join(PHOTO_FORMATS)}, or its header is damaged") from None
    except HEADER_ERRORS as error:
        raise ValueError(f"the photo's header is damaged: {error}") from None


def _turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(EXIF_ORIENTATION) in QUARTER_TURNS
    except HEADER_ERRORS as error:
        raise ValueError(f"the photo's EXIF data is damaged: {error}") from None


def _verify(file: io.IOBase) -> None:
    file.seek(0)
    try:
        _open(file).verify()
    except HEADER_ERRORS as error:
        raise ValueError(f"the photo is damaged: {error}") from None

"""How bright each photo is, from a decoding at a fraction of its size.

In come rows with encoded photos; out goes one mean grey level a photo, for the slices of the error report.
"""

import io

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from natix_roadwork.data.photo_batches import photo_source


# A JPEG is decoded at a half, a quarter or an eighth of its size, the smallest that has this many pixels a side.
DECODED_SIDE = 128


def mean_grey(source: bytes | str) -> float:
    """Measure the mean grey level of a photo, 0 black to 255 white.

    Args:
        source: Encoded photo, or its path.

    Raises:
        ValueError: If the photo cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as photo:
            photo.draft("L", (DECODED_SIDE, DECODED_SIDE))
            return float(np.asarray(photo.convert("L"), dtype=np.uint8).mean())
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the photo cannot be decoded: {error}") from error


def brightness_of(rows: Dataset, progress: bool = True) -> NDArray[np.float64]:
    """Measure the mean grey level of each photo, one after the other.

    Args:
        rows: N rows of `load_rows`.
        progress: Whether a progress bar is shown.

    Returns:
        `(N,)` from 0 to 255.

    Raises:
        ValueError: If a photo cannot be decoded; its row is named.
    """
    levels = np.empty(len(rows))
    columns = rows.select_columns(["row_id", "image"])
    for number, row in enumerate(tqdm(columns, desc="Brightness", unit="photo", disable=not progress)):
        try:
            levels[number] = mean_grey(photo_source(row["image"]))
        except ValueError as error:
            raise ValueError(
                f"row {row['row_id']!r}: {error}; --verify_images true drops such photos beforehand"
            ) from error
    return levels

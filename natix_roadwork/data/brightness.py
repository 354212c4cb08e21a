"""How bright each photo is, from a decoding at a fraction of its size.

In come rows with encoded photos; out goes one mean grey level a photo, for the slices of the error report and for
training on dark photos. What was measured is kept in the datasets cache.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork.data.photo_batches import photo_source


# A JPEG is decoded at a half, a quarter or an eighth of its size, the smallest that has this many pixels a side.
DECODED_SIDE = 128
LEVEL_BATCH = 64
LEVEL_FEATURES = Features({"grey_level": Value("float64")})


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
    """Measure the mean grey level of each photo, or read what an earlier call kept in the datasets cache.

    Args:
        rows: N rows of `load_rows`.
        progress: Whether a progress bar is shown.

    Returns:
        `(N,)` from 0 to 255.

    Raises:
        ValueError: If a photo cannot be decoded; its row is named.
    """
    with _bars(progress):
        measured = rows.select_columns(["row_id", "image"]).map(
            _measure_batch,
            batched=True,
            batch_size=LEVEL_BATCH,
            remove_columns=["row_id", "image"],
            features=LEVEL_FEATURES,
            desc="Brightness",
            fn_kwargs={"code_hash": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()},
        )
    return measured.with_format("arrow")[:]["grey_level"].to_numpy().copy()


def _measure_batch(rows: Mapping[str, Sequence[Any]], *, code_hash: str) -> dict[str, list[float]]:
    """Measure one batch; `code_hash` only decides whether a cached result is valid."""
    levels = []
    for row_id, image in zip(rows["row_id"], rows["image"], strict=True):
        try:
            levels.append(mean_grey(photo_source(image)))
        except ValueError as error:
            raise ValueError(f"row {row_id!r}: {error}; --verify_images true drops such photos beforehand") from error
    return {"grey_level": levels}


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Hide the progress bars of `datasets` where none is wanted."""
    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()

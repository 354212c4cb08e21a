"""Mask files: which pixels of a photo show which kind of evidence.

A photo's mask is one 8-bit PNG as large as the upright photo, bit c of a pixel marking class c of `MASK_CLASSES`, so that
classes may overlap, with a JSON record beside it: who marked it, what was asked and found, which classes are known. A PNG
without a record, as the drawn scenes have, knows every class. `labeling/` writes masks through this module and training
reads them.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.side_files import SideFileError, read_picture, side_path
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


MASK_SUFFIX = "_seg_mask.png"
RECORD_SUFFIX = "_seg_mask.json"
UNKNOWN_BITS = 0xFF << len(MASK_CLASSES) & 0xFF


class MaskError(SideFileError):
    """A mask file that is missing, damaged or of another photo; `reason` counts it."""


@dataclass(frozen=True)
class PhotoMask:
    """The mask of one photo.

    Attributes:
        bits: `(H, W)` uint8 over the upright photo, bit c marking class c.
        known: `(C,)` whether a class was looked for at all; the bits of another say nothing.
    """

    bits: NDArray[np.uint8]
    known: NDArray[np.bool_]

    @property
    def channels(self) -> NDArray[np.bool_]:
        """`(C, H, W)`, one plane a class."""
        return unpack(self.bits)


def pack(channels: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack planes `(C, H, W)`, one a class, into bits `(H, W)`."""
    if channels.ndim != 3 or len(channels) != len(MASK_CLASSES):
        raise ValueError(f"channels has shape {channels.shape}, expected ({len(MASK_CLASSES)}, H, W)")
    bits = np.zeros(channels.shape[1:], np.uint8)
    for number, plane in enumerate(channels):
        bits |= (plane != 0).astype(np.uint8) << number
    return bits


def unpack(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Unpack bits `(..., H, W)` into planes `(..., C, H, W)`."""
    numbers = np.arange(len(MASK_CLASSES), dtype=np.uint8)[:, None, None]
    return (bits[..., None, :, :] >> numbers & 1).astype(bool)


def class_areas(bits: NDArray[np.uint8]) -> dict[str, int]:
    """Count the pixels of each class in `(H, W)` bits."""
    return {name: int(np.count_nonzero(bits & np.uint8(1 << number))) for number, name in enumerate(MASK_CLASSES)}


def mask_path(folder: str | Path, row_id: str) -> Path:
    """Where the mask of a row lies in a folder of masks: below the folders of its id, each name made safe for any disk.

    Raises:
        ValueError: If the id names no file below the folder.
    """
    return side_path(folder, row_id, MASK_SUFFIX)


def record_path(mask: str | Path) -> Path:
    """Where the record of a mask file lies: beside it."""
    mask = Path(mask)
    name = mask.name.removesuffix(MASK_SUFFIX) if mask.name.endswith(MASK_SUFFIX) else mask.stem
    return mask.with_name(name + RECORD_SUFFIX)


def write_mask(folder: str | Path, row_id: str, bits: NDArray[np.uint8], record: dict[str, Any]) -> Path:
    """Write the mask of a row with its record; the PNG last, so that a mask that is there is whole and has its record.

    Args:
        folder: Folder of masks.
        row_id: Names the files.
        bits: `(H, W)` uint8 over the upright photo.
        record: JSON values; with `classes`, the names that were looked for, others count as unknown.

    Returns:
        The PNG's path.

    Raises:
        ValueError: If the bits are of another type or hold an unknown class, or a name of `classes` is none.
    """
    if bits.dtype != np.uint8 or bits.ndim != 2:
        raise ValueError(f"row {row_id!r}: bits must be uint8 (H, W), got {bits.dtype} {bits.shape}")
    _check_bits(bits, f"row {row_id!r}")
    _known(record, f"row {row_id!r}")
    path = mask_path(folder, row_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"row_id": row_id, "size": [bits.shape[1], bits.shape[0]], **record}, indent=1) + "\n"
    write_whole(record_path(path), text.encode())
    file = io.BytesIO()
    Image.fromarray(bits).save(file, "PNG")
    write_whole(path, file.getvalue())
    return path


def read_record(path: str | Path) -> dict[str, Any] | None:
    """Read the record beside a mask file; None where there is none.

    Raises:
        MaskError: If it is no JSON object.
    """
    place = record_path(path)
    if not place.is_file():
        return None
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MaskError("damaged record", f"mask record {place} is no JSON ({error}); make the mask again") from error
    if not isinstance(record, dict):
        raise MaskError("damaged record", f"mask record {place} is no JSON object; make the mask again")
    return record


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> PhotoMask:
    """Read a mask file and which of its classes are known.

    Args:
        path: The PNG.
        size: Width and height of the upright photo it must belong to; None = not compared.

    Raises:
        MaskError: If the file is missing or damaged, no 8-bit picture with one channel, of another size than the photo,
            or sets a bit of no class; the file, what is wrong and what to do are named.
    """
    path = Path(path)
    if not path.is_file():
        raise MaskError(
            "missing", f"mask {path} is missing; make it with recipes/pseudo_masks.py, or clear the column"
        )
    try:
        mode, bits = read_picture(path)
    except ValueError as error:
        raise MaskError("damaged", f"mask {path} cannot be read ({error}); make it again") from error
    if mode not in ("L", "P"):
        raise MaskError("wrong format", f"mask {path} has mode {mode}; a mask is one 8-bit channel, one bit a class")
    found = bits.shape[1], bits.shape[0]
    if size is not None and found != size:
        raise MaskError(
            "wrong size", f"mask {path} is {found[0]}x{found[1]}, its upright photo {size[0]}x{size[1]}; make it again"
        )
    _check_bits(bits, f"mask {path}")
    return PhotoMask(bits, _known(read_record(path) or {}, f"mask record {record_path(path)}"))


def _check_bits(bits: NDArray[np.uint8], name: str) -> None:
    wrong = bits & UNKNOWN_BITS
    if wrong.any():
        row, column = (int(places[0]) for places in np.nonzero(wrong))
        raise MaskError(
            "unknown class",
            f"{name}: the pixel at column {column}, row {row} is {bits[row, column]}; bits {len(MASK_CLASSES)} and above "
            f"are no class, a mask has one bit for each of {', '.join(MASK_CLASSES)}",
        )


def _known(record: dict[str, Any], name: str) -> NDArray[np.bool_]:
    classes = record.get("classes", list(MASK_CLASSES))
    if not isinstance(classes, list) or any(kind not in MASK_CLASSES for kind in classes):
        raise MaskError("unknown class", f"{name}: classes={classes!r} must be some of {', '.join(MASK_CLASSES)}")
    return np.array([kind in classes for kind in MASK_CLASSES])

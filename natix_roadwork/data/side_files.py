"""Files that lie beside the rows of a data set, such as masks and depth maps: where a row's file is, and what is wrong with it."""

import io
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image


TAIL_BYTES = 64
SAFE = " ()[]{}+,=@~&'!#$;^"


class SideFileError(ValueError):
    """A file of a row that is missing, damaged or of another photo; `reason` counts it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def side_path(folder: str | Path, row_id: str, suffix: str) -> Path:
    """Where a row's file lies in a folder: below the folders of its id, each name made safe for any disk.

    Args:
        folder: Holds the files of one kind.
        row_id: Names the file.
        suffix: What the name ends in.

    Raises:
        ValueError: If the id names no file below the folder.
    """
    parts = row_id.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"row {row_id!r} names no file below {folder}; a row id has no empty, '.' or '..' part")
    return Path(folder, *(quote(part, safe=SAFE) for part in parts[:-1])) / (quote(parts[-1], safe=SAFE) + suffix)


def read_picture(path: str | Path) -> tuple[str, NDArray]:
    """Read a PNG whole; Pillow alone would not look at its checksums, and pixels could be wrong unseen.

    Returns:
        Pillow's mode and the pixels.

    Raises:
        ValueError: If it cannot be read, or a checksum is wrong.
    """
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()
        with Image.open(io.BytesIO(data)) as picture:
            return picture.mode, np.array(picture)
    # Pillow raises SyntaxError for a broken PNG, and IndexError for one without pixels.
    except (OSError, SyntaxError, IndexError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def end_of_file(path: str, kind: str) -> tuple[int, bytes]:
    """Return the size of a file and its last bytes, at most 64.

    Raises:
        ValueError: If it cannot be read; `kind` says what it is.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return size, file.read()
    except OSError as error:
        raise ValueError(f"{kind} {str(Path(path))!r} cannot be read: {error.strerror or error}") from error

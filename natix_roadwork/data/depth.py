"""Depth map files: how near each part of a photo is, as a small grey picture.

A photo's depth map is one 8-bit PNG with the aspect of the upright photo, bright where it is near. Relative depth has no unit,
so each map spans its own photo. `labeling/depth_maps.py` writes the files; training reads them as one more view.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.side_files import SideFileError, read_picture, side_path


DEPTH_SUFFIX = "_depth.png"


class DepthError(SideFileError):
    """A depth map that is missing, damaged or of another photo; `reason` counts it."""


def depth_path(folder: str | Path, row_id: str) -> Path:
    """Where the depth map of a row lies in a folder of depth maps.

    Raises:
        ValueError: If the id names no file below the folder.
    """
    return side_path(folder, row_id, DEPTH_SUFFIX)


def map_size(width: int, height: int, longer: int) -> tuple[int, int]:
    """Width and height of the depth map of a photo: its longer side at most `longer` pixels, at least one pixel each way."""
    scale = min(1.0, longer / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def write_depth(folder: str | Path, row_id: str, depth: NDArray[np.uint8]) -> Path:
    """Write the depth map `(h, w)` of a row, whole or not at all; returns its path.

    Raises:
        ValueError: If it is no uint8 plane.
    """
    if depth.dtype != np.uint8 or depth.ndim != 2:
        raise ValueError(f"row {row_id!r}: a depth map must be uint8 (h, w), got {depth.dtype} {depth.shape}")
    path = depth_path(folder, row_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Image.fromarray(depth).save(file, "PNG")
    write_whole(path, file.getvalue())
    return path


def read_depth(path: str | Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a depth map as `(h, w)` uint8.

    Args:
        path: The PNG.
        size: Width and height of the upright photo it must belong to.

    Raises:
        DepthError: If the file is missing or damaged, no 8-bit grey picture, or of another aspect than the photo by more
            than a pixel's rounding; the file, what is wrong and what to do are named.
    """
    if not Path(path).is_file():
        raise DepthError("missing", f"depth map {path} is missing; make it with recipes/depth_maps.py")
    try:
        mode, depth = read_picture(path)
    except ValueError as error:
        raise DepthError("damaged", f"depth map {path} cannot be read ({error}); make it again") from error
    if mode != "L":
        raise DepthError("wrong format", f"depth map {path} has mode {mode}; a depth map is one 8-bit grey channel")
    check_aspect(path, depth.shape[1], depth.shape[0], size)
    return depth


def check_aspect(path: str | Path, width: int, height: int, size: tuple[int, int]) -> None:
    """Refuse a depth map of a photo with another aspect.

    Raises:
        DepthError: If the shorter side is more than one pixel from where the photo's aspect puts it.
    """
    wide = width >= height
    found, expected = (height, size[1] * width / size[0]) if wide else (width, size[0] * height / size[1])
    if abs(found - expected) > 1:
        raise DepthError(
            "wrong aspect",
            f"depth map {path} is {width}x{height}, which is not the aspect of its upright photo of {size[0]}x{size[1]}; "
            "make it again",
        )

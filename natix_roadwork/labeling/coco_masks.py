"""One COCO annotation as pixels: polygons and RLE, in both of its spellings, clipped to the photo.

pycocotools draws the polygons, with COCO's convention: a pixel belongs to a polygon that covers its centre, up to its grid
of a fifth of a pixel, so that (0, 0)-(1, 1) is the first pixel, as in our boxes (Pillow and OpenCV also mark what the outline
touches). RLE is read here: pycocotools reads and writes beyond its buffers where the runs do not fit the photo.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from natix_roadwork.data.masks import MaskError


FARTHEST = 10  # times the photo's longer side; a polygon is drawn along its whole outline, wherever it lies
EDGE = 0.5  # pixels; what lies out by less is rounding


def annotation_mask(annotation: Mapping[str, Any], width: int, height: int) -> tuple[NDArray[np.bool_], bool]:
    """Draw the segmentation of an annotation.

    Args:
        annotation: Of a COCO file; its `id` stands in errors.
        width: Of the photo it was drawn on.
        height: Likewise.

    Returns:
        `(H, W)` bool, and whether a part outside the photo was cut off.

    Raises:
        MaskError: If it has no segmentation, or one that is broken or of another size.
    """
    found, name = annotation.get("segmentation"), f"annotation {annotation.get('id')}"
    if isinstance(found, Mapping):
        return _run_lengths(found, width, height, name), False
    if not isinstance(found, list) or not any(found):
        raise _broken(name, "has no segmentation")
    polygons = [_polygon(points, max(width, height), name) for points in found if points]
    drawn = coco.merge(coco.frPyObjects([points.tolist() for points in polygons], height, width))
    plane = _run_lengths({**drawn, "counts": drawn["counts"].decode()}, width, height, name)
    points = np.concatenate(polygons).reshape(-1, 2)
    clipped = bool((points < -EDGE).any() or (points > np.array([width, height]) + EDGE).any())
    return plane, clipped


def read_counts(text: str, name: str) -> list[int]:
    """Read run lengths in COCO's compressed spelling: five bits a character, differences from the run before the last.

    Raises:
        MaskError: If it holds other characters or ends inside a number.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise _broken(name, f"has an RLE with {letter!r}, which is no part of a number")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise _broken(name, "has an RLE that ends inside a number")
    return counts


def _run_lengths(found: Mapping[str, Any], width: int, height: int, name: str) -> NDArray[np.bool_]:
    counts, size = found.get("counts"), found.get("size")
    if size != [height, width]:
        raise MaskError(
            "wrong size", f"{name} has an RLE of size {size} (height, width), its photo [{height}, {width}]"
        )
    if isinstance(counts, str):
        counts = read_counts(counts, name)
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or sum(counts) != width * height:
        raise _broken(name, f"has an RLE whose runs are no numbers that add up to the {width * height} pixels")
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(runs.reshape(width, height).T)  # runs go down the columns


def _polygon(points: object, side: int, name: str) -> NDArray[np.float64]:
    numbers = isinstance(points, list) and all(type(value) in (int, float) for value in points)
    if not numbers or len(points) < 6 or len(points) % 2:
        raise _broken(name, "has a polygon that is no list x, y, x, y, ... of three points or more")
    if not all(math.isfinite(value) and abs(value) <= FARTHEST * side for value in points):
        raise _broken(name, f"has a polygon with a point further out than {FARTHEST} photos")
    return np.array(points, dtype=np.float64)


def _broken(name: str, reason: str) -> MaskError:
    return MaskError("broken annotation", f"{name} {reason}; correct it in the annotation file")

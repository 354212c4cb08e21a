"""Masks to compare, what of a found one lies where it should, and rows that have masks."""

from pathlib import Path

import cv2
import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.masks import pack, write_mask
from tests.photo_rows import photo_rows


LARGE = 1000  # pixels
LEAST_IOU = 0.99


def worst_iou(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Smallest IoU over the large planes `(..., H, W)`; boundaries of all planes, small ones too, are within a pixel."""
    worst = 1.0
    for one, other in zip(planes(found), planes(expected), strict=True):
        if other.sum() > LARGE:
            worst = min(worst, (one & other).sum() / (one | other).sum())
        assert within_a_pixel(one, other)
    return worst


def planes(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`(N, H, W)`."""
    return masks.reshape(-1, *masks.shape[-2:])


def within_a_pixel(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether each boundary lies within a pixel of the other's; what is a pixel thin may be gone."""
    core = np.ones((3, 3), np.uint8)
    grown = [cv2.dilate(mask.astype(np.uint8), core).astype(bool) for mask in (one, other)]
    kernels = [cv2.erode(mask.astype(np.uint8), core).astype(bool) for mask in (one, other)]
    return not ((kernels[1] & ~grown[0]) | (kernels[0] & ~grown[1])).any() and not (one & ~grown[1]).any()


def shapes(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Bits `(H, W)` of ellipses and rectangles of all sizes, a few of each class; classes overlap."""
    draw, bits = np.random.default_rng(seed), np.zeros((height, width), np.uint8)
    for number in range(18):
        plane = np.zeros((height, width), np.uint8)
        x, y = int(draw.integers(width)), int(draw.integers(height))
        half = [max(3, int(side * draw.uniform(0.02, 0.2))) for side in (width, height)]
        if number % 2:
            cv2.ellipse(plane, (x, y), half, float(draw.uniform(0, 180)), 0, 360, 1, -1)
        else:
            cv2.rectangle(plane, (x - half[0], y - half[1]), (x + half[0], y + half[1]), 1, -1)
        bits |= plane << number % 6
    return bits


def painted(bits: NDArray[np.uint8], kinds: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The mask as a photo `(H, W, 3)`: each channel is white where a class is."""
    return np.stack([(bits >> kind & 1) * np.uint8(255) for kind in kinds], axis=-1)


def shown(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Undo `painted` on a view `(S, S, 3)`: planes `(3, S, S)`."""
    return np.moveaxis(pixels > 127, -1, 0)


def masked_rows(num_rows: int, folder: Path, every: int = 2) -> Dataset:
    """`photo_rows` of 120 x 90 pixels, every second of which has a mask in a folder; the column `mask` is empty."""
    rows = photo_rows(num_rows)
    for row in range(0, num_rows, every):
        write_mask(folder, f"row:{row}", shapes(120, 90, seed=row), {"classes": ["cone", "barrier", "sign", "worker"]})
    for name, values in {"width": [120] * num_rows, "height": [90] * num_rows, "mask": [""] * num_rows}.items():
        rows = rows.add_column(name, values)
    return rows


def cover_bits(cover: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bits `(H, W)` of a cover `(H, W, C)`, one where a class fills half of the pixel or more."""
    return pack(np.moveaxis(cover >= 128, -1, 0))


def mask_all(folder: Path, photos: Path, every: int = 2) -> Path:
    """A mask of each second row of an imagefolder, which knows four classes."""
    for split, rows in load_rows(str(photos), near_duplicates=False).splits.items():
        columns = (rows[name][::every] for name in ("row_id", "width", "height"))
        for number, (row_id, width, height) in enumerate(zip(*columns, strict=True)):
            bits = shapes(width, height, seed=number + len(split))
            write_mask(folder, row_id, bits, {"classes": ["cone", "barrier", "sign", "worker"]})
    return folder

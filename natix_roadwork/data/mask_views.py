"""The mask of a view: what the view would show if the photo were its own mask.

In come the packed bits of a photo's mask (`data/masks.py`). Each class is painted white on black, and the picture goes the
very way the photo goes: cut, resized, turned. Out comes the cover of the view, `(S, S, C)` uint8, 255 where a class fills
the pixel, and the share of each cell that shows a class, which the mask loss is taught with.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natix_roadwork.model.configuration_roadwork import MASK_CLASSES
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.views import render_view


NUM_CLASSES = len(MASK_CLASSES)
PAINTED = 255
# Shares are stored in 254 steps; one value is left for an unknown one.
SHARE_LEVELS, UNKNOWN_LEVEL = 254, 255

Pixels = NDArray[np.uint8]


def view_cover(processor: RoadworkImageProcessor, mask: Pixels, view: int = 0) -> Pixels:
    """Render the mask of one view of a photo as the view itself is rendered; padding shows no class.

    Args:
        processor: Cuts the views.
        mask: Of the upright photo: bits `(H, W)`, bit c marking class c, or a cover `(H, W, C)`.
        view: Number of the view; 0 is the global view.

    Returns:
        The cover of the view, `(S, S, C)` uint8.
    """
    if not mask.any():
        return np.zeros((processor.view_size, processor.view_size, NUM_CLASSES), np.uint8)
    height, width = mask.shape[:2]
    box = processor.view_boxes(width, height)[view]
    squash = view == 0 and processor.global_fit == "squash"

    def render(painted: Pixels) -> Pixels:
        """Cut the view out of a picture `(H, W, 3)` as large as the photo."""
        return render_view(
            painted,
            box,
            processor.view_size,
            squash=squash,
            resample=processor.resample,
            backend=processor.resize_backend,
        )

    return through_picture(mask, render)


def through_picture(mask: Pixels, change: Callable[[Pixels], Pixels]) -> Pixels:
    """Bring a mask to where a function of pictures brings pixels.

    Args:
        mask: Bits `(H, W)` or a cover `(H, W, C)`.
        change: From a picture `(H, W, 3)` to another `(h, w, 3)`, the same way each time; it is called for every three of
            the classes that are there.

    Returns:
        A cover `(h, w, C)` uint8.
    """
    if mask.ndim == 2:
        there = np.flatnonzero(np.bitwise_or.reduce(mask, axis=None) >> np.arange(NUM_CLASSES) & 1)
    else:
        there = np.flatnonzero(mask.any(axis=(0, 1)))
    planes, black = {}, np.zeros(mask.shape[:2], np.uint8)
    for start in range(0, max(1, len(there)), 3):  # once without any class, for the size of the result
        kinds = there[start : start + 3].tolist()
        painted = [_plane(mask, kind) for kind in kinds] + [black] * (3 - len(kinds))
        changed = change(cv2.merge(painted))
        planes |= {kind: changed[..., channel] for channel, kind in enumerate(kinds)}
    cover = np.zeros((*changed.shape[:2], NUM_CLASSES), np.uint8)
    for kind, plane in planes.items():
        cover[..., kind] = plane
    return cover


def cell_levels(cover: Pixels, known: NDArray[np.bool_], mask_size: int) -> NDArray[np.uint8]:
    """Measure which share of each cell of a view shows each class, in steps of 1/254.

    Args:
        cover: `(S, S, C)` uint8 of the view.
        known: `(C,)` which classes were looked for.
        mask_size: Cells m a side; cells need not begin at whole pixels.

    Returns:
        `(C, m, m)` uint8, 255 for a class that is not known; `shares` reads them.
    """
    levels = np.zeros((NUM_CLASSES, mask_size, mask_size), np.uint8)
    down, across = (cell_weights(side, mask_size) for side in cover.shape[:2])
    for kind, plane in enumerate(np.moveaxis(cover, -1, 0)):
        if plane.any():
            filled = down @ plane.astype(np.float32) @ across.T / PAINTED
            levels[kind] = np.rint(filled.clip(0.0, 1.0) * SHARE_LEVELS)
    levels[~known] = UNKNOWN_LEVEL
    return levels


def unknown_levels(mask_size: int) -> NDArray[np.uint8]:
    """Return the levels `(C, m, m)` of a photo without a mask."""
    return np.full((NUM_CLASSES, mask_size, mask_size), UNKNOWN_LEVEL, np.uint8)


def shares(levels: Tensor) -> Tensor:
    """Turn levels into the mask labels of the model: float32 in [0, 1], NaN = unknown."""
    return (levels.float() / SHARE_LEVELS).masked_fill(levels == UNKNOWN_LEVEL, torch.nan)


def _plane(mask: Pixels, kind: int) -> Pixels:
    """One class of bits or a cover as levels `(H, W)`."""
    if mask.ndim == 3:
        return np.ascontiguousarray(mask[..., kind])
    return cv2.LUT(mask, (np.arange(256) >> kind & 1).astype(np.uint8) * np.uint8(PAINTED))


@lru_cache(maxsize=16)
def cell_weights(size: int, cells: int) -> NDArray[np.float32]:
    """Return `(cells, size)`: how much of cell i pixel j covers; the cells lie evenly on the pixels, rows sum to 1."""
    edges = np.arange(cells + 1) * size / cells
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(size)
    covered = np.minimum(pixels + 1, high) - np.maximum(pixels, low)
    return (np.clip(covered, 0.0, None) * cells / size).astype(np.float32)

"""Cutting a box out of a photo and resizing it.

In: pixels and a box. Out: pixels of the asked size. torch's antialiased Lanczos filter on 8-bit values gives what
Pillow's gives, up to one grey level here and there, in a sixth of the time. Pillow stays as the reference, for its
other filters, and for a torch that lacks the filter.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers.utils import logging


Box = tuple[int, int, int, int]

RESIZE_BACKENDS = ("torch", "pillow")
# Columns or rows that a start within a pixel may cost besides the view's own.
MAX_LEAD = 16
# Pixels of the halved photo by which a view may be off; where no start comes that near, Pillow resizes.
MAX_MISS = 0.1

logger = logging.get_logger(__name__)


def resize_box(
    photo: np.ndarray,
    box: Box,
    size: tuple[int, int],
    resample: int = Image.Resampling.LANCZOS,
    backend: str = "torch",
    shrink: int = 1,
) -> np.ndarray:
    """Resize what lies in a box of a photo; pixels outside of the box do not count.

    Only where the photo was decoded at half its size and the box starts or ends within a pixel, do the neighbours
    count that the filter reaches.

    Args:
        photo: Pixels, `uint8` `(H / shrink, W / shrink, 3)`.
        box: Left, top, right, bottom in pixels of the whole photo.
        size: Width w and height h of the result in pixels.
        resample: A Pillow resampling filter.
        backend: `torch` is fast and serves the Lanczos filter; other filters, and `pillow`, are Pillow's.
        shrink: 2 for a photo decoded at half its size.

    Returns:
        `uint8` `(h, w, 3)`.
    """
    use_torch = backend == "torch" and resample == Image.Resampling.LANCZOS and has_torch_lanczos()
    if all(side % shrink == 0 for side in box):
        left, top, right, bottom = (side // shrink for side in box)
        crop = photo[top:bottom, left:right]
        if use_torch:
            return _lanczos(crop, size=(size[1], size[0]))
        return np.asarray(Image.fromarray(crop).resize(size, resample))
    columns = _plan_axis(box[0] / shrink, box[2] / shrink, size[0], photo.shape[1])
    rows = _plan_axis(box[1] / shrink, box[3] / shrink, size[1], photo.shape[0])
    if use_torch and max(columns.miss, rows.miss) <= MAX_MISS:
        resized = _lanczos(
            photo[rows.start : rows.stop, columns.start : columns.stop], scale=(rows.scale, columns.scale)
        )
        return resized[rows.lead : rows.lead + size[1], columns.lead : columns.lead + size[0]]
    return _pillow_between(photo, box, size, resample, shrink)


@cache
def has_torch_lanczos() -> bool:
    """Tell whether this torch has the filter (2.12 and newer); where it does not, the log says so once."""
    probe = torch.zeros(1, 3, 4, 4, dtype=torch.uint8, device="cpu")
    try:
        functional.interpolate(probe, size=(2, 2), mode="lanczos", antialias=True)
    except (NotImplementedError, ValueError):
        logger.warning(
            f"torch {torch.__version__} has no Lanczos filter; views are resized by Pillow, which is slower"
        )
        return False
    return True


def _lanczos(
    pixels: np.ndarray, size: tuple[int, int] | None = None, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """Resize `(H, W, 3)` to `size` (height, width), or by `scale`; channels stay last in memory, the fast layout."""
    planes = torch.from_numpy(np.require(pixels, requirements=("C", "W")))[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(planes, size=size, scale_factor=scale, mode="lanczos", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class _AxisPlan:
    """How one axis of a box is resized that starts or ends within a pixel of the halved photo.

    torch's filter can only start at a whole pixel. So it starts `lead` of its own steps before the box, where a step
    falls nearest to a whole pixel, and what lies before the box is cut off.

    Attributes:
        start: First pixel to read.
        stop: First pixel not to read.
        lead: Results to cut off.
        scale: Results a pixel.
        miss: How far the results lie from where they should, in pixels.
    """

    start: int
    stop: int
    lead: int
    scale: float
    miss: float


def _plan_axis(low: float, high: float, size: int, length: int) -> _AxisPlan:
    """Plan `size` results between `low` and `high`, on an axis of `length` pixels."""
    step = (high - low) / size
    leads = range(1 + min(MAX_LEAD, math.floor(low / step)))
    lead = min(leads, key=lambda count: abs(low - count * step - round(low - count * step)))
    start, stop = round(low - lead * step), min(length, math.ceil(high) + 1)
    # At the photo's edge rounding may leave a sliver too little for the last result.
    scale = max(1.0 / step, (lead + size) / (stop - start)) * (1.0 + 1e-9)
    return _AxisPlan(start, stop, lead, scale, abs(low - lead * step - start))


def _pillow_between(photo: np.ndarray, box: Box, size: tuple[int, int], resample: int, shrink: int) -> np.ndarray:
    left, top, right, bottom = (side / shrink for side in box)
    crop = photo[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
    within = (left % 1.0, top % 1.0, right - math.floor(left), bottom - math.floor(top))
    return np.asarray(Image.fromarray(crop).resize(size, resample, box=within))

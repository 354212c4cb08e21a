"""How good decoded masks are: intersection over union beside an oracle's, and the ranking of patches.

In come logits and labels of photos; out go figures a class with intervals. An object over two cells of the patch grid is
judged by its outline, beside an oracle that knows the mask and fills whole cells; no mask of cells fits a smaller one, so
those are judged by whether the cells that show them rank above those that do not. Photos without the class count in neither
outline: how many of them the decoder marks at all is a rate of its own. `training/mask_scoring.py` runs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_roadwork.data.mask_views import cell_weights
from natix_roadwork.metrics import draw_weights, group_codes
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


LARGE_CELLS = 2.0
# A cell shows a small object from this share on; cells with less of it count neither way.
LEAST_SHARE = 0.01
# Logits are ranked in steps of 1/32.
LARGEST_LOGIT, BINS = 16.0, 1024
SAMPLES, LEVEL = 500, 0.95
Figures = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class MaskCounts:
    """What one photo adds to the figures, a row for each of C classes; zeros for a class that is not known.

    Attributes:
        found: `(C, 2)` pixels of intersection and union of the decoded mask and the large objects; 0 without any.
        oracle: `(C, 2)` the same of the oracle's mask.
        cells: `(C, 2, BINS)` cells without the class and cells with a small object of it, by the logit's step.
        marked: `(C, 2)` whether anything is decoded, and 1, on a photo without the class; 0 and 0 on one with it.
        known: `(C,)` whether the class was looked for.
    """

    found: NDArray[np.int64]
    oracle: NDArray[np.int64]
    cells: NDArray[np.int32]
    marked: NDArray[np.int64]
    known: NDArray[np.bool_]


def count_photo(logits: NDArray[np.float32], labels: NDArray[np.float32], grid: tuple[int, int]) -> MaskCounts:
    """Count one photo.

    Cells that a small object touches do not count for the outlines of large ones, nor cells of large objects for the
    ranking of small ones.

    Args:
        logits: `(C, m, m)` decoded; a cell of the grid has its largest.
        labels: `(C, m, m)` shares in [0, 1], NaN in a class that is not known.
        grid: Rows and columns of the patch grid.
    """
    size = labels.shape[1:]
    least = LARGE_CELLS * size[0] * size[1] / (grid[0] * grid[1])
    known = ~np.isnan(labels).any(axis=(1, 2))
    found, oracle, marked = np.zeros((3, len(labels), 2), np.int64)
    cells = np.zeros((len(labels), 2, BINS), np.int32)
    for kind in np.flatnonzero(known):
        large, small = split_by_size(labels[kind], least)
        truth, touched = large >= 0.5, enlarged(cell_shares(small, grid) > 0, size)
        if not labels[kind].any():
            marked[kind] = (logits[kind] > 0).any(), 1
        if truth.any():
            found[kind] = _overlap((logits[kind] > 0) & ~touched, truth & ~touched)
            oracle[kind] = _overlap(oracle_mask(large, grid) & ~touched, truth & ~touched)
        shares = cell_shares(small, grid)
        shown = (shares >= LEAST_SHARE, (shares == 0) & (cell_shares(large, grid) == 0))
        steps = np.clip((cell_maxima(logits[kind], grid) / LARGEST_LOGIT + 1) * BINS / 2, 0, BINS - 1).astype(int)
        for place, chosen in ((1, shown[0]), (0, shown[1])):
            cells[kind, place] = np.bincount(steps[chosen], minlength=BINS)
    return MaskCounts(found, oracle, cells, marked, known)


def mask_figures(counts: Sequence[MaskCounts], groups: ArrayLike, seed: int) -> Figures:
    """Sum photos up, and resamples of whole groups.

    Args:
        counts: N photos.
        groups: `(N,)` group of each.
        seed: Of the resamples.

    Returns:
        `mask_iou_<class>`, `oracle_iou_<class>`, `patch_auc_<class>` and `mask_false_rate_<class>`, the share of photos
        without the class on which something is decoded; and `mask_iou` and `oracle_iou` over all classes. Each has `value`,
        `low` and `high`: None where no photo speaks, without interval where the photos that do are of one group.
    """
    codes = group_codes(np.asarray(groups), len(counts))
    weights = np.concatenate([np.ones((1, len(codes))), *draw_weights(codes, SAMPLES, seed)])
    ratios = {
        "mask_iou": np.stack([photo.found for photo in counts]),
        "oracle_iou": np.stack([photo.oracle for photo in counts]),
        "mask_false_rate": np.stack([photo.marked for photo in counts]),
    }
    figures: Figures = {}
    for name, sums in ratios.items():
        for number, kind in enumerate(MASK_CLASSES):
            figures[f"{name}_{kind}"] = _ratio_figure(weights, sums[:, number], codes)
        if name != "mask_false_rate":
            figures[name] = _ratio_figure(weights, sums.sum(axis=1), codes)
    for number, kind in enumerate(MASK_CLASSES):
        cells = np.stack([photo.cells[number] for photo in counts])
        values = _auc(np.tensordot(weights, cells, axes=1))
        figures[f"patch_auc_{kind}"] = _interval(values, codes[cells[:, 1].any(axis=1)])
    return figures


def objects_seen(counts: Sequence[MaskCounts]) -> dict[str, dict[str, int]]:
    """Count the photos with a large and with a small object of each class, and those where it is known."""
    return {
        kind: {
            "known": sum(bool(photo.known[number]) for photo in counts),
            "large": sum(bool(photo.oracle[number, 1]) for photo in counts),
            "small": sum(bool(photo.cells[number, 1].any()) for photo in counts),
        }
        for number, kind in enumerate(MASK_CLASSES)
    }


def split_by_size(shares: NDArray[np.float32], least_pixels: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Split shares `(h, w)` into the connected parts that cover at least so many pixels, and the smaller ones."""
    count, parts = cv2.connectedComponents((shares > 0).astype(np.uint8), connectivity=8)
    large = np.bincount(parts.ravel(), weights=shares.ravel(), minlength=count) >= least_pixels
    large[0] = False  # what is no object
    return shares * large[parts], shares * ~large[parts]


def oracle_mask(shares: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill the cells of a grid of which a mask `(h, w)` covers half or more: the best that whole cells can say."""
    return enlarged(cell_shares(shares, grid) >= 0.5 - 1e-6, shares.shape)


def enlarged(cells: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Bring a grid to pixels `size`; a pixel belongs to the cell that its middle lies in."""
    rows, columns = (_cell_of_pixel(side, number) for side, number in zip(size, cells.shape, strict=True))
    return cells[rows[:, None], columns]


def cell_shares(shares: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Average `(h, w)` over the cells of a grid, which need not begin at whole pixels."""
    down, across = (cell_weights(side, cells) for side, cells in zip(shares.shape, grid, strict=True))
    return down.astype(np.float64) @ shares.astype(np.float64) @ across.T


def cell_maxima(values: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Largest value of `(h, w)` among the pixels whose middle lies in each cell of a grid; finer grids repeat pixels."""
    for axis, cells in enumerate(grid):
        places = _cell_of_pixel(values.shape[axis], cells)
        if len(set(places.tolist())) < cells:
            middles = ((np.arange(cells) + 0.5) * values.shape[axis] / cells).astype(int)
            values = values.take(middles, axis=axis)
        else:
            values = np.maximum.reduceat(values, np.searchsorted(places, np.arange(cells)), axis=axis)
    return values


def _cell_of_pixel(side: int, cells: int) -> NDArray[np.int64]:
    return ((np.arange(side) + 0.5) * cells / side).astype(np.int64)


def _overlap(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> tuple[int, int]:
    return int((found & expected).sum()), int((found | expected).sum())


def _ratio_figure(
    weights: NDArray[np.float64], sums: NDArray[np.int64], codes: NDArray[np.int64]
) -> dict[str, float | None]:
    """First of `(N, 2)` sums over the second, by photos weighed `(S, N)`; NaN where that is 0."""
    drawn = weights @ sums
    values = np.divide(drawn[:, 0], drawn[:, 1], out=np.full(len(drawn), np.nan), where=drawn[:, 1] > 0)
    return _interval(values, codes[sums[:, 1] > 0])


def _auc(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under the ROC curve of `(S, 2, BINS)` cells without and with the class, ties half; NaN without both."""
    without, shown = cells[:, 0], cells[:, 1]
    below = np.cumsum(without, axis=1) - without / 2
    pairs = without.sum(axis=1) * shown.sum(axis=1)
    return np.divide((below * shown).sum(axis=1), pairs, out=np.full(len(cells), np.nan), where=pairs > 0)


def _interval(values: NDArray[np.float64], speaking: NDArray[np.int64]) -> dict[str, float | None]:
    """The first value with the interval of the others, from the groups `speaking` of the photos that say anything."""
    if np.isnan(values[0]):
        return {"value": None, "low": None, "high": None}
    if len(set(speaking.tolist())) < 2:  # resamples of one group are all alike: a point is no interval
        return {"value": float(values[0]), "low": None, "high": None}
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"value": float(values[0]), "low": low, "high": high}

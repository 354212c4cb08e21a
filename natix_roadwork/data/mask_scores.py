"""How good decoded masks are: intersection over union, what an oracle could reach on a patch grid, ranking of patches.

In come masks and scores of photos as arrays; out go figures a class. Small objects are judged by `patch_auc`, since no
mask of whole cells can fit them; `split_by_size` tells them from the others.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from natix_roadwork.data.mask_views import cell_weights


def mask_iou(
    found: NDArray[np.bool_], expected: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Intersection over union of each class, pixels of all photos together.

    Args:
        found: `(N, C, h, w)` decoded masks.
        expected: `(N, C, h, w)` true masks.
        known: `(N, C)` masks that count; all when None.

    Returns:
        `(C,)`, NaN for a class that neither shows.

    Raises:
        ValueError: If the shapes differ.
    """
    found, expected = _pair(found, expected)
    if known is not None:
        found, expected = (masks & known[..., None, None] for masks in (found, expected))
    both, either = ((mask).sum(axis=(0, 2, 3)) for mask in (found & expected, found | expected))
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def oracle_mask(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill the cells of a grid of which a mask covers half or more: the best that whole cells can say.

    Args:
        mask: `(..., h, w)`.
        grid: Rows and columns of the grid; cells need not begin at whole pixels.

    Returns:
        `(..., h, w)`; a pixel belongs to the cell that its middle lies in.
    """
    shares = cell_shares(mask, grid)
    rows, columns = (
        ((np.arange(side) + 0.5) * cells / side).astype(int) for side, cells in zip(mask.shape[-2:], grid, strict=True)
    )
    return (shares >= 0.5 - 1e-6)[..., rows[:, None], columns]


def oracle_iou(
    masks: NDArray[np.bool_], grid: tuple[int, int], known: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Intersection over union `(C,)` that the oracle of a grid reaches on masks `(N, C, h, w)`; see `mask_iou`."""
    return mask_iou(oracle_mask(masks, grid), masks, known)


def patch_auc(
    scores: ArrayLike, shares: ArrayLike, least_share: float = 0.0, known: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """How well the cells that show a class are ranked above those that do not, all photos together.

    Args:
        scores: `(N, C, h, w)` logits or probabilities of each cell.
        shares: `(N, C, h, w)` share of the cell that shows the class; NaN = unknown, not counted.
        least_share: A cell shows the class from more than this share on.
        known: `(N, C)` masks that count; all when None.

    Returns:
        `(C,)` in [0, 1], .5 by chance, ties half; NaN for a class that is on all cells or none.

    Raises:
        ValueError: If the shapes differ.
    """
    scores, shares = np.asarray(scores, np.float64), np.asarray(shares, np.float64)
    if scores.shape != shares.shape or scores.ndim != 4:
        raise ValueError(f"scores {scores.shape} and shares {shares.shape} must have one shape (N, C, h, w)")
    if known is not None:
        shares = np.where(known[..., None, None], shares, np.nan)
    return np.array([_auc(scores[:, kind], shares[:, kind], least_share) for kind in range(scores.shape[1])])


def cell_shares(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Share of each cell of a grid that a mask `(..., h, w)` covers, `(..., *grid)`."""
    down, across = (cell_weights(side, cells) for side, cells in zip(mask.shape[-2:], grid, strict=True))
    return down.astype(np.float64) @ mask.astype(np.float64) @ across.T


def split_by_size(mask: NDArray[np.bool_], least_pixels: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split a mask `(h, w)` into its connected parts of at least so many pixels, and the smaller ones."""
    _, parts, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = facts[:, cv2.CC_STAT_AREA] >= least_pixels
    large[0] = False  # what is no object
    return mask & large[parts], mask & ~large[parts]


def _auc(scores: NDArray[np.float64], shares: NDArray[np.float64], least_share: float) -> float:
    counted = ~np.isnan(shares)
    shown = shares[counted] > least_share
    positives, negatives = int(shown.sum()), int((~shown).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores[counted])
    return float((ranks[shown].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _pair(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    found, expected = np.asarray(found, bool), np.asarray(expected, bool)
    if found.shape != expected.shape or found.ndim != 4:
        raise ValueError(f"masks of shapes {found.shape} and {expected.shape} must have one shape (N, C, h, w)")
    return found, expected

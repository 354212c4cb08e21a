"""Sampling weights from distances: by brackets, as planned, or solved for a share of near draws.

In come coordinates of train rows and targets, out go weights `(N,)`. A row without coordinates gets the mean weight of
the others. Next: `gps/shares.py` says what a weighting gives, `gps/sampler.py` draws by it.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_roadwork.gps.coordinates import check_gps
from natix_roadwork.gps.distance import nearest_targets


logger = logging.getLogger(__name__)

Brackets = Sequence[tuple[float, float]]
PLAN_BRACKETS: Brackets = ((50.0, 5.0), (200.0, 2.5), (500.0, 1.0))
PLAN_FAR_WEIGHT = 0.3


class InfeasibleShareError(ValueError):
    """No weights reach the wanted share of near draws under the effective-sample-size floor.

    Attributes:
        near_share: Share of near rows among those with coordinates.
        reachable_share: Largest share of near draws that the floor allows.
    """

    def __init__(self, message: str, near_share: float, reachable_share: float) -> None:
        """Keep the two shares beside the message."""
        super().__init__(message)
        self.near_share = near_share
        self.reachable_share = reachable_share


def bracket_weights(
    train_gps: ArrayLike,
    target_gps: ArrayLike,
    brackets: Brackets = PLAN_BRACKETS,
    far_weight: float = PLAN_FAR_WEIGHT,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Weigh rows by the bracket in which the distance to their nearest target falls.

    Args:
        train_gps: `(N, 2)` degrees (latitude, longitude), NaN = missing.
        target_gps: `(M, 2)` degrees, NaN = missing.
        brackets: Upper edge in kilometres (not included) and weight of each, nearest first.
        far_weight: Weight beyond the last edge.
        threads: Threads of the search for the nearest target.

    Returns:
        `(N,)` weights; a row without coordinates has the mean of the others.

    Raises:
        ValueError: If coordinates, brackets or weights cannot be used.
    """
    edges = _check_brackets(brackets, far_weight)
    targets = nearest_targets(
        check_gps(train_gps, "train_gps"), check_gps(target_gps, "target_gps"), edges, threads=threads
    )
    logger.info(targets.summary())
    return weigh_by_brackets(targets.km, brackets, far_weight)


def weigh_by_brackets(
    km: NDArray[np.float64], brackets: Brackets = PLAN_BRACKETS, far_weight: float = PLAN_FAR_WEIGHT
) -> NDArray[np.float64]:
    """Weigh rows by distances `(N,)` in kilometres to their nearest target, NaN = unknown; see `bracket_weights`."""
    edges = _check_brackets(brackets, far_weight)
    values = np.array([*(weight for _, weight in brackets), far_weight], dtype=np.float64)
    weights = values[np.searchsorted(edges, km, side="right")]
    unknown = np.isnan(km)
    weights[unknown] = weights[~unknown].mean() if not unknown.all() else 1.0
    return weights


def solve_weights(
    train_gps: ArrayLike, target_gps: ArrayLike, within_km: float, target_share: float, min_effective_share: float
) -> NDArray[np.float64]:
    """Find the mildest weights under which a share of the draws is near a target.

    Args:
        train_gps: `(N, 2)` degrees (latitude, longitude), NaN = missing.
        target_gps: `(M, 2)` degrees, NaN = missing.
        within_km: Distance in kilometres up to which a row is near.
        target_share: Smallest share of near rows among the draws that have coordinates, in (0, 1).
        min_effective_share: Smallest effective sample size (sum w)^2 / sum w^2 as a share of N, in (0, 1].

    Returns:
        `(N,)` weights of mean 1: one for near rows, one for far rows, 1 where coordinates are missing; all 1 where
        enough rows are near already.

    Raises:
        InfeasibleShareError: If no weights reach the share under the floor.
        ValueError: If coordinates or a number cannot be used.
    """
    train, target = check_gps(train_gps, "train_gps"), check_gps(target_gps, "target_gps")
    targets = nearest_targets(train, target, [within_km] if within_km > 0 else ())
    return solve_by_distance(targets.km, within_km, target_share, min_effective_share)


def solve_by_distance(
    km: NDArray[np.float64], within_km: float, target_share: float, min_effective_share: float
) -> NDArray[np.float64]:
    """Solve the weights from distances `(N,)` in kilometres, NaN = unknown; see `solve_weights`.

    Among the rows with coordinates let p be the share of near ones. The mildest weights with near share s are s / p for
    near and (1 - s) / (1 - p) for far rows, and their effective sample share is 1 / (1 + (s - p)^2 / (p (1 - p))). A
    floor on it therefore has a closed form: s <= p + sqrt(p (1 - p) (1 / floor - 1)).
    """
    if not (within_km > 0 and 0 < target_share < 1 and 0 < min_effective_share <= 1):
        raise ValueError(
            f"within_km={within_km}, target_share={target_share}, min_effective_share={min_effective_share}: the "
            "distance must be positive, the share between 0 and 1, the effective share above 0 and at most 1"
        )
    known = ~np.isnan(km)
    if not known.any():
        raise ValueError(f"none of the {len(km)} rows has coordinates, so no weights can be solved")
    near = km <= within_km
    share = float(np.count_nonzero(near) / np.count_nonzero(known))
    weights = np.ones(len(km))
    if share >= target_share:
        return weights
    reachable = reachable_share(share, float(known.mean()), min_effective_share)
    if target_share > reachable:
        raise InfeasibleShareError(
            f"target_share={target_share} within {within_km:g} km cannot be reached with min_effective_share="
            f"{min_effective_share}: {share:.1%} of the rows with coordinates are near, and weights bring the share of "
            f"near draws to {reachable:.1%} at most; ask for less, widen within_km, or collect photos nearer the targets",
            share,
            reachable,
        )
    weights[near] = target_share / share
    weights[known & ~near] = (1 - target_share) / (1 - share)
    return weights


def reachable_share(near_share: float, known_share: float, min_effective_share: float) -> float:
    """Return the largest share of near draws under an effective-sample-size floor; see `solve_by_distance`.

    Rows without coordinates keep weight 1: with a share k of known rows, the effective share of all is
    1 / (k / e + 1 - k) for e among the known ones, which turns the floor into one on e.

    Args:
        near_share: p, share of near rows among those with coordinates.
        known_share: k, share of rows with coordinates.
        min_effective_share: The floor over all rows.
    """
    if near_share in (0.0, 1.0):
        return near_share
    spread = (1 / min_effective_share - 1) / known_share  # 1 / e - 1
    return min(1.0, near_share + math.sqrt(near_share * (1 - near_share) * spread))


def _check_brackets(brackets: Brackets, far_weight: float) -> NDArray[np.float64]:
    edges = np.array([edge for edge, _ in brackets], dtype=np.float64)
    weights = np.array([*(weight for _, weight in brackets), far_weight], dtype=np.float64)
    if not len(edges) or not (edges > 0).all() or not (np.diff(edges) > 0).all():
        raise ValueError(f"brackets={tuple(brackets)}: edges must be positive kilometres in rising order")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"brackets={tuple(brackets)}, far_weight={far_weight}: weights must be positive and finite")
    return edges

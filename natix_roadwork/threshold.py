"""The cut of the margin that is best for MCC, how sure it is, and the map that brings it to probability 0.5.

Comes in: margins and labels of held-out rows, with their groups. Goes out: a `MccCut`, and the `AffineMap` after which
0.5 is the best cut; `inference/ensemble.py` fits both inside cross-validation, `calibration.fold_into_classifier` writes
the map into a model.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_roadwork.calibration import (
    AffineMap,
    check_margins,
    check_prior,
    fit_platt,
    fit_temperature,
    require_both,
    shift_prior,
)
from natix_roadwork.metrics import draw_weights, group_codes, mcc_of_counts


FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MccCut:
    """A cut of the margin: above it is Roadwork.

    Attributes:
        threshold: Half way between the middle of the stretch of good cuts and its point nearest to `calibrated`.
        low: Lower end of the widest stretch of cuts whose MCC is within one standard error of the largest.
        high: Upper end of that stretch.
        calibrated: The cut at which Platt's line, shifted to the target prior, has probability 0.5.
        mcc: MCC at the threshold, on the rows it was fitted on: a fitted value, not a score.
        largest_mcc: The largest MCC of any cut on these rows.
        standard_error: Grouped bootstrap deviation of the MCC at the cut of the largest MCC.
        interval: 95 % bootstrap interval of the threshold; None before `with_interval`.
    """

    threshold: float
    low: float
    high: float
    calibrated: float
    mcc: float
    largest_mcc: float
    standard_error: float
    interval: tuple[float, float] | None = None


def fit_mcc_cut(
    margins: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    target_prior: float | None = None,
    num_samples: int = 200,
    seed: int = 0,
) -> MccCut:
    """Find the cut by scanning all different margins; a sort and sums, so millions of rows work.

    The cut of the largest MCC itself jumps with single rows; the middle of the stretch that cannot be told apart from
    it does so less. Where the margins of both classes are spread alike, the cut of a calibrated probability of 0.5 loses
    less still, and much more where they are not; so the threshold is half way from that middle to the calibrated cut, which
    is first brought into the stretch. Margins that are all equal give that margin as threshold, and MCC 0.

    Args:
        margins: `(N,)` logit of Roadwork minus logit of None, of rows that were not trained on.
        labels: `(N,)` 0 or 1, of both classes.
        groups: `(N,)` group of each row; None makes every row its own group.
        target_prior: Share of roadwork at which the MCC counts; None = that of the rows.
        num_samples: Bootstrap samples of the standard error.
        seed: Seed of the draws.

    Raises:
        ValueError: Lengths differ, there is one class only, or a margin is not finite; the row is named.
    """
    margins, labels = check_margins(margins, labels)
    require_both(labels, "a cut")
    if target_prior is not None:
        check_prior("target_prior", target_prior)
    cuts, (scores,) = _curve(margins, labels, np.ones((1, len(labels))), target_prior)
    if not len(scores):
        return MccCut(*[float(cuts[0])] * 4, 0.0, 0.0, 0.0)
    codes = group_codes(groups, len(labels))
    above = margins > cuts[scores.argmax()]
    draws = _draws_of_both(labels, codes, num_samples, seed)
    drawn = np.concatenate([_mcc(labels, above, weights, target_prior) for weights in draws] or [np.empty(0)])
    error = float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0
    low, high = _plateau(cuts, scores, error)
    calibrated = _calibrated_cut(margins, labels, target_prior)
    threshold = _threshold(low, high, calibrated)
    found = _mcc(labels, margins > threshold, np.ones((1, len(labels))), target_prior)
    return MccCut(threshold, low, high, calibrated, float(found[0]), float(scores.max()), error)


def with_interval(
    cut: MccCut,
    margins: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    target_prior: float | None = None,
    num_samples: int = 500,
    seed: int = 0,
) -> MccCut:
    """Add the 95 % interval of the threshold: the stretch is found anew in each bootstrap sample of whole groups.

    Args:
        cut: What `fit_mcc_cut` found on the same rows.
        margins: As there.
        labels: As there.
        groups: As there; with one group only there is nothing to draw and the interval stays None.
        target_prior: As there.
        num_samples: Bootstrap samples.
        seed: Seed of the draws.
    """
    margins, labels = check_margins(margins, labels)
    codes = group_codes(groups, len(labels))
    found = []
    for weights in _draws_of_both(labels, codes, num_samples, seed):
        cuts, scores = _curve(margins, labels, weights, target_prior)
        ends = [_plateau(cuts, row, cut.standard_error) for row in scores if len(row)]
        found += [_threshold(*pair, cut.calibrated) for pair in ends]
    if not found:
        return cut
    return dataclasses.replace(cut, interval=tuple(np.quantile(found, [0.025, 0.975]).tolist()))


def mcc_of_cuts(margins: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Compute the MCC of every cut, what `fit_mcc_cut` scans.

    Args:
        margins: `(N,)` margins.
        labels: `(N,)` 0 or 1, of both classes.

    Returns:
        `(U,)` the different margins, ascending, and `(U - 1,)` the MCC of cutting at each but the last.

    Raises:
        ValueError: As `fit_mcc_cut`.
    """
    margins, labels = check_margins(margins, labels)
    require_both(labels, "a cut")
    cuts, (scores,) = _curve(margins, labels, np.ones((1, len(labels))), None)
    return cuts, scores


def largest_mcc(margins: ArrayLike, labels: ArrayLike) -> float:
    """Compute the largest MCC of any cut of the margins `(N,)`: how well their order can tell the classes apart.

    Raises:
        ValueError: As `fit_mcc_cut`.
    """
    return float(mcc_of_cuts(margins, labels)[1].max(initial=0.0))


def cut_at_half(margins: ArrayLike, labels: ArrayLike, cut: MccCut, target_prior: float | None = None) -> AffineMap:
    """Return the map z' = (z - threshold) / temperature: the cut lies at probability 0.5 after it.

    The temperature is the best one for the shifted margins, with the classes weighted to the target prior. Platt's line
    or a prior shift before it would change nothing: an affine map of the margins moves the cut along. The cut that is best
    for MCC is not where a calibrated probability of unequal classes is 0.5, so the probabilities are not fully calibrated;
    where those count more than decisions at 0.5, use `fit_platt` alone.

    Args:
        margins: `(N,)` margins the cut was fitted on.
        labels: `(N,)` 0 or 1.
        cut: What `fit_mcc_cut` found on these rows.
        target_prior: As there.
    """
    margins, labels = check_margins(margins, labels)
    weights = None
    if target_prior is not None:
        share = labels.mean()
        weights = np.where(labels == 1, target_prior / share, (1.0 - target_prior) / (1.0 - share))
    temperature = fit_temperature(margins - cut.threshold, labels, weights)
    return AffineMap(1.0 / temperature, -cut.threshold / temperature)


def count_ties(margins: ArrayLike) -> int:
    """Count the rows whose probability is exactly 0.5; they are decided as None."""
    return int((0.5 * (1.0 + np.tanh(0.5 * np.asarray(margins, dtype=np.float64))) == 0.5).sum())


def _curve(
    margins: FloatArray, labels: NDArray, weights: FloatArray, target_prior: float | None
) -> tuple[FloatArray, FloatArray]:
    """Return `(U,)` different margins and `(S, U - 1)` the MCC of cutting at each but the last, for S row weightings."""
    order = np.argsort(margins, kind="stable")
    values, starts = np.unique(margins[order], return_index=True)
    below = [
        np.cumsum(np.add.reduceat((weights * (labels == label))[:, order], starts, axis=1), axis=1) for label in (0, 1)
    ]
    shares = [counts[:, :-1] / counts[:, -1:] for counts in below]
    return values, _mcc_of_shares(*shares, _prior(labels, weights, target_prior)[:, None])


def _draws_of_both(labels: NDArray, codes: NDArray, num_samples: int, seed: int) -> Iterator[FloatArray]:
    """Yield row weightings `(S, N)` by bootstrap of groups, without those that drew one class only."""
    if codes.max() == 0:
        return
    for weights in draw_weights(codes, num_samples, seed):
        positives = weights @ labels.astype(np.float64)
        yield weights[(positives > 0) & (positives < weights.sum(axis=1))]


def _mcc(labels: NDArray, above: NDArray, weights: FloatArray, target_prior: float | None) -> FloatArray:
    """Return `(S,)` the MCC of one decision for S row weightings of both classes."""
    shares = []
    for label in (0, 1):
        rows = labels == label
        shares.append(weights @ (rows & ~above).astype(np.float64) / (weights @ rows.astype(np.float64)))
    return _mcc_of_shares(*shares, _prior(labels, weights, target_prior))


def _mcc_of_shares(none_below: FloatArray, roadwork_below: FloatArray, prior: FloatArray) -> FloatArray:
    """MCC from the share of each class below the cut and the share of roadwork."""
    return mcc_of_counts(
        prior * (1.0 - roadwork_below),
        (1.0 - prior) * (1.0 - none_below),
        (1.0 - prior) * none_below,
        prior * roadwork_below,
    )


def _prior(labels: NDArray, weights: FloatArray, target_prior: float | None) -> FloatArray:
    if target_prior is not None:
        return np.full(len(weights), target_prior)
    return weights @ labels.astype(np.float64) / weights.sum(axis=1)


def _calibrated_cut(margins: FloatArray, labels: NDArray, target_prior: float | None) -> float:
    line = fit_platt(margins, labels)
    if target_prior is not None:
        line = line.then(shift_prior(float(labels.mean()), target_prior))
    return -line.offset / line.scale


def _threshold(low: float, high: float, calibrated: float) -> float:
    return 0.5 * (0.5 * (low + high) + min(max(calibrated, low), high))


def _plateau(cuts: FloatArray, scores: FloatArray, tolerance: float) -> tuple[float, float]:
    """Return the ends of the widest stretch of cuts whose score is within the tolerance of the largest."""
    return max(_stretches(cuts, scores >= scores.max() - tolerance - 1e-12), key=lambda ends: ends[1] - ends[0])


def _stretches(cuts: FloatArray, good: NDArray[np.bool_]) -> Iterator[tuple[float, float]]:
    """Yield the ends of each run of good cuts; cutting at `cuts[i]` decides as any cut up to `cuts[i + 1]` does."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    for start, stop in zip(steps[::2], steps[1::2], strict=True):
        yield float(cuts[start]), float(cuts[stop])

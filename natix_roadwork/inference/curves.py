"""How good the probabilities are as numbers, and how the decisions depend on the cut.

In come labels, probabilities or margins, and groups; out go the points of the reliability curve, MCC over the cut with its plateau, and
a test of calibration. `report_charts.py` draws them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from natix_roadwork.inference.slice_scores import LEVEL, group_samples, group_sums
from natix_roadwork.threshold import fit_mcc_cut, mcc_of_cuts


NUM_BINS = 10
MIN_GROUPS = 5

FloatArray = NDArray[np.float64]
Groups = NDArray[np.str_]


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of similar probability: its mean, their share of roadwork with its interval, and their number."""

    probability: float
    share: float
    low: float
    high: float
    num_rows: int


@dataclass(frozen=True)
class ThresholdCurve:
    """MCC over the cut; it is constant from one cut to the next.

    Attributes:
        cuts: `(T,)` ascending from 0; roadwork is decided above a cut.
        mcc: `(T,)` MCC from that cut to the next.
        at_half: MCC at .5.
        best: Largest MCC.
        standard_error: Grouped bootstrap deviation of the MCC at the best cut.
        plateau: From where to where the MCC stays within one standard error of the best, the stretch in which
            `fit_mcc_cut` puts its threshold.
    """

    cuts: FloatArray
    mcc: FloatArray
    at_half: float
    best: float
    standard_error: float
    plateau: tuple[float, float]


@dataclass(frozen=True)
class CalibrationTest:
    """Whether the probabilities differ from the shares of roadwork by more than chance.

    Attributes:
        p_value: Of the joint test of `bias` and `overconfidence`; None with fewer than five groups or one label only.
        bias: Mean probability minus share of roadwork.
        overconfidence: Mean of (p - y)(2 p - 1): above 0 where probabilities lie too far from .5.
    """

    p_value: float | None
    bias: float
    overconfidence: float


def reliability_bins(
    labels: NDArray[np.int64], probabilities: FloatArray, groups: Groups, seed: int = 0
) -> list[ReliabilityBin]:
    """Compare probabilities with shares of roadwork in bins of equal numbers of rows; equal probabilities stay together.

    Args:
        labels: `(N,)` 0 or 1.
        probabilities: `(N,)` probabilities of roadwork.
        groups: `(N,)` group of each row; whole groups are resampled for the intervals.
        seed: Seed of the samples.
    """
    _, inverse, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts
    bins = np.minimum(NUM_BINS * before // len(labels), NUM_BINS - 1)[inverse]
    used, bins = np.unique(bins, return_inverse=True)
    codes = np.unique(groups, return_inverse=True)[1]
    inside = np.eye(len(used))[bins]
    by_group = group_sums(codes, np.concatenate([inside, inside * labels[:, None]], axis=1), int(codes.max()) + 1)
    rows, positives = np.split(group_samples(by_group, seed), 2, axis=1)
    found = []
    for number in range(len(used)):
        here, drawn = bins == number, rows[:, number] > 0
        shares = positives[drawn, number] / rows[drawn, number]
        low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        point = float(probabilities[here].mean()), float(labels[here].mean())
        found.append(ReliabilityBin(*point, float(low), float(high), int(here.sum())))
    return found


def threshold_curve(labels: NDArray[np.int64], margins: FloatArray, groups: Groups, seed: int = 0) -> ThresholdCurve:
    """Compute MCC at every cut; best, standard error and plateau are those of `fit_mcc_cut`, as an ensemble uses them.

    Args:
        labels: `(N,)` 0 or 1; with one label only every MCC is 0 and all cuts are the plateau.
        margins: `(N,)` logit of Roadwork minus logit of None.
        groups: `(N,)` group of each row.
        seed: Seed of the standard error.
    """
    if len(set(labels.tolist())) == 1:
        return ThresholdCurve(np.zeros(1), np.zeros(1), 0.0, 0.0, 0.0, (0.0, 1.0))
    values, scores = mcc_of_cuts(margins, labels)
    cut = fit_mcc_cut(margins, labels, groups, seed=seed)
    ends = _probabilities(np.array([cut.low, cut.high])).tolist()
    cuts = np.concatenate([[0.0], _probabilities(values)])
    mcc = np.concatenate([[0.0], scores, [0.0]])  # nothing lies below the first cut, nothing above the last
    at_half = float(mcc[np.searchsorted(values, 0.0, side="right")])
    return ThresholdCurve(cuts, mcc, at_half, cut.largest_mcc, cut.standard_error, (ends[0], ends[1]))


def _probabilities(margins: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * margins))


def calibration_test(labels: NDArray[np.int64], probabilities: FloatArray, groups: Groups) -> CalibrationTest:
    """Test calibration by two sums that are 0 on average where the probabilities are right, over whole groups.

    The second is the statistic of [Spiegelhalter, 1986](https://doi.org/10.1002/sim.4780050506); both together are
    compared with 0 by Hotelling's test, a group being one observation.

    Args:
        labels: `(N,)` 0 or 1.
        probabilities: `(N,)` probabilities of roadwork.
        groups: `(N,)` group of each row.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    gaps = probabilities - labels
    scores = np.stack([gaps, gaps * (2 * probabilities - 1)], axis=1)
    sums = group_sums(codes, scores, int(codes.max()) + 1)
    bias, overconfidence = scores.mean(axis=0).tolist()
    if len(sums) < MIN_GROUPS or len(set(labels.tolist())) == 1:
        return CalibrationTest(None, bias, overconfidence)
    return CalibrationTest(_hotelling(sums), bias, overconfidence)


def _hotelling(sums: FloatArray) -> float:
    """Test whether the mean of observations `(G, 2)` is 0; of the first value alone where the second adds nothing."""
    covariance = np.cov(sums, rowvar=False)
    if np.linalg.matrix_rank(covariance) < 2:
        if not sums[:, 0].std() > 0:
            return 1.0 if np.allclose(sums[:, 0], 0.0) else 0.0
        return float(stats.ttest_1samp(sums[:, 0], 0.0).pvalue)
    count, mean = len(sums), sums.mean(axis=0)
    squared = count * mean @ np.linalg.solve(covariance, mean)
    return float(stats.f.sf(squared * (count - 2) / (2 * (count - 1)), 2, count - 2))

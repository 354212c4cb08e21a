"""Scores of ensembles by nested cross-validation over groups, and what each member adds.

In come members side by side; out go margins in which no row's label had a part, their metrics with intervals, and paired
differences to the best single member, which is chosen anew for each part. `ensemble_report.py` tells them.

Out-of-fold values need two cares, without which labels shuffled at random score above 0: fits stay inside a fold
(`member_table.honest_splits`), and the interval of a member as it is is widened (`fold_intervals.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.fold_intervals import fold_widening, widen_difference, widen_metrics
from natix_roadwork.data.folds import Fold
from natix_roadwork.inference.ensemble import fit_ensemble
from natix_roadwork.inference.member_table import MemberTable, honest_splits
from natix_roadwork.metrics import PairedDifference, mcc, metrics_with_intervals, paired_difference
from natix_roadwork.threshold import count_ties


BEST_MEMBER = "best_member"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How well margins decide at probability 0.5.

    Attributes:
        metrics: `{metric: {"value", "low", "high"}}`, intervals by bootstrap of whole groups.
        difference: MCC minus that of the best single member, on the same rows and draws; None for that member itself.
        ties: Rows of probability exactly 0.5, decided as None.
    """

    metrics: dict[str, dict[str, float | None]]
    difference: PairedDifference | None
    ties: int


@dataclass(frozen=True)
class EnsembleScores:
    """Everything `score_ensembles` found.

    Attributes:
        members: Score of each member at its own cut of 0.5: nothing is fitted.
        tuned_members: Score of each member with its cut fitted on other rows.
        methods: Score of each way of combining, and of `best_member`, fitted on other rows.
        disagreement: Share of rows that two members decide differently, by "one | other".
        error_correlation: Correlation of two members' errors, by "one | other"; 0 where one makes none.
    """

    members: dict[str, Score]
    tuned_members: dict[str, Score]
    methods: dict[str, Score]
    disagreement: dict[str, float]
    error_correlation: dict[str, float]


def cross_fitted(
    table: MemberTable, splits: Sequence[Fold], fit: Callable[[MemberTable], Callable[[FloatArray], FloatArray]]
) -> FloatArray:
    """Return `(N,)` margins, each from what was fitted on other rows.

    Args:
        table: Rows of all members.
        splits: Row numbers to fit on and to score, see `honest_splits`.
        fit: Makes, of the rows to fit on, a map of logits `(N, M, 2)` to margins `(N,)`.
    """
    margins = np.full(len(table), np.nan)
    for fit_rows, scored in splits:
        margins[scored] = fit(table.take(fit_rows))(table.logits[scored])
    return margins


def score_ensembles(
    table: MemberTable,
    methods: Sequence[str],
    num_folds: int = 5,
    target_prior: float | None = None,
    seed: int = 0,
    num_samples: int = 1000,
) -> EnsembleScores:
    """Score members and ways of combining them, all on the same rows.

    The combination, its cut and the best member are fitted on the other parts of `honest_splits`. With out-of-fold
    values a part is fitted on rows of its own fold only, so that an ensemble fitted on all rows does rather better.

    Args:
        table: Rows that no member has learned from.
        methods: Of `combining.METHODS`.
        num_folds: Parts of each fold of the members, or of the rows of a split that taught none.
        target_prior: Share of roadwork that cuts shall be best for; None = that of the rows.
        seed: Seed of parts, fits and intervals.
        num_samples: Bootstrap samples of the intervals.

    Raises:
        ValueError: If a part would lack a class, or a method is unknown.
    """
    splits = honest_splits(table, num_folds, seed)
    best = _nested(table, splits, BEST_MEMBER, target_prior, seed)
    combined = {BEST_MEMBER: best} | {
        method: _nested(table, splits, method, target_prior, seed) for method in methods if method != BEST_MEMBER
    }
    tuned, own = {}, {}
    for number, name in enumerate(table.names):
        tuned[name] = _nested(table.pick([number]), splits, "mean", target_prior, seed)
        widening = fold_widening(table.folds[:, number])
        own[name] = _score(table, table.margins[:, number], best, num_samples, seed, widening)
    scores = [
        {name: _score(table, values, best, num_samples, seed) for name, values in margins.items()}
        for margins in (tuned, combined)
    ]
    return EnsembleScores(own, *scores, *compare_decisions(table.labels, tuned))


def gains_of_members(
    table: MemberTable,
    method: str,
    num_folds: int = 5,
    target_prior: float | None = None,
    seed: int = 0,
    num_samples: int = 1000,
) -> dict[str, PairedDifference]:
    """Measure what each member adds: MCC of the ensemble minus that of the ensemble without it, on the same rows.

    Args:
        table: Rows that no member has learned from.
        method: One of `combining.METHODS`.
        num_folds: As `score_ensembles`.
        target_prior: As there.
        seed: As there.
        num_samples: As there.

    Raises:
        ValueError: As there.
    """
    splits = honest_splits(table, num_folds, seed)
    everyone = _nested(table, splits, method, target_prior, seed)
    gains = {}
    for number, name in enumerate(table.names):
        others = table.pick([other for other in range(len(table.names)) if other != number])
        without = _nested(others, splits, method, target_prior, seed)
        gains[name] = _difference(table, everyone, without, num_samples, seed)
    return gains


def idle_members(gains: Mapping[str, PairedDifference]) -> list[str]:
    """Name the members that add no more than one standard error."""
    return [name for name, gain in gains.items() if gain.value <= gain.standard_error]


def compare_decisions(
    labels: NDArray[np.int64], margins: dict[str, FloatArray]
) -> tuple[dict[str, float], dict[str, float]]:
    """Compare members two by two.

    Args:
        labels: `(N,)` 0 or 1.
        margins: `(N,)` margins of each member; above 0 is Roadwork.

    Returns:
        The share of rows decided differently, and the correlation of errors, each by "one | other".
    """
    disagreement, correlation = {}, {}
    for (one, first), (other, second) in combinations(margins.items(), 2):
        decided = [(values > 0).astype(np.int64) for values in (first, second)]
        disagreement[f"{one} | {other}"] = float((decided[0] != decided[1]).mean())
        errors = [(decision != labels).astype(np.int64) for decision in decided]
        correlation[f"{one} | {other}"] = mcc(*errors)
    return disagreement, correlation


def _nested(
    table: MemberTable, splits: Sequence[Fold], method: str, target_prior: float | None, seed: int
) -> FloatArray:
    return cross_fitted(table, splits, lambda rows: fit_ensemble(rows, method, target_prior, seed).margins)


def _score(
    table: MemberTable, margins: FloatArray, best: FloatArray, num_samples: int, seed: int, widening: float = 1.0
) -> Score:
    metrics = metrics_with_intervals(table.labels, _probabilities(margins), table.groups, num_samples, seed)
    difference = None
    if margins is not best:
        difference = widen_difference(_difference(table, margins, best, num_samples, seed), widening)
    return Score(widen_metrics(metrics, widening), difference, count_ties(margins))


def _difference(
    table: MemberTable, one: FloatArray, other: FloatArray, num_samples: int, seed: int
) -> PairedDifference:
    pair = (_probabilities(one), _probabilities(other))
    return paired_difference(table.labels, *pair, table.groups, num_samples=num_samples, seed=seed)


def _probabilities(margins: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * margins))

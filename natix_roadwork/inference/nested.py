"""Scores of ensembles by nested cross-validation over groups, and what each member adds.

In come members side by side; out go margins in which no row's label had a part, their metrics with intervals, and paired
differences to the best single member, which is chosen anew for each part. `recipes/ensemble.py` prints and records them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        added: MCC of the first method minus that of the same method without the member.
        disagreement: Share of rows that two members decide differently, by "one | other".
        error_correlation: Correlation of two members' errors, by "one | other"; 0 where one makes none.
    """

    members: dict[str, Score]
    tuned_members: dict[str, Score]
    methods: dict[str, Score]
    added: dict[str, PairedDifference] = field(default_factory=dict)
    disagreement: dict[str, float] = field(default_factory=dict)
    error_correlation: dict[str, float] = field(default_factory=dict)

    @property
    def idle_members(self) -> list[str]:
        """Members that add less than one standard error to the first method."""
        return [name for name, gain in self.added.items() if gain.value < gain.standard_error]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds besides the metrics."""
        scores = self.members | {f"{name}, tuned": score for name, score in self.tuned_members.items()} | self.methods
        return {
            "difference_to_best_member": {name: asdict(s.difference) for name, s in scores.items() if s.difference},
            "ties_at_half": {name: score.ties for name, score in scores.items()},
            "added_by_member": {name: asdict(gain) for name, gain in self.added.items()},
            "idle_members": self.idle_members,
            "disagreement": self.disagreement,
            "error_correlation": self.error_correlation,
        }


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
    """Score members and ways of combining them, all on the same rows, and name what each member adds to the first way.

    The combination, its cut and the best member are fitted on the other parts of `honest_splits`. With out-of-fold
    values a part is fitted on rows of its own fold only, so that an ensemble fitted on all rows does rather better.

    Args:
        table: Rows that no member has learned from.
        methods: Of `combining.METHODS`; the first is asked what each member adds.
        num_folds: Parts of each fold of the members, or of the rows of a split that taught none.
        target_prior: Share of roadwork that cuts shall be best for; None = that of the rows.
        seed: Seed of parts, fits and intervals.
        num_samples: Bootstrap samples of the intervals.

    Raises:
        ValueError: If a part would lack a class, or a method is unknown.
    """
    splits = honest_splits(table, num_folds, seed)

    def nested(method: str, members: Sequence[int]) -> FloatArray:
        return cross_fitted(
            table.pick(members), splits, lambda rows: fit_ensemble(rows, method, target_prior, seed).margins
        )

    everyone = range(len(table.names))
    best = nested(BEST_MEMBER, everyone)
    combined = {method: nested(method, everyone) for method in methods if method != BEST_MEMBER}
    tuned = {name: nested("mean", [number]) for number, name in enumerate(table.names)}
    own = dict(zip(table.names, table.margins.T, strict=True))

    def scores(margins: dict[str, FloatArray]) -> dict[str, Score]:
        return {name: _score(table, values, best, num_samples, seed) for name, values in margins.items()}

    first = combined.get(methods[0], best)
    added = {}
    for number, name in enumerate(table.names if len(table.names) > 2 else ()):
        others = nested(methods[0], [other for other in everyone if other != number])
        added[name] = _difference(table, first, others, num_samples, seed)
    disagreement, correlation = compare_decisions(table.labels, tuned)
    return EnsembleScores(
        scores(own), scores(tuned), scores({BEST_MEMBER: best} | combined), added, disagreement, correlation
    )


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


def _score(table: MemberTable, margins: FloatArray, best: FloatArray, num_samples: int, seed: int) -> Score:
    metrics = metrics_with_intervals(table.labels, _probabilities(margins), table.groups, num_samples, seed)
    difference = None if margins is best else _difference(table, margins, best, num_samples, seed)
    return Score(metrics, difference, count_ties(margins))


def _difference(
    table: MemberTable, one: FloatArray, other: FloatArray, num_samples: int, seed: int
) -> PairedDifference:
    pair = (_probabilities(one), _probabilities(other))
    return paired_difference(table.labels, *pair, table.groups, num_samples=num_samples, seed=seed)


def _probabilities(margins: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * margins))

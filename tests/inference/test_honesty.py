"""Scores on shuffled labels lie around 0; a score that leaks does not pass the same harness."""

import numpy as np
import pytest

from natix_roadwork.data.fold_intervals import fold_widening
from natix_roadwork.data.folds import stratified_group_folds
from natix_roadwork.inference.ensemble import fit_ensemble
from natix_roadwork.inference.member_table import member_table
from natix_roadwork.inference.nested import cross_fitted, score_ensembles
from natix_roadwork.metrics import metrics_with_intervals
from tests.inference.honesty import Scores, dishonest, null_scores, shuffled_members


METHODS = ("mean", "greedy_mcc", "stacking")


def _scores(seed: int) -> Scores:
    """The MCC of every kind of score that the library gives."""
    table = member_table(shuffled_members(seed, num_members=3))
    found = score_ensembles(table, METHODS, num_folds=3, seed=seed, num_samples=100)
    kinds = {"out of fold": found.members["m0"], "cut tuned": found.tuned_members["m0"], **found.methods}
    return {name: score.metrics["mcc"] for name, score in kinds.items()}


def _leaking(seed: int) -> Scores:
    """Stacking scored by ordinary nested folds over out-of-fold values, each of which has met the scored labels."""
    table = member_table(shuffled_members(seed, num_members=8))
    splits = stratified_group_folds(table.labels, table.groups, 5, seed)
    margins = cross_fitted(table, splits, lambda rows: fit_ensemble(rows, "stacking", seed=seed).margins)
    probabilities = 0.5 * (1 + np.tanh(0.5 * margins))
    return {"leaking": metrics_with_intervals(table.labels, probabilities, table.groups, 200, seed)["mcc"]}


def test_scores_on_shuffled_labels_are_around_zero() -> None:
    assert not dishonest(null_scores(_scores, range(8)))


@pytest.mark.slow
def test_scores_on_shuffled_labels_are_around_zero_in_twenty_runs() -> None:
    assert not dishonest(null_scores(_scores, range(20)))


def test_a_leaking_score_does_not_pass() -> None:
    scores = null_scores(_leaking, range(10))
    assert dishonest(scores) and scores["leaking"][:, 0].mean() > 0.04


def test_plain_intervals_of_out_of_fold_scores_are_too_narrow() -> None:
    """Why `fold_widening` exists: the deviation over runs is about sqrt(2) of what the bootstrap of rows says."""

    def own(seed: int) -> Scores:
        (member,) = shuffled_members(seed, num_members=1)
        return {"own": metrics_with_intervals(member.labels, member.probabilities, member.groups, 100, seed)["mcc"]}

    values = null_scores(own, range(40))["own"]
    said = (values[:, 2] - values[:, 1]).mean() / (2 * 1.96)
    assert 1.1 < values[:, 0].std(ddof=1) / said < 1.7
    assert fold_widening(np.arange(10) % 5) == pytest.approx(1.5)
    assert fold_widening(np.full(10, -1)) == 1.0

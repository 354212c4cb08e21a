import numpy as np
import pytest

from natix_roadwork.inference.ensemble import fit_ensemble
from natix_roadwork.inference.member_table import member_table
from natix_roadwork.inference.nested import compare_decisions, gains_of_members, idle_members, score_ensembles
from tests.inference.member_rows import changed, fold_numbers, group_labels, members, prediction


SMALL = {"num_folds": 3, "num_samples": 100}


def test_members_that_err_apart_gain_by_combining() -> None:
    found = score_ensembles(member_table(members([0.8] * 4, rows=400)), ["mean", "stacking"], **SMALL)
    for method in ("mean", "stacking"):
        gap = found.methods[method].difference
        assert gap.low > 0 and gap.value > 0.1
    assert found.methods["best_member"].difference is None


def test_members_that_err_alike_gain_nothing() -> None:
    found = score_ensembles(member_table(members([0.8] * 3, rows=400, shared=0.999)), ["mean"], **SMALL)
    gap = found.methods["mean"].difference
    assert gap.low <= 0.0 <= gap.high and abs(gap.value) < 0.03
    assert min(found.error_correlation.values()) > 0.8


def test_a_member_as_it_is_is_scored_without_fitting() -> None:
    table = member_table(members([0.8, 1.0]))
    found = score_ensembles(table, ["mean"], **SMALL)
    accuracy = found.members["a"].metrics["accuracy"]["value"]
    assert accuracy == pytest.approx(np.mean((table.margins[:, 0] > 0) == table.labels))


def test_intervals_of_out_of_fold_members_are_wider() -> None:
    made = members([0.8, 1.0])
    folds = fold_numbers(made[0].labels, 5)
    plain = score_ensembles(member_table(made), ["mean"], num_folds=2, num_samples=100).members["a"].metrics
    folded = [changed(member, folds=folds) for member in made]
    wide = score_ensembles(member_table(folded), ["mean"], num_folds=2, num_samples=100).members["a"].metrics
    for name in ("mcc", "accuracy", "fnr"):
        (value, low, high), (same, lower, higher) = (tuple(part[name].values()) for part in (plain, wide))
        assert value == same
        assert (value - lower, higher - value) == pytest.approx((1.5 * (value - low), 1.5 * (high - value)))
    assert wide["prevalence"] == plain["prevalence"]


def test_a_member_that_adds_nothing_is_named() -> None:
    first, second, third = members([1.0, 1.0, 1.0], rows=400)
    table = member_table([first, second, changed(third, logits=np.zeros_like(third.logits))])
    gains = gains_of_members(table, "mean", **SMALL)
    assert idle_members(gains) == ["c"] and gains["c"].value == 0.0
    assert gains["a"].value > gains["a"].standard_error
    pair = gains_of_members(table.pick([0, 2]), "mean", **SMALL)
    assert idle_members(pair) == ["c"] and pair["a"].value > 0.3


def test_a_member_that_only_knows_its_training_rows_gains_nothing() -> None:
    """It is perfect where it learned and random where it did not; stacking must not see the former."""
    rng = np.random.default_rng(3)
    labels = group_labels(960, 0.5, rng)
    honest = prediction("honest", 0.7 * (2.0 * labels - 1.0) + rng.normal(size=960), labels)
    learned = np.arange(960) < 480
    margins = np.where(learned, 20.0 * (2.0 * labels - 1.0), rng.normal(size=960))
    oracle = changed(prediction("oracle", margins, labels), splits=np.where(learned, "train", "dev"))
    table = member_table([honest, oracle])
    assert len(table) == 480
    assert table.notes[0].startswith("member 'oracle' has learned from 480 of its 960 rows")
    found = score_ensembles(table, ["stacking", "mean", "greedy_log_loss"], **SMALL)
    for method in ("stacking", "mean", "greedy_log_loss"):
        gap = found.methods[method].difference
        assert gap.value < max(gap.standard_error, 0.03), method
    assert abs(found.members["oracle"].metrics["mcc"]["value"]) < 0.15
    weights = fit_ensemble(table, "stacking").combination.weights * table.margins.std(axis=0)
    assert abs(weights[1]) < 0.2 * weights[0]


def test_out_of_fold_values_of_such_a_member_gain_nothing_either() -> None:
    rng = np.random.default_rng(4)
    labels = group_labels(480, 0.5, rng)
    folds = np.where(np.arange(480) < 240, -1, fold_numbers(labels, 3))
    honest = changed(
        prediction("honest", 0.7 * (2.0 * labels - 1.0) + rng.normal(size=480), labels, folds),
        record={"learned_from": ["train"]},
    )
    margins = np.where(folds < 0, 20.0 * (2.0 * labels - 1.0), rng.normal(size=480))
    table = member_table([honest, prediction("oracle", margins, labels, folds)])
    assert len(table) == 240 and (table.folds >= 0).all()
    gap = score_ensembles(table, ["stacking"], **SMALL).methods["stacking"].difference
    assert gap.value < max(gap.standard_error, 0.03)


def test_pairs_are_compared_by_decision_and_error() -> None:
    labels = np.array([1, 1, 0, 0])
    margins = {"x": np.array([1, 1, -1, 1.0]), "y": np.array([1, 1, -1, 1.0]), "z": np.array([-1, 1, -1, -1.0])}
    disagreement, correlation = compare_decisions(labels, margins)
    assert disagreement == {"x | y": 0.0, "x | z": 0.5, "y | z": 0.5}
    assert correlation["x | y"] == 1.0 and correlation["x | z"] == pytest.approx(-1 / 3)


def test_the_same_seed_gives_the_same_scores() -> None:
    table = member_table(members([0.8, 1.0], rows=160, num_folds=2))
    one, two = (score_ensembles(table, ["stacking", "mlp"], seed=5, **SMALL) for _ in range(2))
    assert one == two


def test_ties_are_counted() -> None:
    labels = group_labels(80, 0.5, np.random.default_rng(0))
    made = [prediction("zero", np.zeros(80), labels), prediction("one", labels - 0.5, labels)]
    assert score_ensembles(member_table(made), ["mean"], **SMALL).members["zero"].ties == 80

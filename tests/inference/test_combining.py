import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from natix_roadwork.inference.combining import C_GRID, METHODS, Combination, fit_combination
from natix_roadwork.inference.member_table import MemberTable, member_table
from tests.inference.member_rows import changed, group_labels, members, prediction


def table(strengths: tuple[float, ...] = (0.5, 1.0, 0.0), **values: object) -> MemberTable:
    return member_table(members(strengths, **values))


@pytest.mark.parametrize("method", METHODS)
def test_every_way_beats_chance_and_travels_through_json(method: str) -> None:
    rows = table(rows=400)
    fitted = fit_combination(rows, method, seed=1)
    margins = fitted(rows.logits)
    assert np.mean((margins > 0) == rows.labels) > 0.75
    read = Combination.from_dict(json.loads(json.dumps(fitted.as_dict())), 3)
    np.testing.assert_array_equal(read(rows.logits), margins)
    np.testing.assert_array_equal(fit_combination(rows, method, seed=1)(rows.logits), margins)


def test_equal_members_get_equal_weights() -> None:
    one, two = members([1.0, 1.0])
    same = member_table([one, changed(two, logits=one.logits)])
    for method in ("mean", "weighted", "stacking"):
        weights = fit_combination(same, method).weights
        assert weights[0] == pytest.approx(weights[1], rel=1e-3)


def test_the_mean_brings_members_to_one_scale() -> None:
    """A member ten times as confident as it may be does not drown the others."""
    one, two = members([1.0, 1.0], rows=800)
    loud = member_table([one, changed(two, logits=10 * two.logits)])
    np.testing.assert_allclose(
        fit_combination(loud, "mean")(loud.logits),
        fit_combination(member_table([one, two]), "mean")(member_table([one, two]).logits),
        atol=0.02,
    )


def test_weights_follow_what_members_know() -> None:
    rows = table((0.3, 1.2, 0.0), rows=800)
    standardised = {
        name: fit_combination(rows, name).weights * rows.margins.std(axis=0) for name in METHODS if "mlp" not in name
    }
    for name in ("weighted", "greedy_log_loss", "greedy_mcc", "stacking"):
        assert standardised[name].argmax() == 1 and standardised[name][2] < 0.2 * standardised[name][1], name
    assert np.flatnonzero(standardised["best_member"]).tolist() == [1]


def test_stacking_is_the_logistic_regression_it_says() -> None:
    rows = table(rows=400)
    fitted = fit_combination(rows, "stacking")
    inputs = (rows.margins - rows.margins.mean(axis=0)) / rows.margins.std(axis=0)
    candidates = [LogisticRegression(C=c).fit(inputs, rows.labels).decision_function(inputs) for c in C_GRID]
    assert min(np.abs(fitted(rows.logits) - margins).max() for margins in candidates) < 1e-3


def test_networks_have_the_planned_sizes() -> None:
    rows = table((1.0,) * 6)
    assert [weights.shape for weights, _ in fit_combination(rows, "mlp").layers] == [(6, 4), (4, 1)]
    assert [weights.shape for weights, _ in fit_combination(rows, "mlp_deep").layers] == [(12, 6), (6, 4), (4, 1)]


@pytest.mark.parametrize("method", METHODS)
def test_useless_members_give_finite_margins(method: str) -> None:
    labels = group_labels(80, 0.5, np.random.default_rng(0))
    for margins in (np.zeros(80), np.where(labels == 1, -3.0, 3.0), np.where(labels == 1, 30.0, -30.0)):
        rows = member_table([prediction("constant", np.full(80, 7.0), labels), prediction("other", margins, labels)])
        assert np.isfinite(fit_combination(rows, method)(rows.logits)).all()


def test_a_stacking_of_few_groups_needs_no_inner_folds() -> None:
    labels = np.repeat([0, 1], 4)
    rows = member_table([prediction(name, labels + np.arange(8) % 3, labels) for name in "ab"])
    assert np.isfinite(fit_combination(rows, "stacking").weights).all()


def test_unknown_ways_and_single_classes_are_named() -> None:
    rows = table()
    with pytest.raises(ValueError, match="method='median' is unknown; choose one of mean, weighted"):
        fit_combination(rows, "median")
    with pytest.raises(ValueError, match="rows are 1; Platt's line needs rows of both classes"):
        fit_combination(rows.take(rows.labels == 1), "mean")


@pytest.mark.parametrize(
    "values",
    [
        {"inputs": "margins", "layers": [{"weights": [[1.0]], "offsets": [0.0]}]},
        {"inputs": "margins", "layers": []},
        {"inputs": "margins", "layers": [{"weights": [[1.0], [float("nan")]], "offsets": [0.0]}]},
        {"inputs": "embeddings", "layers": [{"weights": [[1.0], [1.0]], "offsets": [0.0]}]},
    ],
)
def test_damaged_numbers_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match=r"do not lead from|neither margins nor logits"):
        Combination.from_dict(values, 2)

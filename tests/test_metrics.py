import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score

from natix_roadwork import metrics
from natix_roadwork.metrics import (
    METRICS,
    binary_metrics,
    mcc,
    metric_feasible,
    metrics_with_intervals,
    paired_difference,
)


def draw_rows(num_rows: int, seed: int = 0, signal: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, num_rows)
    probabilities = signal * labels + (1.0 - signal) * generator.random(num_rows)
    return labels, np.round(probabilities, 2)


@pytest.mark.parametrize("seed", range(5))
def test_values_equal_scikit_learn(seed: int) -> None:
    labels, probabilities = draw_rows(97, seed)
    decisions = probabilities > 0.5
    values = binary_metrics(labels, probabilities)
    assert values["mcc"] == pytest.approx(matthews_corrcoef(labels, decisions), abs=1e-12)
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, decisions))
    assert values["auc"] == pytest.approx(roc_auc_score(labels, probabilities))
    assert values["fnr"] == pytest.approx((~decisions[labels == 1]).mean())
    assert mcc(labels, decisions) == matthews_corrcoef(labels, decisions)


def test_mcc_is_zero_when_undefined() -> None:
    assert mcc([0, 1, 1], [1, 1, 1]) == 0.0
    assert mcc([1, 1], [0, 1]) == 0.0
    assert binary_metrics([0, 1, 1], [0.9, 0.9, 0.9])["mcc"] == 0.0


def test_exactly_one_half_counts_as_none() -> None:
    values = binary_metrics([0, 1], [0.5, np.nextafter(0.5, 1.0)])
    assert values["accuracy"] == 1.0
    assert binary_metrics([1], [0.5])["fnr"] == 1.0


def test_one_class_gives_none_not_nan() -> None:
    values = binary_metrics([0, 0], [0.1, 0.2])
    assert values["auc"] is None and values["fnr"] is None and values["mcc_balanced"] is None
    assert values["accuracy"] == 1.0
    assert metrics_with_intervals([0, 0], [0.1, 0.2])["auc"] == {"value": None, "low": None, "high": None}


def test_balanced_mcc_does_not_depend_on_the_prior() -> None:
    labels, probabilities = draw_rows(60)
    negatives = labels == 0
    more_labels = np.concatenate([labels, np.repeat(labels[negatives], 9)])
    more = np.concatenate([probabilities, np.repeat(probabilities[negatives], 9)])
    few, many = binary_metrics(labels, probabilities), binary_metrics(more_labels, more)
    assert few["mcc_balanced"] == pytest.approx(many["mcc_balanced"])
    assert many["mcc"] < few["mcc"]


def test_balanced_mcc_equals_mcc_at_equal_classes() -> None:
    values = binary_metrics([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.9, 0.4, 0.8, 0.9])
    assert values["mcc_balanced"] == pytest.approx(values["mcc"])


def test_calibration_error_closed_forms() -> None:
    assert binary_metrics([0, 1, 1, 1], [0.75] * 4)["ece"] == pytest.approx(0.0)
    assert binary_metrics([1, 1, 1], [0.9, 0.8, 0.7])["ece"] == pytest.approx(0.2)
    assert binary_metrics([0, 1], [0.0, 1.0])["ece"] == pytest.approx(0.0)


def test_row_order_changes_nothing() -> None:
    labels, probabilities = draw_rows(80)
    order = np.argsort(labels)
    sorted_values = binary_metrics(labels[order], probabilities[order])
    assert sorted_values == pytest.approx(binary_metrics(labels, probabilities))


def test_interval_holds_the_value_and_repeats() -> None:
    labels, probabilities = draw_rows(200)
    values = metrics_with_intervals(labels, probabilities, num_samples=200)
    assert set(values) == set(METRICS)
    assert values["mcc"]["low"] < values["mcc"]["value"] < values["mcc"]["high"]
    assert values == metrics_with_intervals(labels, probabilities, num_samples=200)
    assert values != metrics_with_intervals(labels, probabilities, num_samples=200, seed=1)


def test_interval_of_accuracy_has_the_binomial_width() -> None:
    labels = np.ones(400, dtype=int)
    probabilities = np.where(np.arange(400) < 300, 0.9, 0.1)
    values = metrics_with_intervals(labels, probabilities, num_samples=2000)["accuracy"]
    assert values["high"] - values["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / 400), rel=0.1)


def test_repeated_rows_in_a_group_do_not_narrow_the_interval() -> None:
    labels, probabilities = draw_rows(60)
    groups = np.array([f"video {row}" for row in range(60)])
    single = metrics_with_intervals(labels, probabilities, groups)
    repeated = metrics_with_intervals(np.repeat(labels, 5), np.repeat(probabilities, 5), np.repeat(groups, 5))
    assert repeated["mcc"] == pytest.approx(single["mcc"])
    alone = metrics_with_intervals(np.repeat(labels, 5), np.repeat(probabilities, 5))["mcc"]
    assert alone["high"] - alone["low"] < 0.6 * (single["mcc"]["high"] - single["mcc"]["low"])


def test_one_group_has_no_interval() -> None:
    values = metrics_with_intervals([0, 1], [0.1, 0.9], groups=["a", "a"])
    assert values["mcc"] == {"value": pytest.approx(1.0), "low": None, "high": None}


def test_paired_difference_of_a_model_with_itself_is_zero() -> None:
    labels, probabilities = draw_rows(50)
    difference = paired_difference(labels, probabilities, probabilities, num_samples=50)
    assert (difference.value, difference.low, difference.high, difference.standard_error) == (0, 0, 0, 0)


def test_paired_difference_is_antisymmetric_and_finds_the_better_model() -> None:
    labels, good = draw_rows(300, signal=0.45)
    bad = np.random.default_rng(9).random(300)
    forward = paired_difference(labels, good, bad)
    backward = paired_difference(labels, bad, good)
    assert forward.value == pytest.approx(-backward.value)
    assert forward.low == pytest.approx(-backward.high)
    assert 0 < forward.low < forward.value < forward.high
    assert forward.standard_error == pytest.approx((forward.high - forward.low) / 3.92, rel=0.15)


@pytest.mark.parametrize(
    ("accuracy", "fnr", "largest"),
    [(0.88, 0.15, 0.763), (0.95, 0.08, 0.902), (0.98, 0.05, 0.959), (0.99, 0.05, 0.969)],
)
def test_feasible_mcc_of_the_planned_targets(accuracy: float, fnr: float, largest: float) -> None:
    assert metric_feasible(accuracy, fnr).mcc == pytest.approx(largest, abs=5e-4)


def test_feasibility_at_a_prevalence_equals_counting() -> None:
    labels = np.repeat([1, 0], 50)
    predictions = np.concatenate([np.repeat([1, 0], [45, 5]), np.repeat([0, 1], [40, 10])])
    result = metric_feasible(accuracy=0.85, fnr=0.1, prevalence=0.5)
    assert result.possible and result.mcc == pytest.approx(mcc(labels, predictions))


def test_impossible_targets_are_named() -> None:
    result = metric_feasible(accuracy=0.99, fnr=0.15, prevalence=0.8)
    assert not result.possible and result.mcc is None
    assert "0.99" in result.reason and "0.15" in result.reason and "0.8" in result.reason
    assert not metric_feasible(accuracy=1.0, fnr=0.5).possible


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [0.1, np.nan], r"probabilities\[1\]=nan"),
        ([0, 1], [1.5, 0.2], r"probabilities\[0\]=1.5"),
        ([0, 2], [0.1, 0.2], r"labels\[1\]=2"),
        ([0, 1], [0.1], r"shape \(1,\)"),
        ([], [], "at least one row"),
    ],
)
def test_bad_rows_are_named(labels: list, probabilities: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics_with_intervals(labels, probabilities)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="groups has shape"):
        metrics_with_intervals([0, 1], [0.1, 0.9], groups=["a"])
    with pytest.raises(ValueError, match="one group only"):
        paired_difference([0, 1], [0.1, 0.9], [0.2, 0.8], groups=["a", "a"])
    with pytest.raises(ValueError, match="metric='f1'"):
        paired_difference([0, 1], [0.1, 0.9], [0.2, 0.8], metric="f1")
    with pytest.raises(ValueError, match="undefined"):
        paired_difference([0, 0], [0.1, 0.9], [0.2, 0.8], metric="auc")
    with pytest.raises(ValueError, match=r"level=1.5"):
        metrics_with_intervals([0, 1], [0.1, 0.9], level=1.5)
    with pytest.raises(ValueError, match=r"fnr=1.2"):
        metric_feasible(0.9, 1.2)


def test_metrics_needs_numpy_and_scikit_learn_only() -> None:
    tree = ast.parse(Path(metrics.__file__).read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {module.split(".")[0] for module in modules} - sys.stdlib_module_names == {"numpy", "sklearn"}

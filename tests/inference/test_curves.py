import numpy as np
import pytest

from natix_roadwork.inference.curves import calibration_test, reliability_bins, threshold_curve
from natix_roadwork.metrics import mcc


def drawn(num_rows: int = 2000, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels drawn from probabilities whose margins are then multiplied, so that 1 is calibrated; groups of one."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 1.5, num_rows)
    labels = (rng.random(num_rows) < 1 / (1 + np.exp(-margins))).astype(np.int64)
    return labels, 1 / (1 + np.exp(-sharpness * margins)), np.arange(num_rows).astype(str)


def test_bins_are_equal_in_rows_and_keep_equal_probabilities_together() -> None:
    labels = np.array([0, 0, 0, 1] * 5 + [1] * 20)
    probabilities = np.repeat([0.25, 0.9], 20)
    first, second = reliability_bins(labels, probabilities, np.arange(40).astype(str))
    assert (first.probability, first.share, first.num_rows) == (pytest.approx(0.25), pytest.approx(0.25), 20)
    assert (second.share, second.low, second.high) == (1.0, 1.0, 1.0) and first.low < 0.25 < first.high
    assert [point.num_rows for point in reliability_bins(*drawn())] == [200] * 10


def test_mcc_over_the_cut_is_that_of_the_decisions() -> None:
    labels, probabilities, groups = drawn(200)
    curve = threshold_curve(labels, probabilities, groups)
    for place in (0, 50, 120, 199):
        assert curve.mcc[place + 1] == pytest.approx(mcc(labels, (probabilities > curve.cuts[place + 1]).astype(int)))
    assert curve.at_half == pytest.approx(mcc(labels, (probabilities > 0.5).astype(int)))
    assert curve.best == pytest.approx(curve.mcc.max()) and curve.standard_error > 0


def test_plateau_is_the_widest_stretch_near_the_best() -> None:
    labels, probabilities = np.array([0, 0, 0, 1, 1, 1] * 4), np.array([0.1, 0.15, 0.2, 0.6, 0.7, 0.8] * 4)
    curve = threshold_curve(labels, probabilities, np.arange(24).astype(str))
    assert curve.best == 1.0 and curve.plateau == (0.2, 0.6) and curve.middle == pytest.approx(0.4)


def test_one_label_gives_a_flat_curve() -> None:
    curve = threshold_curve(np.ones(4, int), np.array([0.2, 0.4, 0.6, 0.8]), np.arange(4).astype(str))
    assert curve.best == curve.at_half == 0.0 and curve.plateau == (0.0, 1.0)


def test_calibration_is_judged_by_whole_groups() -> None:
    assert calibration_test(*drawn()).p_value > 0.05
    sure = calibration_test(*drawn(sharpness=2.0))
    assert sure.p_value < 1e-6 and sure.overconfidence > 0 and abs(sure.bias) < 0.02
    assert calibration_test(*drawn(sharpness=0.5)).overconfidence < 0
    labels, probabilities, _ = drawn()
    assert calibration_test(labels, probabilities, np.repeat(["a", "b"], 1000)).p_value is None
    assert calibration_test(np.ones_like(labels), probabilities, np.arange(2000).astype(str)).p_value is None


def test_calibration_finds_about_one_in_twenty_by_chance() -> None:
    found = [calibration_test(*drawn(300, seed=seed)).p_value <= 0.05 for seed in range(200)]
    assert 0.015 <= np.mean(found) <= 0.1


def test_a_constant_probability_is_tested_for_its_bias_alone() -> None:
    labels, groups = np.array([0, 1] * 50), np.arange(100).astype(str)
    assert calibration_test(labels, np.full(100, 0.5), groups).p_value == pytest.approx(1.0)
    assert calibration_test(labels, np.full(100, 0.9), groups).p_value < 1e-6

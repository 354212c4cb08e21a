import numpy as np
import pytest

from natix_roadwork.inference.curves import calibration_test, reliability_bins, threshold_curve
from natix_roadwork.metrics import mcc
from natix_roadwork.threshold import fit_mcc_cut


def logit(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities / (1 - probabilities))


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
    margins = logit(probabilities)
    curve = threshold_curve(labels, margins, groups)
    for place in (0, 50, 120, 199):
        cut = np.sort(margins)[place]
        assert curve.cuts[place + 1] == pytest.approx(1 / (1 + np.exp(-cut)))
        assert curve.mcc[place + 1] == pytest.approx(mcc(labels, (margins > cut).astype(int)))
    assert curve.at_half == pytest.approx(mcc(labels, (probabilities > 0.5).astype(int)))
    assert curve.best == pytest.approx(curve.mcc.max()) and curve.standard_error > 0


def test_plateau_is_the_one_that_an_ensemble_s_cut_lies_in() -> None:
    labels, probabilities, _ = drawn(400)
    margins, groups = logit(probabilities), (np.arange(400) // 4).astype(str)
    curve, cut = threshold_curve(labels, margins, groups, seed=3), fit_mcc_cut(margins, labels, groups, seed=3)
    assert logit(np.array(curve.plateau)) == pytest.approx([cut.low, cut.high])
    assert (curve.best, curve.standard_error) == (cut.largest_mcc, cut.standard_error)
    assert cut.low <= cut.threshold <= cut.high
    inside = (curve.cuts >= curve.plateau[0]) & (curve.cuts < curve.plateau[1])
    assert curve.mcc[inside].min() >= curve.best - curve.standard_error - 1e-9


def test_the_gap_between_the_classes_is_the_plateau() -> None:
    labels, probabilities = np.array([0, 0, 0, 1, 1, 1] * 4), np.array([0.1, 0.15, 0.2, 0.6, 0.7, 0.8] * 4)
    curve = threshold_curve(labels, logit(probabilities), np.arange(24).astype(str))
    assert curve.best == 1.0 and curve.plateau == pytest.approx((0.2, 0.6))


def test_one_label_gives_a_flat_curve() -> None:
    curve = threshold_curve(np.ones(4, int), np.arange(4.0), np.arange(4).astype(str))
    assert curve.best == curve.at_half == 0.0 and curve.plateau == (0.0, 1.0)


def test_equal_margins_have_no_plateau_but_their_own_place() -> None:
    curve = threshold_curve(np.array([0, 1, 1]), np.full(3, 1.0), np.arange(3).astype(str))
    assert curve.best == curve.at_half == 0.0 and curve.plateau[0] == curve.plateau[1] == pytest.approx(
        0.731, abs=1e-3
    )


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

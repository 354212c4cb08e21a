import dataclasses

import numpy as np
import pytest

from natix_roadwork.calibration import fit_platt
from natix_roadwork.metrics import binary_metrics, mcc_of_counts
from natix_roadwork.threshold import count_ties, cut_at_half, fit_mcc_cut, largest_mcc, with_interval


def sigmoid(margins: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * margins))


def mcc(labels: np.ndarray, above: np.ndarray) -> float:
    counts = [(above == a) & (labels == b) for a, b in ((1, 1), (1, 0), (0, 0), (0, 1))]
    return float(mcc_of_counts(*(np.array(float(count.sum())) for count in counts)))


def rows(number: int, share: float = 0.8, shift: float = 1.5, factor: float = 3.0, seed: int = 0) -> tuple:
    """Over-confident margins whose best cut is not at 0, their labels, and groups of four."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(number) < share).astype(int)
    return factor * rng.normal(2.0 * labels - 1.0, 1.0) + shift, labels, np.arange(number) // 4


def test_every_cut_is_scanned_as_a_reference_does() -> None:
    rng = np.random.default_rng(0)
    margins, labels = np.round(rng.normal(size=60), 1), rng.integers(0, 2, 60)
    expected = max(mcc(labels, margins > cut) for cut in np.unique(margins))
    assert largest_mcc(margins, labels) == pytest.approx(expected)
    found = fit_mcc_cut(margins, labels)
    assert found.largest_mcc == pytest.approx(expected)
    assert found.mcc == pytest.approx(mcc(labels, margins > found.threshold))


def test_the_threshold_lies_between_the_middle_of_the_stretch_and_the_calibrated_cut() -> None:
    margins, labels, groups = rows(800)
    found = fit_mcc_cut(margins, labels, groups)
    grid = np.linspace(found.low, found.high - 1e-9, 200)
    inside = [mcc(labels, margins > cut) for cut in grid]
    assert min(inside) >= found.largest_mcc - found.standard_error - 1e-9
    line = fit_platt(margins, labels)
    assert line(found.calibrated) == pytest.approx(0.0, abs=1e-9)
    nearest = np.clip(found.calibrated, found.low, found.high)
    assert found.threshold == pytest.approx(0.5 * (0.5 * (found.low + found.high) + nearest))
    assert 0.005 < found.standard_error < 0.05 and found.high - found.low > 0.1


def test_the_cut_jumps_less_from_draw_to_draw_than_that_of_the_largest_score() -> None:
    cuts, largest = [], []
    for seed in range(30):
        margins, labels, groups = rows(300, seed=seed)
        cuts.append(fit_mcc_cut(margins, labels, groups).threshold)
        scores = [mcc(labels, margins > cut) for cut in np.sort(margins)[:-1:4]]
        largest.append(np.sort(margins)[4 * int(np.argmax(scores))])
    assert np.std(cuts) < np.std(largest)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_the_best_cut_lies_at_half_after_the_map(share: float) -> None:
    margins, labels, groups = rows(2000, share)
    cut = fit_mcc_cut(margins, labels, groups)
    mapped = cut_at_half(margins, labels, cut)(margins)
    assert sigmoid(np.array([fit_mcc_cut(mapped, labels, groups).threshold])) == pytest.approx(0.5, abs=0.01)
    grid = [mcc(labels, sigmoid(mapped) > step) for step in np.arange(0.01, 1, 0.01)]
    assert binary_metrics(labels, sigmoid(mapped))["mcc"] >= max(grid) - cut.standard_error


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_calibration_error_falls_on_rows_it_was_not_fitted_on(share: float) -> None:
    margins, labels, groups = rows(3000, share, shift=8.0, factor=8.0)
    fitted, held_out = slice(0, 1500), slice(1500, None)
    cut = fit_mcc_cut(margins[fitted], labels[fitted], groups[fitted])
    mapped = cut_at_half(margins[fitted], labels[fitted], cut)(margins[held_out])
    before = binary_metrics(labels[held_out], sigmoid(margins[held_out]))
    after = binary_metrics(labels[held_out], sigmoid(mapped))
    assert after["ece"] < 0.6 * before["ece"]
    assert after["mcc"] > before["mcc"]


def test_the_cut_serves_the_prior_it_is_asked_for() -> None:
    margins, labels, groups = rows(4000, 0.8, shift=0.0, factor=1.0)
    as_data = fit_mcc_cut(margins, labels, groups)
    at_half = fit_mcc_cut(margins, labels, groups, target_prior=0.5)
    assert at_half.threshold > as_data.threshold
    balanced = [binary_metrics(labels, sigmoid(margins - cut.threshold))["mcc_balanced"] for cut in (at_half, as_data)]
    assert at_half.mcc == pytest.approx(balanced[0]) and balanced[0] >= balanced[1]
    assert at_half.threshold == pytest.approx(0.0, abs=0.25)  # two equal classes meet at 0


def test_the_interval_holds_the_threshold_and_shrinks_with_rows() -> None:
    widths = []
    for number in (200, 3200):
        margins, labels, groups = rows(number)
        cut = with_interval(fit_mcc_cut(margins, labels, groups), margins, labels, groups, num_samples=100)
        assert cut.interval[0] <= cut.threshold <= cut.interval[1]
        widths.append(cut.interval[1] - cut.interval[0])
    assert widths[1] < widths[0]


def test_the_same_seed_gives_the_same_cut() -> None:
    margins, labels, groups = rows(200)
    found = [
        with_interval(fit_mcc_cut(margins, labels, groups, seed=4), margins, labels, groups, num_samples=50, seed=4)
        for _ in range(2)
    ]
    assert found[0] == found[1]


def test_separated_rows_are_cut_in_the_gap() -> None:
    found = fit_mcc_cut([-3.0, -1.0, 2.0, 4.0], [0, 0, 1, 1])
    assert (found.low, found.high, found.mcc, found.standard_error) == (-1.0, 2.0, 1.0, 0.0)
    assert found.threshold == pytest.approx(0.5, abs=1e-4) and found.calibrated == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_it_loses_less_than_the_middle_of_the_stretch_and_little_where_classes_are_spread_unlike(
    spread: float,
) -> None:
    """Mean loss of MCC against the best cut, over draws: why the calibrated cut has a say."""

    def draw(number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        labels = (rng.random(number) < 0.8).astype(int)
        return rng.normal(3.0 * labels, np.where(labels, spread, 1.0)), labels

    losses = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        cut, (margins, labels) = fit_mcc_cut(*draw(200, rng)), draw(5000, rng)
        best = largest_mcc(margins, labels)
        tried = (cut.threshold, 0.5 * (cut.low + cut.high), cut.calibrated)
        losses.append([best - mcc(labels, margins > threshold) for threshold in tried])
    ours, middle, calibrated = np.mean(losses, axis=0)
    assert ours < (middle if spread < 2 else calibrated)


@pytest.mark.parametrize("value", [0.0, -7.0])
def test_equal_margins_give_a_cut_and_a_finite_map(value: float) -> None:
    margins, labels = np.full(6, value), np.array([0, 1, 1, 1, 0, 1])
    cut = fit_mcc_cut(margins, labels)
    assert (cut.threshold, cut.mcc) == (value, 0.0)
    mapped = cut_at_half(margins, labels, cut)(margins)
    np.testing.assert_allclose(mapped, 0.0, atol=1e-12)
    assert with_interval(cut, margins, labels, num_samples=10).interval is None


@pytest.mark.parametrize("target_prior", [None, 0.5])
def test_edges_never_give_nan(target_prior: float | None) -> None:
    for margins, labels in (([1.0, 2.0], [0, 1]), ([2.0, 1.0], [0, 1]), ([1e300, -1e300, 0.0], [1, 0, 1])):
        cut = fit_mcc_cut(margins, labels, ["a"] * len(labels), target_prior)
        values = [value for value in dataclasses.astuple(cut) if value is not None]
        assert np.isfinite(values).all()
        assert np.isfinite(cut_at_half(margins, labels, cut, target_prior)(margins)).all()


def test_ties_are_counted() -> None:
    assert count_ties([0.0, 1e-300, 1e-3, -0.0, -2.0]) == 3
    assert binary_metrics([1, 1], sigmoid(np.zeros(2)))["fnr"] == 1.0  # exactly 0.5 counts as None


@pytest.mark.parametrize(
    ("margins", "labels", "message"),
    [
        ([1.0, 2.0], [0, 0], "labels of all 2 rows are 0; a cut needs rows of both classes"),
        ([], [], "at least one row"),
        ([1.0, np.inf], [0, 1], "row 1 has margin inf"),
    ],
)
def test_bad_rows_are_named(margins: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_mcc_cut(margins, labels)


def test_a_bad_prior_is_named() -> None:
    with pytest.raises(ValueError, match="target_prior=0 is not a share"):
        fit_mcc_cut([1.0, 2.0], [0, 1], target_prior=0)

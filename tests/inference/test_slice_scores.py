import numpy as np
import pytest
from scipy.stats import false_discovery_control

from natix_roadwork.inference.permutation import permutation_p_values
from natix_roadwork.inference.slice_scores import MIN_ROWS, Slice, SliceScore, adjusted, score_slices


def rows_of(tp: int, fp: int, tn: int, fn: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and decisions with these counts."""
    labels = np.repeat([1, 0, 0, 1], [tp, fp, tn, fn])
    return labels, np.repeat([True, True, False, False], [tp, fp, tn, fn])


def two_slices(first: tuple[int, ...], second: tuple[int, ...], group_size: int = 1) -> list[SliceScore]:
    """Scores of two slices with these counts; neighbouring rows are a group."""
    labels, decisions = (np.concatenate(parts) for parts in zip(rows_of(*first), rows_of(*second), strict=True))
    inside = np.arange(len(labels)) < sum(first)
    groups = np.array([f"g{row // group_size}" for row in range(len(labels))])
    slices = [Slice("weather", "rainy", inside), Slice("weather", "sunny", ~inside)]
    return score_slices(labels, decisions, groups, slices)


def test_figures_of_a_slice_are_those_of_its_counts() -> None:
    score = two_slices((30, 10, 50, 10), (90, 0, 110, 0))[0]
    assert (score.num_rows, score.num_positives, score.num_groups) == (100, 40, 100)
    assert score.accuracy.value == pytest.approx(0.8)
    assert score.fnr.value == pytest.approx(0.25) and score.fpr.value == pytest.approx(1 / 6)
    assert score.mcc.value == pytest.approx((30 * 50 - 100) / np.sqrt(40 * 40 * 60 * 60))
    assert score.accuracy.low < 0.8 < score.accuracy.high


def test_error_rates_are_compared_label_by_label() -> None:
    # Roadwork is missed in half of the rows everywhere, nothing else is ever wrong: the first slice, which holds more
    # roadwork, has three times the errors of the second, and yet no excess.
    first, second = two_slices((30, 0, 20, 30), (10, 0, 60, 10))
    assert first.accuracy.value == pytest.approx(0.625) and second.accuracy.value == pytest.approx(0.875)
    assert first.excess.value == pytest.approx(0.0) and first.p_value > 0.5


def test_excess_is_the_mantel_haenszel_difference() -> None:
    score = two_slices((30, 10, 50, 10), (45, 4, 36, 15))[0]
    # Roadwork: 10/40 against 15/60, weight 24; None: 10/60 against 4/40, weight 24.
    expected = (24 * (10 / 40 - 15 / 60) + 24 * (10 / 60 - 4 / 40)) / 48
    assert score.excess.value == pytest.approx(expected)


def test_a_slice_with_one_label_has_no_mcc_and_no_fnr() -> None:
    score = two_slices((0, 5, 45, 0), (40, 5, 45, 10))[0]
    assert score.mcc.value is None and score.fnr.value is None
    assert score.fpr.value == pytest.approx(0.1) and score.p_value is not None


def test_a_slice_with_one_decision_has_no_mcc() -> None:
    assert two_slices((40, 10, 0, 0), (40, 5, 45, 10))[0].mcc.value is None


def test_where_label_and_slice_are_one_nothing_is_tested() -> None:
    first, second = two_slices((40, 0, 0, 10), (0, 5, 45, 0))
    assert first.excess.value is None and first.p_value is None and second.p_value is None


@pytest.mark.parametrize(("first", "group_size"), [((8, 1, 9, 1), 1), ((20, 5, 20, 5), 20)])
def test_few_rows_or_groups_are_not_scored(first: tuple[int, ...], group_size: int) -> None:
    score = two_slices(first, (100, 10, 100, 10), group_size)[0]
    assert score.too_few and score.p_value is None and score.accuracy.value is None and score.excess.value is None
    assert score.num_rows == sum(first) and (sum(first) < MIN_ROWS) == (group_size == 1)


def test_a_slice_with_more_errors_is_found_and_the_same_seed_says_the_same() -> None:
    first, second = two_slices((25, 25, 25, 25), (95, 5, 95, 5))
    assert first.p_value < 0.001 and second.p_value == first.p_value
    assert first.excess.low > 0 > second.excess.high
    assert two_slices((25, 25, 25, 25), (95, 5, 95, 5))[0] == first


def test_p_values_are_adjusted_as_scipy_does_it_and_none_is_left_out() -> None:
    found = adjusted([0.01, None, 0.04, 0.03])
    assert found[1] is None
    np.testing.assert_allclose([found[0], found[2], found[3]], false_discovery_control([0.01, 0.04, 0.03]))
    assert adjusted([]) == [] and adjusted([None]) == [None]


def test_groups_that_err_together_are_no_finding() -> None:
    """Groups of ten rows with one fate each: a test of single rows would call a third of such slices different."""
    rng = np.random.default_rng(0)
    found = []
    for trial in range(120):
        codes = np.repeat(np.arange(40), 10)
        wrong = np.repeat(rng.random(40) < 0.3, 10).astype(float)
        mask = np.repeat(np.arange(40) < 14, 10)
        found += permutation_p_values(wrong - wrong.mean(), codes, [mask], num_permutations=199, seed=trial)
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1


def test_permutation_of_few_groups_counts_all_of_their_orders() -> None:
    # The three groups of the slice are the worst of six; of the twenty ways to choose three, two are as extreme.
    values = np.array([3.0, 2.0, 2.0, -2.0, -2.0, -3.0])
    mask = np.arange(6) < 3
    found = permutation_p_values(values, np.arange(6), [mask], num_permutations=20_000)[0]
    assert found == pytest.approx(2 / 20, abs=0.01)


def test_a_group_on_both_sides_is_two_units() -> None:
    values, mask = np.array([1.0, -1.0, 0.5, -0.5]), np.array([True, False, True, False])
    whole = permutation_p_values(values, np.array([0, 1, 2, 3]), [mask])
    assert permutation_p_values(values, np.array([0, 0, 1, 1]), [mask]) == whole


def test_no_errors_at_all_are_no_difference() -> None:
    assert permutation_p_values(np.zeros(30), np.arange(30), [np.arange(30) < 10]) == [1.0]

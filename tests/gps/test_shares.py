import numpy as np
import pytest

from natix_roadwork.gps.shares import (
    PLAN_THRESHOLDS,
    STRETCH_THRESHOLDS,
    ShareThresholds,
    check_shares,
    effective_share,
    expected_shares,
)
from natix_roadwork.gps.weights import weigh_by_brackets


def spread(num_rows: int = 3000) -> np.ndarray:
    """Distances in kilometres with 5 % of the rows unknown."""
    draw = np.random.default_rng(0)
    km = draw.gamma(0.5, 300.0, num_rows)
    km[draw.random(num_rows) < 0.05] = np.nan
    return km


def test_expected_figures_are_those_of_repeated_rows() -> None:
    km, counts = np.array([10.0, 60.0, 150.0, 700.0, np.nan]), np.array([4, 3, 2, 1, 5])
    found, repeated = expected_shares(counts.astype(float), km), np.repeat(km, counts)
    known = repeated[:10]
    assert found.within == {50.0: 0.4, 100.0: 0.7, 200.0: 0.9, 500.0: 0.9}
    assert found.mean_km == pytest.approx(known.mean()) and found.missing_share == pytest.approx(5 / 15)
    assert found.median_km == np.quantile(known, 0.5, method="inverted_cdf") == 60.0


def test_draws_match_the_expectation_within_three_sigma() -> None:
    km = spread()
    weights = weigh_by_brackets(km)
    check = check_shares(weights, km, seed=7)
    assert check.num_draws == 32_000
    known = check.num_draws * (1 - check.drawn.missing_share)
    for edge, share in check.expected.within.items():
        assert abs(check.drawn.within[edge] - share) <= 3 * np.sqrt(share * (1 - share) / known)
    missing = check.expected.missing_share
    assert abs(check.drawn.missing_share - missing) <= 3 * np.sqrt(missing * (1 - missing) / check.num_draws)


def test_mean_of_the_draws_matches_within_three_sigma() -> None:
    km = spread()
    weights, known = weigh_by_brackets(km), ~np.isnan(km)
    check = check_shares(weights, km, seed=7)
    deviation = np.sqrt(np.average((km[known] - check.expected.mean_km) ** 2, weights=weights[known]))
    assert abs(check.drawn.mean_km - check.expected.mean_km) <= 3 * deviation / np.sqrt(30_000)


def test_check_names_each_threshold_that_is_missed() -> None:
    km = np.repeat([10.0, 80.0, 1000.0], [45, 20, 35])
    failures = check_shares(np.ones(100), km).failures
    assert failures == [
        "45.0% of the draws lie within 50 km, at least 50% must",
        "65.0% of the draws lie within 100 km, at least 70% must",
        "the mean distance is 370 km, it must be below 150 km",
    ]
    assert check_shares(np.ones(100), np.full(100, 10.0)).passed


def test_thresholds_are_the_planned_ones() -> None:
    assert PLAN_THRESHOLDS == ShareThresholds(0.5, 0.7, 150.0)
    assert STRETCH_THRESHOLDS == ShareThresholds(0.7, 0.85)


def test_effective_share_has_its_closed_form() -> None:
    assert effective_share(np.ones(7)) == pytest.approx(1.0)
    assert effective_share(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_seen_share_is_that_of_an_epoch_of_draws() -> None:
    check = check_shares(np.ones(500), np.full(500, 1.0))
    assert check.seen_share == pytest.approx(1 - (1 - 1 / 500) ** 500)


def test_nothing_to_draw_is_named() -> None:
    with pytest.raises(ValueError, match="none of the 2 rows has both"):
        expected_shares(np.ones(2), np.full(2, np.nan))
    with pytest.raises(ValueError, match="differ in length: 3 and 2"):
        expected_shares(np.ones(3), np.ones(2))

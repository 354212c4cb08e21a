import numpy as np
import pytest

from natix_roadwork.gps.shares import effective_share, expected_shares
from natix_roadwork.gps.weights import (
    InfeasibleShareError,
    bracket_weights,
    reachable_share,
    solve_by_distance,
    solve_weights,
    weigh_by_brackets,
)
from tests.gps.places import PITTSBURGH, around, missing, near_and_far


def distances(num_near: int, num_far: int, num_missing: int = 0) -> np.ndarray:
    return np.repeat([10.0, 900.0, np.nan], [num_near, num_far, num_missing])


def test_brackets_are_the_planned_ones_and_the_missing_get_the_mean() -> None:
    km = np.array([0.0, 49.9, 50.0, 199.0, 200.0, 499.0, 500.0, np.nan])
    weights = weigh_by_brackets(km)
    assert weights[:7].tolist() == [5.0, 5.0, 2.5, 2.5, 1.0, 1.0, 0.3]
    assert weights[7] == pytest.approx(weights[:7].mean())


def test_bracket_weights_follow_the_nearest_target_point() -> None:
    targets = np.concatenate([around(PITTSBURGH, 5), around((47.6, -122.3), 5), missing(1)])
    weights = bracket_weights(near_and_far(4, 3, 2), targets, far_weight=0.2)
    assert weights[:7].tolist() == [5.0] * 4 + [0.2] * 3
    np.testing.assert_allclose(weights[7:], weights[:7].mean())


def test_planned_weights_need_an_eighth_of_near_rows() -> None:
    """Near share for which 5.0 against 0.3 gives 70 % near draws: 12.3 %."""
    for near, reached in ((122, False), (124, True)):
        km = distances(near, 1000 - near)
        assert (expected_shares(weigh_by_brackets(km), km).within[50.0] >= 0.7) == reached


@pytest.mark.parametrize("num_missing", [0, 300])
@pytest.mark.parametrize("share", [0.4, 0.55, 0.65])
def test_solved_weights_reach_the_share_exactly(share: float, num_missing: int) -> None:
    train = near_and_far(300, 700, num_missing)
    weights = solve_weights(train, around(PITTSBURGH, 50), 50.0, share, 0.5)
    near = slice(0, 300)
    assert weights[near].sum() / weights[:1000].sum() == pytest.approx(share)
    assert weights.mean() == pytest.approx(1.0) and (weights[1000:] == 1.0).all()
    assert effective_share(weights) >= 0.5


@pytest.mark.parametrize("num_missing", [0, 250])
def test_largest_reachable_share_sits_on_the_floor(num_missing: int) -> None:
    km = distances(100, 900, num_missing)
    limit = reachable_share(0.1, 1000 / len(km), 0.5)
    weights = solve_by_distance(km, 50.0, limit - 1e-9, 0.5)
    assert effective_share(weights) == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(InfeasibleShareError, match=r"10\.0% of the rows .* are near") as error:
        solve_by_distance(km, 50.0, limit + 1e-6, 0.5)
    assert error.value.reachable_share == pytest.approx(limit) and error.value.near_share == 0.1


def test_reachable_share_is_the_closed_form() -> None:
    assert reachable_share(0.1, 1.0, 0.5) == pytest.approx(0.1 + 0.3)  # p + sqrt(p (1 - p))
    assert reachable_share(0.1, 1.0, 1.0) == 0.1 and reachable_share(0.0, 1.0, 0.5) == 0.0
    assert reachable_share(0.5, 1.0, 0.1) == 1.0


def test_enough_near_rows_need_no_weights() -> None:
    assert (solve_by_distance(distances(80, 20, 5), 50.0, 0.7, 0.5) == 1.0).all()


def test_no_near_row_is_infeasible() -> None:
    with pytest.raises(InfeasibleShareError, match=r"0\.0% of the rows.* to 0\.0% at most"):
        solve_by_distance(distances(0, 10), 50.0, 0.1, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brackets": ((200.0, 1.0), (50.0, 2.0))}, "edges must be positive kilometres in rising order"),
        ({"brackets": ()}, "edges must be"),
        ({"far_weight": 0.0}, "far_weight=0.0: weights must be positive"),
        ({"far_weight": float("nan")}, "far_weight=nan"),
    ],
)
def test_bad_brackets_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weigh_by_brackets(distances(1, 1), **settings)


@pytest.mark.parametrize(
    "numbers", [(0.0, 0.5, 0.5), (50.0, 1.0, 0.5), (50.0, 0.5, 0.0), (50.0, float("nan"), 0.5), (-1.0, 0.5, 0.5)]
)
def test_bad_numbers_are_named(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=f"within_km={numbers[0]}, target_share={numbers[1]}"):
        solve_weights(near_and_far(2, 2), around(PITTSBURGH, 3), *numbers)


def test_arrays_are_named() -> None:
    with pytest.raises(ValueError, match="target_gps holds no coordinates"):
        bracket_weights(near_and_far(2, 2), missing(3))
    with pytest.raises(ValueError, match="train_gps holds no coordinates"):
        solve_weights(missing(3), around(PITTSBURGH, 3), 50.0, 0.5, 0.5)
    with pytest.raises(ValueError, match="none of the 2 rows has coordinates"):
        solve_by_distance(np.full(2, np.nan), 50.0, 0.5, 0.5)

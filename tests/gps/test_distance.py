import numpy as np
import pytest
from geopy.distance import geodesic

from natix_roadwork.gps.distance import (
    EARTH_RADIUS_KM,
    SPHERE_ERROR,
    coordinates_of,
    distances_km,
    nearest_targets,
    unit_vectors,
)
from tests.gps.places import HOUSTON, PITTSBURGH, around, missing


def anywhere(num_rows: int, seed: int) -> np.ndarray:
    return coordinates_of(np.random.default_rng(seed).normal(size=(num_rows, 3)))


def check_against_geodesic(first: np.ndarray, second: np.ndarray) -> None:
    exact = np.array([geodesic(a, b).km for a, b in zip(first, second, strict=True)])
    np.testing.assert_allclose(distances_km(first, second), exact, rtol=SPHERE_ERROR, atol=1e-9)


def test_distances_are_those_of_the_ellipsoid_within_the_bar() -> None:
    check_against_geodesic(anywhere(400, 0), anywhere(400, 1))


def test_poles_and_antipodes_are_within_the_bar() -> None:
    poles = np.array([[90.0, 0.0], [-90.0, 0.0], [90.0, 0.0], [90.0, 10.0]])
    check_against_geodesic(poles, np.array([[0.0, 50.0], [-89.0, 120.0], [-90.0, 77.0], [90.0, -170.0]]))
    points = anywhere(100, 2)
    opposite = np.stack([-points[:, 0], (points[:, 1] + 360) % 360 - 180], axis=1)
    check_against_geodesic(points, opposite + np.random.default_rng(3).normal(0, 1e-3, opposite.shape).clip(-0.1, 0.1))


@pytest.mark.parametrize("metres", [0.01, 1.0, 100.0])
def test_near_points_keep_their_digits(metres: float) -> None:
    step = np.degrees(metres / 1000 / EARTH_RADIUS_KM)
    km = distances_km(np.array([PITTSBURGH]), np.array([[PITTSBURGH[0] + step, PITTSBURGH[1]]]))
    assert km[0] * 1000 == pytest.approx(metres, rel=1e-5)


def test_date_line_is_no_wall() -> None:
    assert distances_km(np.array([[0.5, 179.9]]), np.array([[0.5, -179.9]]))[0] == pytest.approx(22.24, abs=0.01)


def test_unit_vectors_lead_back() -> None:
    points = anywhere(50, 4)
    np.testing.assert_allclose(coordinates_of(unit_vectors(points)), points)


def test_nearest_target_is_that_of_all_pairs() -> None:
    train, target = anywhere(200, 5), np.concatenate([missing(2), anywhere(30, 6)])
    all_pairs = np.stack([distances_km(train, np.broadcast_to(point, train.shape)) for point in target])
    found = nearest_targets(train, target, chunk_rows=33, threads=2)
    assert np.array_equal(found.index, np.nanargmin(all_pairs, axis=0))
    np.testing.assert_allclose(found.km, np.nanmin(all_pairs, axis=0))


def test_rows_without_coordinates_have_no_nearest_target() -> None:
    found = nearest_targets(np.concatenate([missing(1), around(HOUSTON, 2)]), around(PITTSBURGH, 3))
    assert np.isnan(found.km[0]) and found.index[0] == -1 and (found.km[1:] > 1800).all()


def test_rows_near_an_edge_get_the_geodesic_up_to_a_cap() -> None:
    degrees = np.linspace(49.5, 50.5, 101) / 111.0
    train = np.stack([PITTSBURGH[0] + degrees, np.full(101, PITTSBURGH[1])], axis=1)
    target = np.array([PITTSBURGH])
    found = nearest_targets(train, target, edges_km=[50.0])
    exact = np.array([geodesic(row, PITTSBURGH).km for row in train])
    near = np.abs(nearest_targets(train, target).km - 50) <= 0.3
    assert found.num_exact == found.num_near_edge == near.sum() > 20
    np.testing.assert_allclose(found.km[near], exact[near], rtol=1e-12)
    assert np.array_equal(found.km < 50, exact < 50)
    capped = nearest_targets(train, target, edges_km=[50.0], max_exact=5)
    assert (capped.num_exact, capped.num_near_edge) == (5, near.sum()) and "5 of" in capped.summary()


def test_no_target_and_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="target_gps holds no coordinates among 3 rows"):
        nearest_targets(around(HOUSTON, 2), missing(3))
    with pytest.raises(ValueError, match="threads=0"):
        nearest_targets(around(HOUSTON, 2), around(HOUSTON, 2), threads=0)

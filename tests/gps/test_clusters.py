import numpy as np
import pytest

from natix_roadwork.gps.cities import CITIES, nearest_city, place_name
from natix_roadwork.gps.clusters import cluster_targets
from tests.gps.places import HOUSTON, PITTSBURGH, around, missing


def test_clusters_are_cities_with_their_names() -> None:
    targets = np.concatenate([around(PITTSBURGH, 60), missing(3), around(HOUSTON, 40), around((42.36, -71.06), 20)])
    clusters = cluster_targets(targets, 3)
    assert [cluster.size for cluster in clusters] == [60, 40, 20]
    assert [cluster.name.split(" (")[0] for cluster in clusters] == ["Pittsburgh", "Houston", "Boston"]
    assert [cluster.has_expected_size for cluster in clusters] == [True, True, False]
    assert clusters[1].members.tolist() == list(range(63, 103)) and 5 < clusters[1].radius_km < 40


def test_a_centre_between_cities_says_how_far_it_is() -> None:
    (cluster,) = cluster_targets(np.array([PITTSBURGH, (41.50, -81.69)]), 1)
    assert cluster.name in {"Pittsburgh (92 km)", "Cleveland (92 km)"}


def test_clusters_cross_the_date_line() -> None:
    targets = np.array([[10.0, 179.9], [10.0, -179.9], [10.0, 179.8], [40.0, -80.0]])
    largest = cluster_targets(targets, 2)[0]
    assert largest.size == 3 and abs(largest.center[1]) > 179.8 and largest.name == "10.0 N 179.9 E"


def test_fewer_points_than_clusters_are_points() -> None:
    assert [cluster.size for cluster in cluster_targets(np.array([PITTSBURGH] * 3 + [HOUSTON]), 5)] == [3, 1]


def test_equal_names_are_numbered() -> None:
    west, east = around((40.44, -80.3), 5, spread=0.01), around((40.44, -79.7), 5, spread=0.01)
    names = [cluster.name for cluster in cluster_targets(np.concatenate([west, east]), 2)]
    assert all(name.startswith("Pittsburgh (") for name in names) and len(set(names)) == 2


def test_places_are_named_by_the_nearest_city() -> None:
    assert nearest_city(np.array(CITIES["Denver"])) == ("Denver", 0.0)
    assert place_name(np.array([-33.9, 151.2])) == "33.9 S 151.2 E"


def test_bad_number_of_clusters_is_named() -> None:
    with pytest.raises(ValueError, match="num_clusters=0"):
        cluster_targets(around(PITTSBURGH, 3), 0)

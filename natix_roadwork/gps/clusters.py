"""Target regions for a reader: K-Means on the unit sphere, named by the nearest city.

In come target coordinates, out go clusters for the table and the map. Weights never depend on them: they go by the
nearest target point, since a centre may lie between cities where nothing is near. Next: `gps/report.py`.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from natix_roadwork.gps.cities import place_name
from natix_roadwork.gps.coordinates import check_gps, located
from natix_roadwork.gps.distance import coordinates_of, distances_km, unit_vectors


NUM_CLUSTERS = 5
CLUSTER_RANGE = (3, 7)  # as planned
EXPECTED_SIZES = (30, 70)  # targets the plan expects in a region


@dataclass(frozen=True)
class TargetCluster:
    """One region of targets.

    Attributes:
        name: Nearest city with its distance from the centre, unique among the clusters.
        center: Latitude and longitude of the centre in degrees.
        size: Targets in it.
        radius_km: Distance from the centre within which nine tenths of its targets lie.
        members: `(size,)` numbers of its targets.
    """

    name: str
    center: tuple[float, float]
    size: int
    radius_km: float
    members: NDArray[np.intp]

    @property
    def has_expected_size(self) -> bool:
        """Whether the size lies in the plan's range."""
        return EXPECTED_SIZES[0] <= self.size <= EXPECTED_SIZES[1]


def cluster_targets(target_gps: ArrayLike, num_clusters: int = NUM_CLUSTERS, seed: int = 0) -> list[TargetCluster]:
    """Group targets into regions by K-Means on 3-D unit vectors, the largest first.

    Args:
        target_gps: `(M, 2)` degrees (latitude, longitude), NaN = missing.
        num_clusters: Regions wanted; with fewer distinct points, one for each point.
        seed: Seed of the starts.

    Raises:
        ValueError: If coordinates cannot be used, or `num_clusters` is not positive.
    """
    if num_clusters < 1:
        raise ValueError(f"num_clusters={num_clusters} must be positive")
    gps = check_gps(target_gps, "target_gps")
    rows = np.flatnonzero(located(gps))
    points = unit_vectors(gps[rows])
    count = min(num_clusters, len(np.unique(points, axis=0)))
    # Threads gain nothing on so few points, and those of OpenMP crash in a process forked from one that used them.
    with threadpool_limits(limits=1):
        found = KMeans(count, n_init=10, random_state=seed).fit(points)
    centers = coordinates_of(found.cluster_centers_)
    order = np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable")
    names = _unique([place_name(centers[label]) for label in order])
    clusters = []
    for name, label in zip(names, order, strict=True):
        members = rows[found.labels_ == label]
        km = distances_km(np.broadcast_to(centers[label], (len(members), 2)), gps[members])
        center = (float(centers[label, 0]), float(centers[label, 1]))
        clusters.append(TargetCluster(name, center, len(members), float(np.quantile(km, 0.9)), members))
    return clusters


def _unique(names: list[str]) -> list[str]:
    """Number the names that occur more than once."""
    total, seen = Counter(names), Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name} #{seen[name]}" if total[name] > 1 else name)
    return unique

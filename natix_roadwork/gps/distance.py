"""Distances on the Earth, vectorised, and the nearest target of each row.

In come checked coordinates, out go kilometres. Points become unit vectors; distances follow from chords, which stay
exact for near points where the arc cosine does not. Next: `gps/weights.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from geopy.distance import geodesic
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from natix_roadwork.gps.coordinates import located


EARTH_RADIUS_KM = 6371.0088  # mean radius (2a + b) / 3 of the WGS 84 ellipsoid
# Largest relative difference between a distance on this sphere and the geodesic of the ellipsoid.
SPHERE_ERROR = 0.006
CHUNK_ROWS = 500_000
MAX_EXACT = 2_000
EXACT_CANDIDATES = 8


@dataclass(frozen=True)
class NearestTargets:
    """The nearest target of each of N rows.

    Attributes:
        km: `(N,)` distance in kilometres, NaN where the row has no coordinates.
        index: `(N,)` number of that target, -1 where the row has no coordinates.
        num_near_edge: Rows so near an edge that the sphere cannot tell on which side they lie.
        num_exact: Those of them whose distance is the geodesic.
    """

    km: NDArray[np.float64]
    index: NDArray[np.int32]
    num_near_edge: int = 0
    num_exact: int = 0

    def summary(self) -> str:
        """Say how many distances were computed on the ellipsoid."""
        if not self.num_near_edge:
            return "no row lies near a bracket's edge; all distances are those on the sphere"
        left = self.num_near_edge - self.num_exact
        rest = f"; {left} more stay on the sphere, within {SPHERE_ERROR:.1%}" if left else ""
        return f"{self.num_exact} of {self.num_near_edge} rows near a bracket's edge have exact geodesics{rest}"


def unit_vectors(gps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn coordinates `(N, 2)` in degrees into points `(N, 3)` on the unit sphere."""
    latitude, longitude = np.radians(gps[:, 0]), np.radians(gps[:, 1])
    vectors = np.empty((len(gps), 3))
    np.sin(latitude, out=vectors[:, 2])
    np.cos(latitude, out=latitude)
    np.multiply(latitude, np.cos(longitude), out=vectors[:, 0])
    np.multiply(latitude, np.sin(longitude), out=vectors[:, 1])
    return vectors


def coordinates_of(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn directions `(N, 3)` of any length into coordinates `(N, 2)` in degrees."""
    x, y, z = vectors.T
    return np.degrees(np.stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)], axis=1))


def chord_km(chord: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn chords of the unit sphere into kilometres along it: d = 2 R asin(c / 2)."""
    return 2.0 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chord / 2.0, 1.0))


def distances_km(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances in kilometres between paired coordinates, both `(N, 2)` in degrees; NaN where either is missing."""
    return chord_km(np.linalg.norm(unit_vectors(first) - unit_vectors(second), axis=1))


def nearest_targets(
    train_gps: NDArray[np.float64],
    target_gps: NDArray[np.float64],
    edges_km: Sequence[float] = (),
    max_exact: int = MAX_EXACT,
    threads: int = 1,
    chunk_rows: int = CHUNK_ROWS,
) -> NearestTargets:
    """Find the nearest target of each row with a k-d tree over unit vectors.

    A row within 0.6 % of an edge gets the geodesic instead (to the nearest of the at most eight targets that can be
    the nearest), those nearest to an edge first.

    Args:
        train_gps: `(N, 2)` degrees, NaN = missing.
        target_gps: `(M, 2)` degrees, NaN = missing.
        edges_km: Distances in kilometres whose sides matter.
        max_exact: Most rows that get the geodesic, some 0.2 ms for each candidate.
        threads: Threads of the search; -1 = all cores.
        chunk_rows: Rows searched at a time, 24 bytes each besides the result.

    Raises:
        ValueError: If no target has coordinates, or a number is out of range.
    """
    if max_exact < 0 or chunk_rows < 1 or threads == 0:
        raise ValueError(
            f"max_exact={max_exact}, chunk_rows={chunk_rows}, threads={threads}: max_exact must be 0 or more, "
            "chunk_rows 1 or more, threads positive or -1"
        )
    usable = np.flatnonzero(located(target_gps))
    if not len(usable):
        raise ValueError(f"target_gps holds no coordinates among {len(target_gps)} rows")
    tree = cKDTree(unit_vectors(target_gps[usable]))
    km = np.full(len(train_gps), np.nan)
    index = np.full(len(train_gps), -1, dtype=np.int32)
    for start in range(0, len(train_gps), chunk_rows):
        part = train_gps[start : start + chunk_rows]
        rows = np.flatnonzero(located(part))
        chord, found = tree.query(unit_vectors(part[rows]), workers=threads)
        km[start + rows], index[start + rows] = chord_km(chord), usable[found]
    near = _near_edges(km, edges_km)
    for row in near[:max_exact]:
        km[row], index[row] = _exact(train_gps[row], target_gps, usable, tree)
    return NearestTargets(km, index, len(near), min(len(near), max_exact))


def _near_edges(km: NDArray[np.float64], edges_km: Sequence[float]) -> NDArray[np.intp]:
    """Rows whose side of an edge the sphere cannot tell, the most doubtful first."""
    doubt = np.full(len(km), np.inf)
    for edge in edges_km:
        np.fmin(doubt, np.abs(km - edge) / edge, out=doubt)
    near = np.flatnonzero(doubt <= SPHERE_ERROR)
    return near[np.argsort(doubt[near], kind="stable")]


def _exact(
    point: NDArray[np.float64], target_gps: NDArray[np.float64], usable: NDArray[np.intp], tree: cKDTree
) -> tuple[float, int]:
    """Geodesic distance in kilometres to the nearest target, and its number."""
    count = min(EXACT_CANDIDATES, len(usable))
    chords, found = tree.query(unit_vectors(point[None])[0], k=list(range(1, count + 1)))
    candidates = usable[found[chords <= chords[0] * (1 + SPHERE_ERROR) / (1 - SPHERE_ERROR)]]
    return min((geodesic(point, target_gps[target]).km, int(target)) for target in candidates)

"""Groups: rows that must stay on one side of every split.

In come ids, coordinates and pairs of near-duplicates; out goes one group name a row. Rows are joined by every link at
once, so that a chain of links ends in one group. `data/folds.py` splits by these names.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from natix_roadwork.gps.distance import EARTH_RADIUS_KM, unit_vectors


JOIN_KM = 0.1
PAIRS_A_PASS = 2_000_000

Pairs = NDArray[np.int64]


def group_names(
    row_ids: Sequence[str],
    video_ids: Sequence[str],
    sequence_ids: Sequence[str],
    cities: Sequence[str],
    given: Sequence[str],
    gps: NDArray[np.float64] | None = None,
    duplicates: Pairs | None = None,
    within_km: float = JOIN_KM,
) -> list[str]:
    """Name each row's group: a connected component of rows that share an id, a place or a picture.

    Rows are linked by the group given for them; where none is given by their video, else by their sequence in its
    city (sequence numbers count anew in each video). Rows within `within_km` and near-duplicates are linked in any case.
    A component of several such names bears the first of them: given ones before videos before sequences.

    Args:
        row_ids: `(N,)` unique ids.
        video_ids: `(N,)`, empty = unknown.
        sequence_ids: `(N,)`, empty = unknown.
        cities: `(N,)`, empty = unknown.
        given: `(N,)` the user's own group names, empty = none.
        gps: `(N, 2)` degrees (latitude, longitude), NaN = missing, which links nothing; None = no coordinates.
        duplicates: `(P, 2)` row numbers of near-duplicates.
        within_km: Largest distance of two rows of one place.
    """

    def name(row_id: str, video: str, sequence: str, city: str, group: str) -> tuple[int, str]:
        """Return how strongly a row is named, 0 first, and its name before anything is joined."""
        if group:
            return 0, group
        if video:
            return 1, f"video:{video}"
        return (2, f"sequence:{city}:{sequence}") if sequence else (3, f"row:{row_id}")

    names = [name(*row) for row in zip(row_ids, video_ids, sequence_ids, cities, given, strict=True)]
    links = [_same_value([text for _, text in names])]
    if gps is not None:
        links.append(near_pairs(np.asarray(gps, dtype=np.float64), within_km))
    if duplicates is not None:
        links.append(np.asarray(duplicates, dtype=np.int64).reshape(-1, 2))
    components = components_of(len(names), links)
    first: dict[int, tuple[int, str]] = {}
    for component, candidate in zip(components.tolist(), names, strict=True):
        first[component] = min(first.get(component, candidate), candidate)
    return [first[component][1] for component in components.tolist()]


def pairs_of_file(path: str | Path, row_ids: Sequence[str]) -> Pairs:
    """Link the rows that share a group in a file, such as the `groups.csv` of an audit, `(P, 2)` row numbers.

    Args:
        path: CSV file with the columns `row_id` and `group`.
        row_ids: `(N,)` ids of the rows; those the file does not have are linked to nothing.

    Raises:
        ValueError: If the file is absent, lacks a column, or has none of the rows.
    """
    if not Path(path).is_file():
        raise ValueError(f"groups_file {str(path)!r} does not exist; recipes/audit.py writes one, groups.csv")
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = {"row_id", "group"} - set(reader.fieldnames or ())
        if absent:
            raise ValueError(f"groups_file {str(path)!r} has no column {sorted(absent)}, only {reader.fieldnames}")
        group_of = {line["row_id"]: line["group"] for line in reader}
    if not any(row_id in group_of for row_id in row_ids):
        raise ValueError(f"groups_file {str(path)!r} has none of the {len(row_ids)} rows, such as {row_ids[0]!r}")
    return _same_value([f"group:{group_of[row]}" if row in group_of else f"row:{row}" for row in row_ids])


def components_of(num_rows: int, links: Sequence[Pairs]) -> NDArray[np.int64]:
    """Number the connected components of rows under links, `(N,)`.

    Args:
        num_rows: N.
        links: Arrays `(P, 2)` of row numbers.
    """
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *links])
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(num_rows, num_rows))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def near_pairs(gps: NDArray[np.float64], within_km: float = JOIN_KM) -> Pairs:
    """Link rows within a distance, `(P, 2)` row numbers: enough links to join them, not every pair.

    Distances are chords between unit vectors (2 R sin(d / 2R) = chord), exact for near points, at the poles and across
    longitude 180. Memory stays bounded where many rows share a place.

    Args:
        gps: `(N, 2)` degrees (latitude, longitude), NaN = missing.
        within_km: Largest distance in km.

    Raises:
        ValueError: If the distance is not above 0, or a coordinate is out of range.
    """
    if not 0.0 < within_km < EARTH_RADIUS_KM:
        raise ValueError(f"within_km={within_km} must lie between 0 and {EARTH_RADIUS_KM}")
    rows = np.flatnonzero(np.isfinite(gps).all(axis=1))
    wrong = rows[(np.abs(gps[rows]) > (90.0, 180.0)).any(axis=1)]
    if len(wrong):
        raise ValueError(f"gps[{wrong[0]}]={gps[wrong[0]].tolist()} is out of range; (latitude, longitude) in degrees")
    if not len(rows):
        return np.empty((0, 2), dtype=np.int64)
    places, of_row = np.unique(gps[rows], axis=0, return_inverse=True)
    first = np.full(len(places), -1, dtype=np.int64)
    first[of_row[::-1]] = rows[::-1]  # the first row of each place
    links = [np.column_stack([rows, first[of_row]])]
    chord = 2.0 * np.sin(within_km / (2.0 * EARTH_RADIUS_KM))
    return np.concatenate(links + [first[pairs] for pairs in _tree_links(unit_vectors(places), chord)])


def _tree_links(vectors: NDArray[np.float64], radius: float) -> Iterator[Pairs]:
    """Yield links between vectors `(N, 3)` within a radius, a bounded number at a time, reduced to spanning ones."""
    tree = KDTree(vectors)
    counts = tree.query_ball_point(vectors, radius, return_length=True)
    passes = np.cumsum(counts) // PAIRS_A_PASS
    for start, stop in _runs(passes):
        near = tree.query_ball_point(vectors[start:stop], radius)
        right = np.concatenate([np.asarray(found, dtype=np.int64) for found in near])
        left = np.repeat(np.arange(start, stop), [len(found) for found in near])
        yield _spanning(len(vectors), np.column_stack([left, right]))


def _runs(values: NDArray) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the runs of equal values."""
    edges = np.flatnonzero(np.diff(values, prepend=values[0] - 1, append=values[-1] + 1))
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _spanning(num_rows: int, pairs: Pairs) -> Pairs:
    """Replace links by at most one a row that join the same rows."""
    return _same_value(components_of(num_rows, [pairs]))


def _same_value(values: Sequence[object] | NDArray) -> Pairs:
    """Link each row to the first row with the same value, itself left out."""
    _, first, of_row = np.unique(np.asarray(values), return_index=True, return_inverse=True)
    links = np.column_stack([np.arange(len(of_row)), first[of_row]]).astype(np.int64)
    return links[links[:, 0] != links[:, 1]]

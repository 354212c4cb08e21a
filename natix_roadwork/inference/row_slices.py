"""Which slices a row belongs to: weather, daytime, scene, city, GPS region, photo size, brightness.

In come rows of the schema and their brightness; out go masks for `slice_scores.py`. Tags are read with the model's
vocabularies, so that `Dark` and `night` are one slice; a row with two tags is in both.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.tags import tag_ids
from natix_roadwork.gps.clusters import NUM_CLUSTERS, cluster_targets
from natix_roadwork.gps.coordinates import located
from natix_roadwork.inference.slice_scores import Slice
from natix_roadwork.model.configuration_roadwork import DEFAULT_VOCABULARIES
from natix_roadwork.training.gps_inputs import gps_of


NOT_GIVEN = "not given"
DIMENSIONS = ("weather", "daytime", "scene", "city", "GPS region", "photo size", "brightness")
# Upper ends in millions of pixels, and in mean grey levels of 255; photos are ordered from small to large.
SIZES = ((0.5, "below 0.5 MP"), (1.0, "0.5 to 1 MP"), (2.0, "1 to 2 MP"), (4.0, "2 to 4 MP"), (8.0, "4 to 8 MP"))
LARGEST = "8 MP and more"
DARK, DIM = "dark, as at night (below 65)", "dim (65 to 90)"
LEVELS = ((65.0, DARK), (90.0, DIM), (150.0, "medium (90 to 150)"))
BRIGHTEST = "bright (150 and more)"
MOST_VALUES = 15  # of a dimension; rows of the others share one slice

Values = list[list[str]]


def row_slices(
    rows: Dataset, brightness: NDArray[np.float64], num_regions: int = NUM_CLUSTERS, seed: int = 0
) -> tuple[list[Slice], list[str]]:
    """Put rows into slices.

    Args:
        rows: N rows of `load_rows`.
        brightness: `(N,)` mean grey levels.
        num_regions: GPS regions, found by K-Means on these rows.
        seed: Seed of the regions.

    Returns:
        The slices, by dimension in the order of `DIMENSIONS`, and the dimensions that divide nothing: all rows have one
        value or none.
    """
    values: dict[str, Values] = {field: _tags(field, rows[field][:]) for field in ("weather", "daytime", "scene")}
    values["city"] = [[city or NOT_GIVEN] for city in rows["city"][:]]
    values["GPS region"] = _regions(gps_of(rows), num_regions, seed)
    pixels = np.asarray(rows["width"][:], dtype=np.float64) * np.asarray(rows["height"][:], dtype=np.float64) / 1e6
    values["photo size"] = _binned(pixels, SIZES, LARGEST)
    values["brightness"] = _binned(brightness, LEVELS, BRIGHTEST)
    ordered = {
        "photo size": [*(name for _, name in SIZES), LARGEST],
        "brightness": [*(name for _, name in LEVELS), BRIGHTEST],
    }
    slices, undivided = [], []
    for dimension in DIMENSIONS:
        found = _slices(dimension, values[dimension], ordered.get(dimension))
        slices += found if len(found) > 1 else []
        undivided += [dimension] if len(found) < 2 else []
    return slices, undivided


def _tags(field: str, tags: Sequence[Sequence[str]]) -> Values:
    vocabulary = DEFAULT_VOCABULARIES[field]
    rows: Values = []
    for row in tags:
        words = []
        for tag in row:
            found = tag_ids(field, [tag], vocabulary)
            if found:  # a tag no vocabulary has keeps its own name
                words.append(vocabulary[found[0]] if found[0] < len(vocabulary) else tag)
        rows.append(list(dict.fromkeys(words)) or [NOT_GIVEN])
    return rows


def _regions(gps: NDArray[np.float64], num_regions: int, seed: int) -> Values:
    names = [NOT_GIVEN] * len(gps)
    if located(gps).any():
        for cluster in cluster_targets(gps, num_regions, seed):
            for row in cluster.members.tolist():
                names[row] = cluster.name
    return [[name] for name in names]


def _binned(values: NDArray[np.float64], bins: Sequence[tuple[float, str]], last: str) -> Values:
    names = [*(name for _, name in bins), last]
    places = np.searchsorted([end for end, _ in bins], values, side="right")
    return [[names[place]] for place in places]


def _slices(dimension: str, values: Values, order: Sequence[str] | None) -> list[Slice]:
    """One slice a value, in the given order or the largest first; what goes beyond `MOST_VALUES` becomes one slice."""
    counts = Counter(value for row in values for value in row)
    names = (
        [name for name in order if name in counts] if order else sorted(counts, key=lambda name: (-counts[name], name))
    )
    if NOT_GIVEN in counts:
        names = [*(name for name in names if name != NOT_GIVEN), NOT_GIVEN]
    kept = names if len(names) <= MOST_VALUES + 1 else names[:MOST_VALUES]
    found = [Slice(dimension, name, np.array([name in row for row in values])) for name in kept]
    others = set(names) - set(kept)
    if others:
        mask = np.array([not others.isdisjoint(row) for row in values])
        found.append(Slice(dimension, f"{len(others)} other values", mask))
    return found

import math

import pytest

from natix_roadwork.data.gps_text import SWAPPED_REASON
from natix_roadwork.data.natix_columns import (
    columns_in,
    parse_id,
    parse_label,
    parse_text,
    parse_values,
)


@pytest.mark.parametrize(
    ("value", "label"), [(0, 0), (1, 1), (1.0, 1), ("0", 0), ("1", 1), ("None", 0), ("roadwork", 1), (" Roadwork ", 1)]
)
def test_label_forms(value: object, label: int) -> None:
    assert parse_label(value) == label


@pytest.mark.parametrize("value", [2, -1, 0.5, "yes", "", None, math.nan, [1]])
def test_wrong_labels_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="label"):
        parse_label(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("No Description", ""), ("null", ""), ("None", ""), (None, ""), (math.nan, ""), (" Cones. ", "Cones.")],
)
def test_text_without_content_is_empty(value: object, text: str) -> None:
    assert parse_text(value) == text


@pytest.mark.parametrize(
    ("value", "name"), [(7, "7"), (7.0, "7"), ("a1", "a1"), (-1, ""), (None, ""), ("nan", ""), (math.nan, "")]
)
def test_ids_become_strings(value: object, name: str) -> None:
    assert parse_id(value) == name


@pytest.mark.parametrize("value", [1.5, True, math.inf, [1]])
def test_wrong_ids_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="the id is neither"):
        parse_id(value)


def test_missing_label_column_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no column 'label' \(nearest: 'labels'\)"):
        columns_in(["image", "labels", "gps"])


def test_natix_column_wins_over_the_short_name() -> None:
    assert columns_in(["label", "weather", "scene_level_tags.weather"])["weather"] == "scene_level_tags.weather"


def test_latitude_with_longitude_goes_before_gps() -> None:
    assert columns_in(["label", "gps", "latitude", "longitude"]).keys() == {"label", "latitude", "longitude"}
    assert columns_in(["label", "gps", "latitude"]).keys() == {"label", "gps"}


def test_wrong_value_becomes_missing_and_is_named() -> None:
    columns = {"label": "label", "gps": "gps", "weather": "scene_level_tags.weather"}
    parsed, problems = parse_values("train:3", {"label": 1, "gps": "[95, 100]", "weather": "['a'"}, columns)
    assert parsed["label"] == 1
    assert math.isnan(parsed["latitude"])
    assert parsed["weather"] == []
    assert [(p.row_id, p.column, p.value, p.dropped) for p in problems] == [
        ("train:3", "gps", "[95, 100]", False),
        ("train:3", "scene_level_tags.weather", "['a'", False),
    ]


def test_wrong_label_drops_the_row() -> None:
    parsed, problems = parse_values("train:3", {"label": 7}, {"label": "label"})
    assert parsed["label"] == -1
    assert [(problem.column, problem.value, problem.dropped) for problem in problems] == [("label", "7", True)]


def test_latitude_and_longitude_columns() -> None:
    columns = {"label": "label", "latitude": "latitude", "longitude": "longitude"}
    parsed, problems = parse_values("a", {"label": 0, "latitude": 39.5, "longitude": -86.25}, columns)
    assert (parsed["latitude"], parsed["longitude"]) == (39.5, -86.25)
    assert not problems


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ({"gps": "gps"}, {"gps": "[-118.2, 34.0]"}),
        ({"latitude": "lat", "longitude": "lon"}, {"latitude": -118.2, "longitude": 34.0}),
    ],
)
def test_coordinates_put_in_order_are_kept_and_named(columns: dict[str, str], values: dict[str, object]) -> None:
    parsed, problems = parse_values("a", {"label": 0, **values}, {"label": "label", **columns})
    assert (parsed["latitude"], parsed["longitude"]) == (34.0, -118.2)
    assert [(problem.reason, problem.dropped) for problem in problems] == [(SWAPPED_REASON, False)]

import math

import pytest

from natix_roadwork.data.natix_columns import (
    columns_in,
    parse_gps,
    parse_id,
    parse_label,
    parse_tags,
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


@pytest.mark.parametrize("value", ["[39.5, -86.25]", " [39.5,-86.25] ", "(39.5, -86.25)", [39.5, -86.25]])
def test_gps_is_latitude_first(value: object) -> None:
    assert parse_gps(value) == (39.5, -86.25)


@pytest.mark.parametrize("value", [None, "", math.nan, "[None, None]", [math.nan, math.nan]])
def test_missing_gps_is_nan(value: object) -> None:
    assert all(math.isnan(degrees) for degrees in parse_gps(value))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[91.0, 0.0]", "latitude"),
        ("[-186.2, 39.7]", "latitude"),
        ("[39.7, 181]", "longitude"),
        ("[-86.2]", "two numbers"),
        ("[1, 2, 3]", "two numbers"),
        ("north", "not '"),
        ("[39.7, None]", "longitude"),
        ("__import__('os')", "not '"),
        (7, "two numbers"),
        ("['a', 'b']", "latitude"),
        ("{[]: 1}", "not '"),
        ("[1e999, 0]", "latitude"),
        ([10**400, 0], "latitude"),
    ],
)
def test_wrong_gps_says_why(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_gps(value)


def test_swapped_gps_gets_a_hint() -> None:
    with pytest.raises(ValueError, match="latitude comes first"):
        parse_gps("[-118.2, 34.0]")


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("['Sunny']", ["Sunny"]),
        ("['Partially Blocked', 'Lane Shift']", ["Partially Blocked", "Lane Shift"]),
        ("Light", ["Light"]),
        ("[]", []),
        (None, []),
        ("  ", []),
        (["Sunny", None], ["Sunny"]),
    ],
)
def test_tag_forms(value: object, tags: list[str]) -> None:
    assert parse_tags(value) == tags


@pytest.mark.parametrize("value", ["['Sunny'", "[1, 2]", 3, "{'a': 1}"])
def test_wrong_tags_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="tags"):
        parse_tags(value)


@pytest.mark.parametrize(
    ("value", "text"), [("No Description", ""), (None, ""), (math.nan, ""), (" Cones. ", "Cones.")]
)
def test_text_without_content_is_empty(value: object, text: str) -> None:
    assert parse_text(value) == text


@pytest.mark.parametrize(("value", "name"), [(7, "7"), (7.0, "7"), ("a1", "a1"), (-1, ""), (None, ""), (math.nan, "")])
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
    parsed, problems = parse_values("train:3", {"label": 1, "gps": "[95, 0]", "weather": "['a'"}, columns)
    assert parsed["label"] == 1
    assert math.isnan(parsed["latitude"])
    assert parsed["weather"] == []
    assert [(p.row_id, p.column, p.value, p.dropped) for p in problems] == [
        ("train:3", "gps", "[95, 0]", False),
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

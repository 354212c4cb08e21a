"""NATIX's own columns and how each value is read into the row schema.

In come raw values of one row (strings that hold lists, literal dots in column names); out go the schema's values.
A parser raises `ValueError` with the reason alone; `data/dataset.py` adds the row and the column.
"""

import ast
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from natix_roadwork.data.row_report import RowProblem, row_problem


NATIX_COLUMNS = (
    "image",
    "id",
    "width",
    "height",
    "license",
    "date_captured",
    "flickr_url",
    "coco_url",
    "gps",
    "city_name",
    "scene_description",
    "video_info.frame_id",
    "video_info.seq_id",
    "video_info.vid_id",
    "scene_level_tags.daytime",
    "scene_level_tags.scene_environment",
    "scene_level_tags.travel_alteration",
    "scene_level_tags.weather",
    "label",
)

# Schema field -> the column names that may hold it, the first that is there wins.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "label": ("label",),
    "gps": ("gps",),
    "latitude": ("latitude",),
    "longitude": ("longitude",),
    "weather": ("scene_level_tags.weather", "weather"),
    "daytime": ("scene_level_tags.daytime", "daytime"),
    "scene": ("scene_level_tags.scene_environment", "scene"),
    "travel_alteration": ("scene_level_tags.travel_alteration", "travel_alteration"),
    "text": ("scene_description", "text"),
    "city": ("city_name", "city"),
    "width": ("width",),
    "height": ("height",),
    "video_id": ("video_info.vid_id", "video_id"),
    "sequence_id": ("video_info.seq_id", "sequence_id"),
    "mask": ("mask",),
    "group": ("group",),
}
# NATIX columns that carry nothing the schema needs; they are not reported as unused.
BOOKKEEPING_COLUMNS = ("id", "license", "date_captured", "flickr_url", "coco_url", "video_info.frame_id", "file_name")
LABEL_NAMES = ("None", "Roadwork")
# Schema fields that NATIX's own columns fill.
NATIX_FIELDS = tuple(field for field, names in COLUMN_NAMES.items() if names[0] in NATIX_COLUMNS)
TAG_FIELDS = ("weather", "daytime", "scene", "travel_alteration")
EMPTY_TEXTS = ("no description",)
# What `ast.literal_eval` raises for text that is no literal.
LITERAL_ERRORS = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)


def is_missing(value: object) -> bool:
    """Return whether a raw value means "not given": None, NaN, or a blank string."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def parse_label(value: object) -> int:
    """Read a label: 0 or 1 as a number or its text, or a class name.

    Raises:
        ValueError: For anything else, a missing label included.
    """
    if is_missing(value):
        raise ValueError("the label is missing; write 0 (None) or 1 (Roadwork)")
    if isinstance(value, str):
        text = value.strip().casefold()
        names = [name.casefold() for name in LABEL_NAMES]
        if text in names:
            return names.index(text)
        if text in ("0", "1"):
            return int(text)
    elif isinstance(value, (int, float, np.integer, np.floating)) and value in (0, 1):
        return int(value)
    raise ValueError("the label is none of 0, 1, 'None', 'Roadwork'")


def parse_gps(value: object) -> tuple[float, float]:
    """Read coordinates written as `"[lat, lon]"`, a list or a tuple.

    Returns:
        Latitude and longitude in degrees, both NaN where the value is missing.

    Raises:
        ValueError: If the value is not two finite numbers in range, latitude first.
    """
    if is_missing(value):
        return math.nan, math.nan
    pair = value
    if isinstance(value, str):
        try:
            pair = ast.literal_eval(value.strip())
        except LITERAL_ERRORS:
            raise ValueError("the coordinates are not '[latitude, longitude]'") from None
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError("the coordinates are not two numbers, [latitude, longitude]")
    if all(is_missing(part) for part in pair):
        return math.nan, math.nan
    return _check_degrees(pair[0], 90.0, "latitude"), _check_degrees(pair[1], 180.0, "longitude")


def _check_degrees(value: object, limit: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError(f"the {name} is not a number")
    if abs(value) > limit:
        swapped = "; latitude comes first" if name == "latitude" and abs(value) <= 180 else ""
        raise ValueError(f"the {name} lies outside -{limit:g} to {limit:g} degrees{swapped}")
    return float(value)


def parse_tags(value: object) -> list[str]:
    """Read scene-level tags: one bare tag, a Python-list string such as `"['Sunny']"`, or a list.

    Raises:
        ValueError: If a value that looks like a list cannot be read, or holds anything but strings.
    """
    if is_missing(value):
        return []
    tags = value
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(("[", "(", "{")):
            return [text]
        try:
            tags = ast.literal_eval(text)
        except LITERAL_ERRORS:
            raise ValueError("the tags are not a Python list of strings") from None
    if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) or tag is None for tag in tags):
        raise ValueError("the tags are not a list of strings")
    return [tag.strip() for tag in tags if not is_missing(tag)]


def parse_text(value: object) -> str:
    """Read a scene description; "No Description" and every missing value become the empty string."""
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise ValueError("the value is not a string")
    text = value.strip()
    return "" if text.casefold() in EMPTY_TEXTS else text


def parse_id(value: object) -> str:
    """Read a video, sequence or group id as a string; missing and negative numbers become the empty string.

    Raises:
        ValueError: If the value is neither a string nor a whole number.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        raise ValueError("the id is neither a string nor a whole number")
    return "" if value < 0 else str(int(value))


PARSERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    **{name: (parse_tags, []) for name in TAG_FIELDS},
    "text": (parse_text, ""),
    "city": (parse_text, ""),
    "video_id": (parse_id, ""),
    "sequence_id": (parse_id, ""),
    "group": (parse_id, ""),
    "mask": (parse_text, ""),
}


def columns_in(available: Iterable[str]) -> dict[str, str]:
    """Map each schema field to the column that holds it; `latitude` with `longitude` goes before `gps`.

    Raises:
        ValueError: If there is no label column; the nearest name is given.
    """
    there = set(available)
    columns = {field: next((n for n in names if n in there), "") for field, names in COLUMN_NAMES.items()}
    require_column("label", there)
    unused = ("gps",) if columns["latitude"] and columns["longitude"] else ("latitude", "longitude")
    return {field: name for field, name in columns.items() if name and field not in unused}


def require_column(name: str, available: Iterable[str]) -> None:
    """Check that a column is there.

    Raises:
        ValueError: Naming the columns there are and the nearest of them.
    """
    there = sorted(available)
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
        hint = f" (nearest: {near[0]!r})" if near else ""
        raise ValueError(f"there is no column {name!r}{hint}; the columns are {there}")


def parse_values(
    row_id: str, values: Mapping[str, Any], columns: Mapping[str, str]
) -> tuple[dict[str, Any], list[RowProblem]]:
    """Read the raw values of one row, the photo aside.

    Args:
        row_id: Named in each problem.
        values: Raw values by schema field.
        columns: Source column of each schema field, named in each problem.

    Returns:
        Schema values, and one problem for each wrong value. A wrong label drops the row (label -1); any other wrong
        value becomes missing.
    """
    problems: list[RowProblem] = []

    def read(field: str, parser: Callable[[Any], Any], missing: object, *, dropped: bool = False) -> Any:  # noqa: ANN401
        try:
            return parser(values.get(field))
        except (ValueError, OverflowError) as error:
            column = columns.get(field, field)
            problems.append(row_problem(row_id, column, values.get(field), str(error), dropped=dropped))
            return missing

    parsed = {"label": read("label", parse_label, -1, dropped=True)}
    nowhere = (math.nan, math.nan)
    if "latitude" in columns and "longitude" in columns:
        pair = [values.get("latitude"), values.get("longitude")]
        values = {**values, "latitude": pair}
        parsed["latitude"], parsed["longitude"] = read("latitude", parse_gps, nowhere)
    else:
        parsed["latitude"], parsed["longitude"] = read("gps", parse_gps, nowhere)
    for field, (parser, missing) in PARSERS.items():
        parsed[field] = read(field, parser, missing)
    return parsed, problems

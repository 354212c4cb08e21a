"""NATIX's own columns and how each value is read into the row schema.

In come raw values of one row (strings that hold lists, literal dots in column names); out go the schema's values.
A parser raises `ValueError` with the reason alone; `data/dataset.py` adds the row and the column.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from natix_roadwork.data.gps_text import NOWHERE, SWAPPED_REASON, GpsReading, read_gps
from natix_roadwork.data.row_report import RowProblem, row_problem
from natix_roadwork.data.tags import is_missing, is_missing_text, parse_tags


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
EMPTY_TEXTS = ("no description", "null", "none")


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


def parse_text(value: object) -> str:
    """Read a text; "No Description", `None`, `null` and every missing value become the empty string."""
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise ValueError("the value is not a string")
    text = value.strip()
    return "" if text.casefold() in EMPTY_TEXTS else text


def parse_id(value: object) -> str:
    """Read a video, sequence or group id as a string; missing and negative ones become the empty string.

    Raises:
        ValueError: If the value is neither a string nor a whole number.
    """
    if is_missing(value) or is_missing_text(value):
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
        value becomes missing, and coordinates that were put in order are named too.
    """
    problems: list[RowProblem] = []

    def read(field: str, parser: Callable[[Any], Any], missing: object, *, dropped: bool = False) -> Any:  # noqa: ANN401
        """Read one field; a wrong value is noted as a problem and becomes `missing`."""
        try:
            return parser(values.get(field))
        except (ValueError, OverflowError) as error:
            column = columns.get(field, field)
            problems.append(row_problem(row_id, column, values.get(field), str(error), dropped=dropped))
            return missing

    parsed = {"label": read("label", parse_label, -1, dropped=True)}
    where = "gps"
    if "latitude" in columns and "longitude" in columns:
        where = "latitude"
        values = {**values, where: [values.get("latitude"), values.get("longitude")]}
    gps: GpsReading = read(where, read_gps, NOWHERE)
    parsed |= {"latitude": gps.latitude, "longitude": gps.longitude}
    if gps.swapped:
        problems.append(row_problem(row_id, columns.get(where, where), values[where], SWAPPED_REASON, dropped=False))
    for field, (parser, missing) in PARSERS.items():
        parsed[field] = read(field, parser, missing)
    return parsed, problems

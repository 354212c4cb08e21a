"""Coordinates in every way they are written, as latitude and longitude in degrees.

In comes one raw value (text, pair, mapping) or a whole column; out goes a `GpsReading`, or what is odd about the column.
A reading that fails raises `ValueError` with the reason alone; `data/natix_columns.py` adds the row and the column.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
from geopy import Point
from numpy.typing import NDArray

from natix_roadwork.data.tags import is_missing, is_missing_text, read_literal
from natix_roadwork.gps.coordinates import RADIAN_ROWS, look_like_radians


MAX_TEXT_LENGTH = 256  # geopy's own limit, which keeps a hostile text from holding up the pattern
LATITUDE_KEYS = ("lat", "latitude")
LONGITUDE_KEYS = ("lon", "lng", "long", "longitude")
SWAPPED_REASON = "longitude came first; the two are put in order"
NULL_ISLAND_DEGREES = 1e-6
POLAR_DEGREES = 75.0
_ANGLE = (
    r"(?P<{0}_front>[NSEW])?\s*(?P<{0}_sign>[+-])?(?P<{0}_degrees>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*[°ºDd*]?\s*"
    r"(?:(?P<{0}_minutes>\d+(?:\.\d*)?)\s*['\u2032\u2019m]\s*)?"
    r"(?:(?P<{0}_seconds>\d+(?:\.\d*)?)\s*[\"\u2033\u201ds]\s*)?(?P<{0}_back>[NSEW])?"
)
_PAIR = re.compile(rf"\s*{_ANGLE.format('first')}\s*[,;/\s]\s*{_ANGLE.format('second')}\s*")
_NOT_A_PAIR = "the coordinates are not two numbers such as '[latitude, longitude]'"


@dataclass(frozen=True)
class GpsReading:
    """Coordinates read from one value.

    Attributes:
        latitude: Degrees, NaN where the value is missing.
        longitude: Degrees, NaN where the value is missing.
        swapped: Whether longitude came first and the two were put in order.
    """

    latitude: float
    longitude: float
    swapped: bool = False


NOWHERE = GpsReading(math.nan, math.nan)


def read_gps(value: object) -> GpsReading:
    """Read coordinates: `"[lat, lon]"`, `"lat, lon"`, `39°46'17"N 86°11'W`, a pair, or a mapping with named keys.

    Latitude comes first, unless hemisphere letters or keys say otherwise. Where the first number cannot be a latitude
    but the pair is in range the other way round, the two are put in order and the reading says so. A pair that is in
    range both ways is taken as written; `gps_warnings` looks at the whole column. Minutes and seconds are added up by
    `geopy.Point.parse_degrees`.

    Args:
        value: The raw value. None, NaN, blank text, `null`, `None`, `nan` and a pair of these are missing.

    Raises:
        ValueError: If the value is not two finite numbers, lies out of range, or is (0, 0), which cameras without a
            fix write.
    """
    if is_missing(value) or is_missing_text(value):
        return NOWHERE
    if isinstance(value, str):
        return _read_text(value)
    if isinstance(value, Mapping):
        value = _named_pair(value)
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != 2:
        raise ValueError(_NOT_A_PAIR)
    first, second = value
    if all(is_missing(part) or is_missing_text(part) for part in value):
        return NOWHERE
    if isinstance(first, str) and isinstance(second, str):
        return _read_text(f"{first}, {second}")
    return _in_range(_number(first, "latitude"), _number(second, "longitude"))


def gps_warnings(gps: NDArray[np.float64]) -> list[str]:
    """Say what is odd about a whole column of coordinates and cannot be told from one row.

    Radians: ten or more rows, all of them within pi/2 and pi of zero, which is open sea south of Ghana. Swapped order:
    rows beyond 75 degrees of latitude, where no streets are.

    Args:
        gps: `(N, 2)` latitude and longitude in degrees, NaN = missing.
    """
    gps = np.asarray(gps, np.float64)
    known = gps[~np.isnan(gps).any(1)]
    if len(known) >= RADIAN_ROWS and look_like_radians(known):
        return [
            f"all {len(known)} coordinates lie within pi/2 and pi of (0, 0): they look like radians; convert them to "
            "degrees before loading"
        ]
    polar = int((np.abs(known[:, 0]) > POLAR_DEGREES).sum())
    if polar:
        return [
            f"{polar} of {len(known)} coordinates lie beyond {POLAR_DEGREES:g} degrees of latitude, where no streets "
            "are: latitude and longitude may be swapped; write latitude first"
        ]
    return []


def _read_text(text: str) -> GpsReading:
    text = text.strip()
    if len(text) > MAX_TEXT_LENGTH:
        raise ValueError(f"the coordinates are a text of {len(text)} characters, more than {MAX_TEXT_LENGTH}")
    if text[:1] + text[-1:] in ("[]", "()", "{}"):
        literal = read_literal(text)
        if isinstance(literal, (list, tuple, dict)):
            return read_gps(literal)
        text = text[1:-1].strip()
    parts = text.split(",")
    if len(parts) == 2 and all(is_missing_text(part) for part in parts):
        return NOWHERE
    match = _PAIR.fullmatch(text)
    if match is None:
        raise ValueError(_NOT_A_PAIR)
    (first, letter), (second, other) = (_angle(match, name) for name in ("first", "second"))
    axes = {letter: "latitude" if letter in ("N", "S") else "longitude" for letter in (letter, other) if letter}
    if letter and other and axes[letter] == axes[other]:
        raise ValueError(f"the hemispheres {letter} and {other} are both of a {axes[letter]}")
    if (letter and axes[letter] == "longitude") or (other and axes[other] == "latitude"):
        first, second = second, first
    return _in_range(first, second, named=bool(axes))


def _named_pair(value: Mapping) -> tuple[object, object]:
    named = {str(key).strip().casefold(): part for key, part in value.items()}
    pair = []
    for keys in (LATITUDE_KEYS, LONGITUDE_KEYS):
        found = [key for key in keys if key in named]
        if len(found) != 1:
            raise ValueError(f"the coordinates need one key of {list(keys)}, found {found or list(named)}")
        pair.append(named[found[0]])
    return pair[0], pair[1]


def _angle(match: re.Match, name: str) -> tuple[float, str | None]:
    """Degrees and hemisphere letter of one half of a pair."""
    front, sign, degrees, minutes, seconds, back = (
        match[f"{name}_{part}"] for part in ("front", "sign", "degrees", "minutes", "seconds", "back")
    )
    letter = front or back
    if (front and back) or (letter and sign):
        raise ValueError("a hemisphere letter stands beside another one or a sign; write one of them")
    if (minutes or seconds) and not degrees.isdigit():
        raise ValueError("the degrees have a fraction beside minutes or seconds")
    if max(float(minutes or 0), float(seconds or 0)) >= 60:
        raise ValueError("minutes and seconds lie below 60")
    angle = Point.parse_degrees(degrees, minutes or 0, seconds or 0)
    return (-angle if sign == "-" or letter in ("S", "W") else angle), letter


def _number(value: object, name: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, Real) or value != value:
        raise ValueError(f"the {name} is not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _in_range(latitude: float, longitude: float, *, named: bool = False) -> GpsReading:
    """Check the bounds; `named` forbids to exchange the two, since hemisphere letters say which is which."""
    if abs(latitude) > 90 and abs(latitude) <= 180 and abs(longitude) <= 90 and not named:
        return GpsReading(longitude, latitude, swapped=True)
    for name, degrees, limit in (("latitude", latitude, 90), ("longitude", longitude, 180)):
        if not abs(degrees) <= limit:
            raise ValueError(f"the {name} lies outside -{limit} to {limit} degrees; latitude comes first")
    if max(abs(latitude), abs(longitude)) <= NULL_ISLAND_DEGREES:
        raise ValueError("(0, 0) is what a camera without a fix writes, not a street; leave the value empty")
    return GpsReading(latitude, longitude)

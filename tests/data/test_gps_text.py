import math

import numpy as np
import pytest
from geopy import Point

from natix_roadwork.data.gps_text import gps_warnings, read_gps


def parse_gps(value: object) -> tuple[float, float]:
    reading = read_gps(value)
    return reading.latitude, reading.longitude


PLACES = np.random.default_rng(0).uniform([-90, -180], [90, 180], (200, 2)).tolist()
PLACES += [[90.0, 180.0], [-90.0, -180.0], [0.0, 5.0], [-0.25, 1e-5], [39.77160604, -86.18823935]]


def in_dms(degrees: float, letters: str) -> str:
    """Degrees, minutes and seconds with a hemisphere letter behind them."""
    seconds = abs(degrees) * 3600
    whole, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    return f"{whole}°{minutes}'{seconds % 60 % 60:.6f}\"{letters[degrees < 0]}"


FORMS = {
    "list as text": lambda lat, lon: f"[{lat!r}, {lon!r}]",
    "tuple as text": lambda lat, lon: f"({lat!r},{lon!r})",
    "quoted": lambda lat, lon: f"['{lat!r}', '{lon!r}']",
    "bare": lambda lat, lon: f"{lat!r},{lon!r}",
    "spaced": lambda lat, lon: f"  {lat!r} {lon!r} ",
    "semicolon": lambda lat, lon: f"{lat!r}; {lon!r}",
    "list": lambda lat, lon: [lat, lon],
    "tuple": lambda lat, lon: (lat, lon),
    "array": lambda lat, lon: np.array([lat, lon]),
    "texts": lambda lat, lon: (repr(lat), repr(lon)),
    "short keys": lambda lat, lon: {"lat": lat, "lng": lon},
    "long keys": lambda lat, lon: {"Longitude": lon, "Latitude": lat},
    "mapping as text": lambda lat, lon: str({"lon": lon, "lat": lat}),
    "JSON": lambda lat, lon: f'{{"latitude": {lat!r}, "longitude": {lon!r}}}',
    "letters": lambda lat, lon: f"{abs(lat)!r} {'NS'[lat < 0]}, {abs(lon)!r} {'EW'[lon < 0]}",
    "letters in front": lambda lat, lon: f"{'NS'[lat < 0]}{abs(lat)!r} {'EW'[lon < 0]}{abs(lon)!r}",
    "longitude named first": lambda lat, lon: f"{abs(lon)!r}{'EW'[lon < 0]}, {abs(lat)!r}{'NS'[lat < 0]}",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_back_exactly(form: str) -> None:
    for latitude, longitude in PLACES:
        assert parse_gps(FORMS[form](latitude, longitude)) == (latitude, longitude)


def test_degrees_minutes_and_seconds_read_back() -> None:
    for latitude, longitude in PLACES[:-5]:
        read = parse_gps(f"{in_dms(latitude, 'NS')}, {in_dms(longitude, 'EW')}")
        assert read == pytest.approx((latitude, longitude), abs=1e-8)


@pytest.mark.parametrize(
    "text",
    [
        "41.5;-81.0",
        "41.5 N 81.0 W",
        "23 26m 22s N 23 27m 30s E",
        "23 26' 22\" N 23 27' 30\" E",
        "23° 26\u2032 22\u2033 N 23° 27\u2032 30\u2033 E",
        "N 39°20' 0\" / W 74°35' 0\"",
        "-41.5,81",
    ],
)
def test_geopy_reads_the_same(text: str) -> None:
    assert parse_gps(text) == tuple(Point(text))[:2]


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "  ", "null", "None", "NaN", "nan", math.nan, np.float32("nan")),
        *("[None, None]", "[null, null]", "[nan, nan]", "[NaN, NaN]", "nan,nan", ","),
        *([None, None], [math.nan, None], (None, ""), {"lat": None, "lon": None}),
    ],
)
def test_missing_is_nan(value: object) -> None:
    reading = read_gps(value)
    assert math.isnan(reading.latitude) and math.isnan(reading.longitude) and not reading.swapped


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[0, 0]", "camera without a fix"),
        ("0.0 N, 0.0 E", "camera without a fix"),
        ((1e-9, -1e-9), "camera without a fix"),
        ("[91.0, 100.0]", "latitude lies outside"),
        ("[-186.2, 39.7]", "latitude lies outside"),
        ("95 N, 20 E", "latitude lies outside"),
        ("[39.7, 181]", "longitude lies outside"),
        ("39.7 N, 186.2 W", "longitude lies outside"),
        ("[39.7, 1e999]", "longitude lies outside"),
        ([10**400, 0], "latitude lies outside"),
        ("[39.7, None]", "longitude is not a number"),
        ([math.nan, 3.0], "latitude is not a number"),
        ([True, 3.0], "latitude is not a number"),
        ({"lat": "high", "lon": 3}, "latitude is not a number"),
        ("39.7 N, 20 S", "both of a latitude"),
        ("20 W, 39 E", "both of a longitude"),
        ("-33 S, 20 E", "beside another one or a sign"),
        ("N 33 N, 20 E", "beside another one or a sign"),
        ("39.5° 30' N, 20 E", "fraction"),
        ("39° 60' N, 20 E", "below 60"),
        ("39° 6' 61\" N, 20 E", "below 60"),
        ({"lat": 3.0}, "one key of"),
        ({"lat": 3.0, "latitude": 4.0, "lon": 1.0}, "one key of"),
        ("1" * 300, "300 characters"),
        *(
            (bad, "two numbers")
            for bad in ("[-86.2]", "[1, 2, 3]", "north", "[39.7, -86.2", "x39.7, -86.2", "39,7, 8")
        ),
        *((bad, "two numbers") for bad in ("__import__('os')", "{[]: 1}", 7, b"39.7,-86.2", [], "12.39.7,-86.2")),
    ],
)
def test_wrong_coordinates_say_why(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_gps(value)


@pytest.mark.parametrize("value", ["[-118.2, 34.0]", "-118.2,34.0", (-118.2, 34.0), {"lat": -118.2, "lon": 34.0}])
def test_swapped_order_is_put_right_where_only_one_order_is_in_range(value: object) -> None:
    reading = read_gps(value)
    assert (reading.latitude, reading.longitude, reading.swapped) == (34.0, -118.2, True)


def test_order_that_could_be_either_is_as_written() -> None:
    assert not read_gps("[-86.2, 39.8]").swapped and parse_gps("[-86.2, 39.8]") == (-86.2, 39.8)


def test_column_in_radians_is_told() -> None:
    degrees = np.array(PLACES[:100])
    assert "radians" in gps_warnings(np.vstack([np.radians(degrees), [math.nan, math.nan]]))[0]
    assert not gps_warnings(np.clip(degrees, -70, 70))
    assert not gps_warnings(np.radians(degrees[:9])) and not gps_warnings(np.full((20, 2), math.nan))


def test_column_that_may_be_swapped_is_told() -> None:
    (warning,) = gps_warnings(np.array([[-86.2, 39.8], [39.8, -86.2], [math.nan, math.nan]]))
    assert warning.startswith("1 of 2 coordinates") and "swapped" in warning

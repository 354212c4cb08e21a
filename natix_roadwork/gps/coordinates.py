"""Coordinates that can be trusted: arrays and files of GPS positions are checked here before anything is computed.

In come `(N, 2)` degrees, latitude first, NaN = missing, from a data set or a `.npy` file; out go the same as float64, or
an error that names the array, the row and the likely mistake. Next: `gps/distance.py`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray


logger = logging.getLogger(__name__)

# Smallest and largest latitude, then longitude, of the contiguous United States, in degrees.
US_BOUNDS = (25.0, 50.0, -125.0, -65.0)
RADIAN_ROWS = 10  # from so many rows on, all of them in [-pi/2, pi/2] x [-pi, pi], an array is in radians
SWAPPED_SHARE = 0.9


def check_gps(
    gps: ArrayLike, name: str, bounds: Sequence[float] | None = None, row_ids: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Check an array of coordinates.

    Args:
        gps: `(N, 2)` degrees (latitude, longitude), NaN = missing.
        name: What the array is called in an error.
        bounds: Smallest and largest latitude, smallest and largest longitude, in degrees; None = the whole Earth.
        row_ids: `(N,)` what the rows are called in an error; None = by their numbers.

    Returns:
        The array as float64.

    Raises:
        ValueError: If the array has another shape, no coordinates, half a pair, a pair out of range, on (0, 0) or
            outside the bounds, or looks like radians or like longitudes first.
    """
    values = np.asarray(gps)
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers of shape (N, 2), latitude and longitude, not {_kind(values)}")
    values = values.astype(np.float64, copy=False)
    called = _Names(name, row_ids)
    missing = np.isnan(values)
    if missing[:, 0].all() or missing[:, 1].all():
        raise ValueError(f"{name} holds no coordinates: all of its {len(values)} rows are missing (NaN)")
    _refuse(
        missing[:, 0] != missing[:, 1], values, called, "only one of latitude and longitude; give both or NaN twice"
    )
    _refuse_swapped(values, called)
    beyond = (np.abs(values[:, 0]) > 90.0) | (np.abs(values[:, 1]) > 180.0)
    _refuse(beyond, values, called, "out of range; latitudes lie in [-90, 90], longitudes in [-180, 180] degrees")
    _refuse(
        (values == 0.0).all(axis=1),
        values,
        called,
        "on (0, 0), a placeholder in the sea; give NaN where it is missing",
    )
    _refuse_radians(values, name)
    if bounds is not None:
        south, north, west, east = check_bounds(bounds)
        outside = (values[:, 0] < south) | (values[:, 0] > north) | (values[:, 1] < west) | (values[:, 1] > east)
        _refuse(outside, values, called, f"outside latitudes {south:g} to {north:g}, longitudes {west:g} to {east:g}")
    return values


def check_bounds(bounds: Sequence[float]) -> tuple[float, float, float, float]:
    """Check a latitude and longitude range in degrees: south, north, west, east.

    Raises:
        ValueError: If these are not four numbers in that order.
    """
    if len(bounds) != 4 or not (-90 <= bounds[0] < bounds[1] <= 90 and -180 <= bounds[2] < bounds[3] <= 180):
        raise ValueError(
            f"bounds={list(bounds)} must be four degrees: smallest and largest latitude, smallest and largest "
            f"longitude, such as {list(US_BOUNDS)} for the United States"
        )
    south, north, west, east = (float(value) for value in bounds)
    return south, north, west, east


def load_gps(path: str | Path, bounds: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Read the coordinates of a `.npy` file, such as `test_gps_coordinates.npy`.

    Args:
        path: File of an `(N, 2)` array of degrees (latitude, longitude), NaN = missing.
        bounds: As for `check_gps`.

    Raises:
        ValueError: If the file is absent or no such array, or its coordinates cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"gps file {str(path)!r} does not exist; give a .npy file of (N, 2) latitudes and longitudes")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"gps file {str(path)!r} is no .npy file of numbers: {error}") from None
    if not isinstance(values, np.ndarray):
        raise ValueError(f"gps file {str(path)!r} is an archive of several arrays; give a .npy file of one")
    return check_gps(values, f"gps file {str(path)!r}", bounds)


def located(gps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which rows `(N, 2)` have coordinates."""
    return ~np.isnan(gps[:, 0])


def look_like_radians(rows: NDArray[np.float64]) -> bool:
    """Tell whether all coordinates `(N, 2)` lie within pi/2 and pi of (0, 0), which is open sea in degrees."""
    return bool((np.abs(rows) <= (np.pi / 2, np.pi)).all())


def _kind(values: NDArray) -> str:
    return f"shape {values.shape} of {values.dtype}"


@dataclass(frozen=True)
class _Names:
    """What an array and its rows are called in an error."""

    array: str
    row_ids: Sequence[str] | None

    def row(self, number: int) -> str:
        return f"{self.array}: row {number if self.row_ids is None else repr(self.row_ids[number])}"


def _refuse(wrong: NDArray[np.bool_], values: NDArray[np.float64], names: _Names, reason: str) -> None:
    count = int(np.count_nonzero(wrong))
    if count:
        row = int(np.argmax(wrong))
        place = f"{names.row(row)} is ({values[row, 0]:g}, {values[row, 1]:g})"
        raise ValueError(f"{place}, {reason}" + (f" ({count} such rows)" if count > 1 else ""))


def _refuse_swapped(values: NDArray[np.float64], names: _Names) -> None:
    """Longitude first: latitudes beyond the poles, or points of the United States turned into Antarctica."""
    numbers = np.flatnonzero(located(values))
    rows = values[numbers]
    beyond = np.abs(rows[:, 0]) > 90.0
    turned = beyond.any() and bool((np.abs(rows[:, 1]) <= 90.0).all() and (np.abs(rows[:, 0]) <= 180.0).all())
    if turned or (_inside(rows[:, ::-1]) >= SWAPPED_SHARE and _inside(rows) == 0.0):
        row = int(np.argmax(beyond if turned else located(rows)))
        raise ValueError(
            f"{names.row(int(numbers[row]))} is ({rows[row, 0]:g}, {rows[row, 1]:g}): the coordinates look swapped, "
            "longitude first; give latitude first"
        )


def _inside(rows: NDArray[np.float64]) -> float:
    """Share of the rows inside the United States."""
    south, north, west, east = US_BOUNDS
    return float(np.mean((rows[:, 0] >= south) & (rows[:, 0] <= north) & (rows[:, 1] >= west) & (rows[:, 1] <= east)))


def _refuse_radians(values: NDArray[np.float64], name: str) -> None:
    rows = int(np.count_nonzero(located(values)))
    if not look_like_radians(values[located(values)]):
        return
    text = (
        f"{name}: all {rows} coordinates lie within 1.58 degrees of the equator and 3.15 of Greenwich, in the sea; "
        "they look like radians, give degrees"
    )
    if rows >= RADIAN_ROWS:
        raise ValueError(text)
    logger.warning(text)

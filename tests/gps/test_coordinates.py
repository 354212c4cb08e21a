import logging
from pathlib import Path

import numpy as np
import pytest

from natix_roadwork.gps.coordinates import US_BOUNDS, check_bounds, check_gps, load_gps
from tests.gps.places import PITTSBURGH, around, missing


GOOD = around(PITTSBURGH, 20)


def with_row(row: tuple[float, float]) -> np.ndarray:
    return np.concatenate([GOOD[:3], [row], GOOD[3:]])


def test_good_coordinates_pass_with_missing_rows() -> None:
    gps = np.concatenate([GOOD, missing(3)])
    assert np.array_equal(check_gps(gps, "gps", US_BOUNDS), gps, equal_nan=True)
    assert check_gps([[40, -80]], "gps").dtype == np.float64


@pytest.mark.parametrize(
    ("gps", "message"),
    [
        (GOOD[:, 0], r"train_gps must be .* \(N, 2\).*shape \(20,\)"),
        (np.full((2, 2), "a"), r"train_gps must be numbers"),
        (missing(4), "train_gps holds no coordinates: all of its 4 rows"),
        (np.zeros((0, 2)), "train_gps holds no coordinates: all of its 0 rows"),
        (with_row((np.nan, -80.0)), r"row 3 is \(nan, -80\), only one of latitude and longitude"),
        (with_row((40.0, -181.0)), r"row 3 is \(40, -181\), out of range"),
        (with_row((np.inf, -80.0)), r"row 3 is \(inf, -80\), out of range"),
        (with_row((0.0, 0.0)), r"row 3 is \(0, 0\), on \(0, 0\), a placeholder"),
        (GOOD[:, ::-1], r"train_gps: row 0 is \(-\d.*look swapped, longitude first"),
        (around((33.4, -112.1), 5)[:, ::-1], "look swapped"),
        (np.array([[120.0, 10.0], [40.0, -80.0]]), r"row 0 is \(120, 10\): .*look swapped"),
        (np.radians(GOOD), "all 20 coordinates lie within .* look like radians, give degrees"),
    ],
)
def test_bad_coordinates_are_named(gps: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_gps(gps, "train_gps")


def test_a_few_rows_in_the_gulf_of_guinea_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_gps(np.radians(GOOD[:3]), "gps")
    assert "look like radians" in caplog.text


def test_bounds_are_checked_when_asked_for() -> None:
    paris = with_row((48.86, 2.35))
    assert len(check_gps(paris, "gps")) == 21
    with pytest.raises(ValueError, match=r"row 3 is \(48.86, 2.35\), outside latitudes 25 to 50"):
        check_gps(paris, "gps", US_BOUNDS)
    with pytest.raises(ValueError, match=r"bounds=\[50, 25, -125, -65\] must be four degrees"):
        check_bounds([50, 25, -125, -65])


def test_target_file_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "test_gps_coordinates.npy", GOOD)
    assert np.array_equal(load_gps(tmp_path / "test_gps_coordinates.npy"), GOOD)


def test_unusable_target_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", missing(5))
    np.savez(tmp_path / "many.npz", GOOD)
    (tmp_path / "text.npy").write_text("40, -80")
    for name, message in {
        "none.npy": r"none\.npy' holds no coordinates: all of its 5 rows",
        "many.npz": "an archive of several arrays",
        "text.npy": r"text\.npy' is no \.npy file",
        "absent.npy": r"absent\.npy' does not exist",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_gps(tmp_path / name)

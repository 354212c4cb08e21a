from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from natix_roadwork.gps import report
from natix_roadwork.gps.gate import plan_sampling
from natix_roadwork.gps.report import MAP_NAME, TARGET_FILE, TRAIN_FILE, WEIGHTS_FILE, write_report
from natix_roadwork.gps.settings import GPSArguments
from tests.gps.places import HOUSTON, PITTSBURGH, around, near_and_far


@pytest.mark.parametrize("sampling", ["off", "solved"])
def test_report_leaves_table_map_and_arrays(sampling: str, tmp_path: Path) -> None:
    train, targets = near_and_far(300, 700, 10), around(PITTSBURGH, 40)
    plan = plan_sampling(train, targets, GPSArguments(gps_sampling=sampling))
    table = write_report(plan, tmp_path / "run", num_clusters=1)
    assert "Pittsburgh (" in table and "at most 50 km" in table and "planned check:" in table
    assert ("70.0%" in table) == (sampling == "solved") == (tmp_path / "run" / WEIGHTS_FILE).exists()
    assert np.array_equal(np.load(tmp_path / "run" / TRAIN_FILE), train, equal_nan=True)
    assert np.array_equal(np.load(tmp_path / "run" / TARGET_FILE), targets)
    picture = np.asarray(Image.open(tmp_path / "run" / MAP_NAME).convert("RGB")).reshape(-1, 3)
    for colour in ((0x2A, 0x6F, 0x97), (0xD1, 0x49, 0x5B)):  # train rows and targets
        assert (np.abs(picture.astype(int) - colour).max(axis=1) < 40).sum() > 50


def test_table_counts_near_rows_of_each_region(tmp_path: Path) -> None:
    targets = np.concatenate([around(PITTSBURGH, 30), around(HOUSTON, 20)])
    plan = plan_sampling(near_and_far(7, 5), targets, GPSArguments())
    rows = [line.split() for line in write_report(plan, tmp_path, num_clusters=2).splitlines()[1:3]]
    assert [(row[0], row[3], row[5]) for row in rows] == [("Pittsburgh", "30", "7"), ("Houston", "20", "5")]


def test_labels_of_near_regions_lie_apart_and_inside_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cities = ((40.44, -80.0), (39.96, -83.0), (39.95, -75.17), (41.5, -81.69), (47.6, -122.3))
    targets = np.concatenate([around(city, 8) for city in cities])
    plan = plan_sampling(targets, targets, GPSArguments())
    drawn: list[Figure] = []
    monkeypatch.setattr(report, "Figure", lambda **options: drawn.append(Figure(**options)) or drawn[-1])
    write_report(plan, tmp_path, num_clusters=5)
    axes = drawn[0].axes[0]
    boxes = [Text.get_window_extent(label) for label in axes.texts]
    assert len(boxes) == 5 and not any(box.count_overlaps(boxes[:n]) for n, box in enumerate(boxes))
    assert all(axes.bbox.ymin < box.ymin and box.ymax < axes.bbox.ymax for box in boxes)

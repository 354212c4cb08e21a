import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.gps_text import SWAPPED_REASON
from natix_roadwork.data.metadata_report import MetadataReport, metadata_report
from natix_roadwork.data.row_report import row_problem
from natix_roadwork.model.configuration_roadwork import DEFAULT_VOCABULARIES


def report(**changes: Any) -> MetadataReport:
    """Four rows, labels 1 1 1 0: the second one's coordinates are swapped, the third one's refused."""
    rows = {
        "row_id": ["a", "b", "c", "d"],
        "label": [1, 1, 1, 0],
        "latitude": [39.7, 34.0, math.nan, math.nan],
        "longitude": [-86.2, -118.2, math.nan, math.nan],
        "weather": [["Sunny"], ["Sunny", "Ash"], [], []],
        "daytime": [["Light"], ["Dark"], [], ["Light"]],
        "scene": [[]] * 4,
        "travel_alteration": [["None"], [], [], []],
        "text": ["Cones.", "Cones.", "Cones.", ""],
        "city": [""] * 4,
    }
    problems = [
        row_problem("b", "gps", "[-118.2, 34.0]", SWAPPED_REASON, dropped=False),
        row_problem("c", "gps", "[95, 0]", "the latitude", dropped=False),
        row_problem("c", "scene_level_tags.weather", "['a'", "the tags", dropped=False),
        row_problem("d", "label", "7", "the label", dropped=True),
        row_problem("elsewhere", "gps", "x", "the coordinates", dropped=False),
    ]
    return metadata_report(rows | changes, DEFAULT_VOCABULARIES, problems)


def counts(found: MetadataReport, field: str, label: str) -> dict[str, int]:
    return found.as_dict()["counts"][field][label]


def test_parsed_missing_and_refused_are_counted_by_label() -> None:
    gps = {"rows": 3, "parsed": 2, "missing": 0, "refused": 1, "swapped": 1, "unknown": 0}
    assert counts(report(), "gps", "Roadwork") == gps
    assert counts(report(), "gps", "None") == {**dict.fromkeys(gps, 0), "rows": 1, "missing": 1}
    assert counts(report(), "text", "Roadwork")["parsed"] == 3 and counts(report(), "text", "None")["missing"] == 1
    weather = {"rows": 3, "parsed": 2, "missing": 0, "refused": 1, "swapped": 0, "unknown": 1}
    assert counts(report(), "weather", "Roadwork") == weather


def test_every_row_is_parsed_missing_or_refused() -> None:
    for labels in report().counts.values():
        assert [c.parsed + c.missing + c.refused for c in labels.values()] == [1, 3]


def test_unknown_tags_and_warnings_are_listed() -> None:
    found = report(latitude=[0.1] * 4, longitude=[0.2] * 4)
    assert found.unknown_tags == {"weather": {"Ash": 1}} and found.warnings == []
    radians = metadata_report(
        {name: [value] * 12 for name, value in {"row_id": "a", "label": 1, "latitude": 0.6, "longitude": -1.5}.items()}
        | {name: [[]] * 12 for name in ("weather", "daytime", "scene", "travel_alteration", "text", "city")},
        DEFAULT_VOCABULARIES,
    )
    assert "radians" in radians.warnings[0] and "warning: all 12" in radians.table()


def test_table_names_what_is_empty_in_one_line() -> None:
    lines = report().table().splitlines()
    assert lines[0].split() == ["metadata", "label", "rows", "parsed", "missing", "refused", "swapped", "unknown"]
    assert "missing in every row: scene, city" in lines
    assert "weather: 1 tags that the vocabulary lacks: 'Ash' (1)" in lines
    assert "gps                Roadwork         3        2        0        1        1        0" in lines


def test_report_is_json(tmp_path: Path) -> None:
    values = json.loads(json.dumps(report().as_dict()))
    assert values["unknown_tags"] == {"weather": {"distinct": 1, "rows": {"Ash": 1}}}


@pytest.fixture
def contradicting(natix_row: Callable[..., dict], write_shard: Callable[..., Path], tmp_path: Path) -> Path:
    """40 train rows and a test row; train rows 2 and 3 contradict their descriptions, and so does the test row."""
    empty = [None, "", "No Description", " no description "]
    rows = [natix_row(n, **({} if n % 2 else {"scene_description": empty[n // 2 % 4]})) for n in range(40)]
    rows[2]["scene_description"], rows[3]["scene_description"] = "Cones.", "No Description"
    rows[5]["gps"], rows[7]["gps"] = "[-118.2, 34.0]", "[95.0, 100.0]"
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    bad = natix_row(101, scene_description=None)
    write_shard(tmp_path / "data" / "test-00000-of-00001.parquet", [natix_row(100), bad])
    return tmp_path / "data"


def loaded(folder: Path, tmp_path: Path, **options: Any) -> LoadedRows:
    return load_rows(str(folder), cache_dir=str(tmp_path / "cache"), **options)


def test_filter_drops_and_names_contradicting_rows(contradicting: Path, tmp_path: Path) -> None:
    report = loaded(contradicting, tmp_path, consistency_filter=True).report
    dropped = [(p.row_id.split(":")[1], p.column, p.value, p.reason) for p in report.dropped]
    assert dropped == [
        ("2", "scene_description", "Cones.", "label 0 (None) with a description"),
        ("3", "scene_description", "", "label 1 (Roadwork) without a description"),
        ("1", "scene_description", "", "label 1 (Roadwork) without a description"),
    ]
    assert "consistency filter: 2 of 40 rows of train dropped" in report.notes
    assert "consistency filter: 1 of 2 rows of test dropped" in report.summary()


def test_filter_is_off_unless_asked_for(contradicting: Path, tmp_path: Path) -> None:
    report = loaded(contradicting, tmp_path).report
    assert not report.dropped and report.num_kept == 42


def test_load_reports_the_metadata_without_the_lockbox(contradicting: Path, tmp_path: Path) -> None:
    report = loaded(contradicting, tmp_path).report
    roadwork = report.as_dict()["metadata"]["counts"]["gps"]["Roadwork"]
    assert roadwork == {"rows": 20, "parsed": 19, "missing": 0, "refused": 1, "swapped": 1, "unknown": 0}
    assert "  gps                Roadwork        20       19" in report.summary()


def test_filter_without_descriptions_is_refused(write_imagefolder: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_imagefolder(tmp_path / "f", [{"file_name": f"{n}.jpg", "label": n % 2} for n in range(12)])
    with pytest.raises(ValueError, match=r"consistency_filter=True.*no column scene_description or text"):
        loaded(folder, tmp_path, consistency_filter=True)
    assert "missing in every row: gps, weather" in loaded(folder, tmp_path).report.summary()


def test_load_warns_of_a_column_in_radians(
    write_imagefolder: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"file_name": f"{n}.jpg", "label": n % 2, "gps": [0.6 + n / 100, -1.504]} for n in range(16)]
    report = loaded(write_imagefolder(tmp_path / "f", rows), tmp_path).report
    assert not report.problems and report.needs_attention
    assert "warning: all 16 coordinates lie within pi/2" in caplog.text

"""The embedded scenes, read back through the same parsing as any data set in NATIX's columns."""

import ast
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.natix_columns import NATIX_COLUMNS
from natix_roadwork.data.scenes import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "rows"
    return write_scenes(folder, num_rows=24, width=200, positive_share=0.5, missing_share=0.3, progress=False)


@pytest.fixture(scope="module")
def loaded(scenes: Path) -> LoadedRows:
    return load_rows(str(scenes), cache_dir=str(scenes.parent / "cache"))


@pytest.fixture(scope="module")
def raw_rows(scenes: Path) -> dict[str, dict[str, Any]]:
    return {
        f"{path.stem}:{number}": row
        for path in scenes.glob("*.parquet")
        for number, row in enumerate(pq.read_table(path).to_pylist())
    }


def test_scenes_have_natix_columns(raw_rows: dict[str, dict[str, Any]]) -> None:
    assert all(tuple(row) == NATIX_COLUMNS for row in raw_rows.values())


def test_no_scene_is_lost_or_changed(loaded: LoadedRows, raw_rows: dict[str, dict[str, Any]]) -> None:
    rows = {row["row_id"]: row for dataset in loaded.splits.values() for row in dataset}
    assert rows.keys() == raw_rows.keys()
    assert not loaded.report.problems
    for row_id, raw in raw_rows.items():
        row = rows[row_id]
        assert row["image"]["bytes"] == raw["image"]["bytes"]
        assert (row["label"], row["city"]) == (raw["label"], raw["city_name"])
        assert (row["video_id"], row["sequence_id"]) == (raw["video_info.vid_id"], str(raw["video_info.seq_id"]))


def test_scene_tags_and_coordinates(loaded: LoadedRows, raw_rows: dict[str, dict[str, Any]]) -> None:
    for dataset in loaded.splits.values():
        for row in dataset:
            raw = raw_rows[row["row_id"]]
            assert row["weather"] == ast.literal_eval(raw["scene_level_tags.weather"] or "[]")
            assert row["daytime"] == [raw["scene_level_tags.daytime"]] * (raw["scene_level_tags.daytime"] is not None)
            written = raw["gps"] and f"[{row['latitude']:.8f}, {row['longitude']:.8f}]"
            assert written == raw["gps"]


def test_empty_descriptions_of_every_kind(loaded: LoadedRows, raw_rows: dict[str, dict[str, Any]]) -> None:
    for dataset in loaded.splits.values():
        for row in dataset:
            empty = raw_rows[row["row_id"]]["scene_description"] in (None, "", "No Description")
            assert (row["text"] == "") == empty


def test_scene_splits_share_no_video(loaded: LoadedRows) -> None:
    assert loaded.lockbox
    videos = [set(dataset["video_id"][:]) for dataset in loaded.splits.values()]
    assert len(videos) == 3
    assert sum(len(names) for names in videos) == len(set.union(*videos))

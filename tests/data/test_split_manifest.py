import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.split_manifest import make_manifest, read_manifest, verify_manifest, write_manifest


ROWS = (["r1", "r0", "r2"], ["b", "a", "c"], ["train", "train", "dev"], [1, 0, 1])


def test_manifest_counts_and_does_not_depend_on_the_order() -> None:
    manifest = make_manifest(*ROWS)
    assert manifest == make_manifest(*(column[::-1] for column in ROWS))
    assert manifest.counts == {"train": {"None": 1, "Roadwork": 1}, "dev": {"None": 0, "Roadwork": 1}}
    assert manifest.groups == {"train": 2, "dev": 1}


@pytest.mark.parametrize(("column", "row", "value"), [(0, 1, "r9"), (1, 1, "z"), (2, 0, "dev")])
def test_any_change_of_row_group_or_split_changes_the_hash(column: int, row: int, value: str) -> None:
    changed = [list(values) for values in ROWS]
    changed[column][row] = value
    assert make_manifest(*changed).sha256 != make_manifest(*ROWS).sha256


def test_row_twice_and_group_in_two_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="'r1' occurs more than once"):
        make_manifest(["r1", "r1"], ["a", "b"], ["train", "dev"], [0, 1])
    with pytest.raises(ValueError, match=r"share 1 groups, \['a'\]"):
        make_manifest(["r1", "r2"], ["a", "a"], ["train", "dev"], [0, 1])


def test_manifest_on_disk_is_checked(tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "new" / "m.json", make_manifest(*ROWS))
    assert read_manifest(path) == make_manifest(*ROWS)
    verify_manifest(path, make_manifest(*ROWS))
    other = make_manifest(["r1", "r0", "r2"], ["b", "a", "c"], ["train", "dev", "dev"], [1, 0, 1])
    with pytest.raises(ValueError, match=r"dev: .*1.* in the manifest"):
        verify_manifest(path, other)
    renamed = make_manifest(["r1", "r0", "r9"], *ROWS[1:])
    with pytest.raises(ValueError, match="the counts are equal, but other rows"):
        verify_manifest(path, renamed)


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": "x"}', "{}"])
def test_file_that_is_no_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(ValueError, match=r"m\.json is no split manifest"):
        read_manifest(tmp_path / "m.json")


def test_other_format_version_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "m.json", make_manifest(*ROWS))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 9}))
    with pytest.raises(ValueError, match="format_version=9"):
        read_manifest(path)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LoadedRows]:
    def load(name: Path, **options: Any) -> LoadedRows:
        return load_rows(str(name), cache_dir=str(tmp_path / "cache"), **options)

    return load


def test_load_writes_the_manifest_then_checks_it(
    natix_folder: Path, tmp_path: Path, load: Callable[..., LoadedRows]
) -> None:
    path = tmp_path / "m.json"
    loaded = load(natix_folder, split_manifest=path)
    assert read_manifest(path) == loaded.manifest == load(natix_folder, split_manifest=path).manifest
    assert sum(sum(counts.values()) for counts in loaded.manifest.counts.values()) == 30
    with pytest.raises(ValueError, match=r"are not those of .*m\.json"):
        load(natix_folder, split_manifest=path, seed=1)


def test_groups_of_a_file_stay_in_one_split(
    natix_folder: Path, tmp_path: Path, load: Callable[..., LoadedRows]
) -> None:
    before = load(natix_folder).splits
    train, dev = before["train"][0], before["dev"][0]
    (tmp_path / "groups.csv").write_text(f"row_id,group\n{train['row_id']},x\n{dev['row_id']},x\n")
    splits = load(natix_folder, groups_file=tmp_path / "groups.csv").splits.values()
    groups = [{row["row_id"]: row["group"] for row in split} for split in splits]
    (both,) = [found for found in groups if train["row_id"] in found]
    assert train["group"] != dev["group"] and both[train["row_id"]] == both[dev["row_id"]]


def test_train_rows_near_the_lockbox_are_dropped(
    tmp_path: Path, natix_row: Callable[..., dict], write_shard: Callable[..., Path], load: Callable[..., LoadedRows]
) -> None:
    write_shard(tmp_path / "d" / "train-0.parquet", [natix_row(n) for n in range(16)])
    near = natix_row(100, gps=natix_row(4)["gps"])  # same place as train rows 4 and 5, another video
    same = natix_row(101, image=natix_row(8)["image"])  # same picture as train row 8
    write_shard(tmp_path / "d" / "test-0.parquet", [near, same])
    loaded = load(tmp_path / "d")
    assert [problem.row_id for problem in loaded.report.dropped] == [
        "train-0:4",
        "train-0:5",
        "train-0:8",
        "train-0:9",
    ]
    assert loaded.near_duplicates == [("train-0:8", "test-0:1")]
    kept = load(tmp_path / "d", near_duplicates=False)
    assert [problem.row_id for problem in kept.report.dropped] == ["train-0:4", "train-0:5"]

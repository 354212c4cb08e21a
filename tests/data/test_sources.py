from collections.abc import Callable
from pathlib import Path

import pytest

from natix_roadwork.data.sources import find_source


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_shards_by_their_names(tmp_path: Path) -> None:
    source = find_source(str(_touch(tmp_path, "train-1.parquet", "train-0.parquet", "test-0.parquet")))
    assert (source.kind, source.layout) == ("parquet", "parquet")
    assert {split: [path.name for path in paths] for split, paths in source.files.items()} == {
        "train": ["train-0.parquet", "train-1.parquet"],
        "test": ["test-0.parquet"],
    }
    assert sorted(source.shards.values()) == ["test-0", "train-0", "train-1"]


def test_shards_in_data_and_validation_is_dev(tmp_path: Path) -> None:
    source = find_source(str(_touch(tmp_path, "data/train-0.parquet", "data/validation-0.parquet")))
    assert list(source.files) == ["train", "dev"]


def test_shards_in_split_folders_have_unique_names(tmp_path: Path) -> None:
    source = find_source(str(_touch(tmp_path, "train/0000.parquet", "test/0000.parquet")))
    assert sorted(source.shards.values()) == ["test/0000", "train/0000"]


def test_shards_by_glob_and_by_file(tmp_path: Path) -> None:
    _touch(tmp_path, "train-0.parquet", "train-1.parquet", "test-0.parquet")
    assert list(find_source(f"{tmp_path}/train-*.parquet").files) == ["train"]
    assert list(find_source(f"{tmp_path}/test-0.parquet").files) == ["test"]


def test_shards_that_share_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="share a name"):
        find_source(str(_touch(tmp_path, "train-0.parquet", "data/train-0.parquet")))


def test_shard_of_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot tell the split of rows\.parquet"):
        find_source(str(_touch(tmp_path, "rows.parquet")))


def test_imagefolder_alone_and_with_splits(tmp_path: Path) -> None:
    alone = find_source(str(_touch(tmp_path / "a", "metadata.jsonl", "x.jpg")))
    assert (alone.kind, list(alone.files)) == ("imagefolder", ["train"])
    split = find_source(
        str(_touch(tmp_path / "b", "test/metadata.jsonl", "train/metadata.jsonl", "val/metadata.jsonl"))
    )
    assert list(split.files) == ["train", "dev", "test"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "is empty"),
        (("notes.txt",), r"holds notes\.txt"),
        (("a.jpg", "b.jpg"), "2 photos"),
        (("metadata.jsonl", "train-0.parquet"), "both parquet shards"),
        (("metadata.jsonl", "dev/metadata.jsonl"), "of its own"),
        (("dev/metadata.jsonl", "train/a.jpg"), "'train' has no metadata"),
        (("val/metadata.jsonl", "dev/metadata.jsonl"), "two dev folders"),
    ],
)
def test_folders_that_fit_nothing(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        find_source(str(_touch(tmp_path, *names)))


def test_typo_names_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "street_photos").mkdir()
    with pytest.raises(ValueError, match=r"no such folder \(nearest: '.*street_photos'\)"):
        find_source(str(tmp_path / "street_photo"))


@pytest.mark.parametrize("name", ["", "  "])
def test_empty_name(name: str) -> None:
    with pytest.raises(ValueError, match="dataset_name is empty"):
        find_source(name)


def test_glob_without_a_match(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="matches no file"):
        find_source(f"{tmp_path}/*.parquet")


def test_a_file_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a file"):
        find_source(str(_touch(tmp_path, "photo.jpg") / "photo.jpg"))


def test_revision_of_a_local_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="revision='main' is for Hub data sets"):
        find_source(str(_touch(tmp_path, "train-0.parquet")), revision="main")


def test_unknown_hub_id_says_what_was_looked_for() -> None:
    with pytest.raises(ValueError, match=r"'nobody/nothing': there is no such folder, and the Hub data set at .*'v1'"):
        find_source("nobody/nothing", revision="v1")


def test_hub_id_from_a_filled_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_hub_cache: Callable[[Path, str, Path], Path]
) -> None:
    repository = _touch(tmp_path / "files", "data/train-0.parquet", "data/test-0.parquet")
    snapshot = fill_hub_cache(tmp_path / "hub", "someone/roadwork", repository)
    source = find_source("someone/roadwork")
    assert (source.kind, source.layout, list(source.files)) == ("hub", "parquet", ["train", "test"])
    assert source.commit == snapshot.name

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from natix_roadwork.data import normalise
from natix_roadwork.data.dataset import ROW_COLUMNS, LoadedRows, load_rows


Row = Callable[..., dict[str, Any]]
Writer = Callable[..., Path]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LoadedRows]:
    def load(name: Path | str, **options: Any) -> LoadedRows:
        return load_rows(str(name), cache_dir=str(tmp_path / "cache"), **options)

    return load


@pytest.fixture
def caching() -> Iterator[None]:
    datasets.enable_caching()
    yield
    datasets.disable_caching()


def _all_rows(loaded: LoadedRows) -> list[dict[str, Any]]:
    return [row for dataset in loaded.splits.values() for row in dataset]


def test_natix_shards_become_rows(natix_folder: Path, load: Callable[..., LoadedRows]) -> None:
    loaded = load(natix_folder)
    assert set(loaded.splits) == {"train", "dev", "test"}
    assert all(dataset.column_names == ROW_COLUMNS for dataset in loaded.splits.values())
    rows = {row["row_id"]: row for row in _all_rows(loaded)}
    row = rows["train-00001-of-00002:1"]
    assert (row["latitude"], row["longitude"]) == (39.77160604, -86.18823935)
    assert (row["weather"], row["daytime"], row["scene"]) == (["Sunny", "Clear"], ["Light"], ["Urban"])
    assert (row["label"], row["text"], row["city"]) == (1, "Cones close the right lane.", "indianapolis")
    assert (row["video_id"], row["sequence_id"], row["group"]) == ("v7", "7", "video:v7")
    assert rows["train-00000-of-00002:0"]["text"] == ""
    assert loaded.source == "parquet"
    assert loaded.lockbox


def test_photos_stay_encoded(natix_folder: Path, load: Callable[..., LoadedRows], photo: Callable[..., bytes]) -> None:
    rows = {row["row_id"]: row for row in _all_rows(load(natix_folder))}
    assert rows["train-00001-of-00002:3"]["image"]["bytes"] == photo(seed=17)


def test_row_ids_are_unique_and_all_rows_are_there(natix_folder: Path, load: Callable[..., LoadedRows]) -> None:
    row_ids = [row["row_id"] for row in _all_rows(load(natix_folder))]
    assert len(set(row_ids)) == len(row_ids) == 30


def test_dev_takes_whole_groups_with_both_classes(natix_folder: Path, load: Callable[..., LoadedRows]) -> None:
    splits = load(natix_folder, dev_share=0.25).splits
    assert len(splits["dev"]) == 6
    assert set(splits["dev"]["label"][:]) == set(splits["train"]["label"][:]) == {0, 1}
    assert not set(splits["dev"]["group"][:]) & set(splits["train"]["group"][:])
    assert set(splits["dev"]["split"][:]) == {"dev"}


def test_seed_moves_the_dev_rows_and_the_fingerprint(natix_folder: Path, load: Callable[..., LoadedRows]) -> None:
    first, again, other = load(natix_folder), load(natix_folder), load(natix_folder, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.splits["dev"]["row_id"][:] == again.splits["dev"]["row_id"][:] != other.splits["dev"]["row_id"][:]


def test_hub_data_set_equals_its_files(
    natix_folder: Path, tmp_path: Path, load: Callable[..., LoadedRows], fill_hub_cache: Callable[..., Path]
) -> None:
    snapshot = fill_hub_cache(tmp_path / "hub", "someone/roadwork", natix_folder)
    loaded = load("someone/roadwork")
    assert (loaded.source, loaded.lockbox) == ("hub", True)
    local = load(natix_folder)
    assert loaded.fingerprint == local.fingerprint
    assert (loaded.commit, local.commit) == (snapshot.name, None)
    assert load("someone/roadwork", revision=snapshot.name).commit == snapshot.name


def test_bad_rows_are_dropped_and_named(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows], photo: Callable[..., bytes]
) -> None:
    rows = [natix_row(n) for n in range(12)]
    rows[1]["label"] = 7
    rows[2]["image"] = {"bytes": b"", "path": "empty.jpg"}
    rows[3]["image"] = {"bytes": photo()[:300], "path": "cut.jpg"}
    rows[4]["image"] = {"bytes": None, "path": None}
    rows[5]["label"] = None
    rows[6]["image"] = {"bytes": photo(70, 70), "path": "big.jpg"}
    write_shard(tmp_path / "d" / "train-0.parquet", rows)
    report = load(tmp_path / "d", max_megapixels=0.0048, dev_share=0.4).report
    assert [(p.row_id, p.column) for p in report.dropped] == [
        ("train-0:1", "label"),
        ("train-0:2", "image"),
        ("train-0:3", "image"),
        ("train-0:4", "image"),
        ("train-0:5", "label"),
        ("train-0:6", "image"),
    ]
    assert report.num_read == report.num_kept + len(report.dropped) == 12
    assert "70x70" in report.summary(max_examples=10)


def test_wrong_values_are_named_and_the_row_is_kept(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows]
) -> None:
    rows = [natix_row(n) for n in range(12)]
    rows[3] |= {"gps": "[-86.2, 239.0]", "scene_level_tags.weather": "['Sunny'", "width": 1920, "height": 1080}
    write_shard(tmp_path / "d" / "train-0.parquet", rows)
    loaded = load(tmp_path / "d")
    row = next(row for row in _all_rows(loaded) if row["row_id"] == "train-0:3")
    assert math.isnan(row["latitude"])
    assert (row["weather"], row["width"], row["height"]) == ([], 64, 48)
    found = [(p.row_id, p.column, p.value, p.dropped) for p in loaded.report.problems]
    assert found == [
        ("train-0:3", "gps", "[-86.2, 239.0]", False),
        ("train-0:3", "scene_level_tags.weather", "['Sunny'", False),
        ("train-0:3", "width", "1920x1080", False),
    ]
    assert loaded.report.num_kept == 12


def test_train_rows_of_a_lockbox_video_are_dropped(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows]
) -> None:
    write_shard(tmp_path / "d" / "train-0.parquet", [natix_row(n) for n in range(16)])
    write_shard(tmp_path / "d" / "test-0.parquet", [natix_row(n) for n in (4, 100)])
    loaded = load(tmp_path / "d")
    assert [(p.row_id, p.value, p.reason) for p in loaded.report.dropped] == [
        ("train-0:4", "video:v2", "rows of this group are in test"),
        ("train-0:5", "video:v2", "rows of this group are in test"),
    ]
    groups = [set(dataset["group"][:]) for dataset in loaded.splits.values()]
    assert sum(len(names) for names in groups) == len(set.union(*groups))


@pytest.mark.parametrize("name", ["a[1]", "with space", "ü{x}", "a?*"])
def test_folder_names_with_special_characters(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows], name: str
) -> None:
    write_shard(tmp_path / name / "train-0.parquet", [natix_row(n) for n in range(12)])
    write_shard(tmp_path / "ax" / "train-0.parquet", [natix_row(n) for n in range(12)])
    assert load(tmp_path / name).report.num_kept == 12


def test_missing_column_names_the_nearest(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows]
) -> None:
    features = datasets.Features({"image": datasets.Image(), "labels": datasets.Value("int64")})
    write_shard(tmp_path / "d" / "train-0.parquet", [{"image": natix_row(0)["image"], "labels": 0}], features)
    with pytest.raises(ValueError, match=r"train-0\.parquet: there is no column 'label' \(nearest: 'labels'\)"):
        load(tmp_path / "d")


def test_absent_and_unknown_columns_are_reported(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows]
) -> None:
    columns = {"image": datasets.Image(), "label": datasets.Value("int64"), "lattitude": datasets.Value("float64")}
    rows = [{"image": natix_row(n)["image"], "label": n % 2, "lattitude": 1.0} for n in range(8)]
    write_shard(tmp_path / "d" / "train-0.parquet", rows, datasets.Features(columns))
    report = load(tmp_path / "d").report
    assert report.unused_columns == ["lattitude"]
    assert "gps" in report.missing_columns


def test_shards_with_different_columns_are_refused(
    natix_folder: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows]
) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    write_shard(natix_folder / "data" / "train-2.parquet", [{"image": natix_row(0)["image"], "label": 0}], features)
    with pytest.raises(ValueError, match=r"train-2\.parquet and .* have different columns"):
        load(natix_folder)


def test_file_that_is_no_parquet_is_named(tmp_path: Path, load: Callable[..., LoadedRows]) -> None:
    (tmp_path / "train-0.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"train-0\.parquet cannot be read as parquet"):
        load(tmp_path)


def test_one_class_is_refused_with_counts(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows]
) -> None:
    write_shard(tmp_path / "d" / "train-0.parquet", [natix_row(n, label=1) for n in range(8)])
    with pytest.raises(ValueError, match="8 Roadwork and 0 None rows"):
        load(tmp_path / "d")
    write_shard(tmp_path / "d" / "dev-0.parquet", [natix_row(n) for n in range(50, 54)])
    with pytest.raises(ValueError, match=r"'train' has 8 Roadwork \(1\) and 0 None"):
        load(tmp_path / "d")


def test_imagefolder_with_splits(tmp_path: Path, write_imagefolder: Writer, load: Callable[..., LoadedRows]) -> None:
    for split in ("train", "dev", "test"):
        rows = [{"file_name": f"{n}.jpg", "label": ("None", "Roadwork")[n % 2], "boxes": []} for n in range(4)]
        write_imagefolder(tmp_path / "f" / split, rows)
    loaded = load(tmp_path / "f")
    assert {split: len(dataset) for split, dataset in loaded.splits.items()} == {"train": 4, "dev": 4, "test": 4}
    assert not loaded.lockbox
    assert loaded.report.unused_columns == ["boxes"]
    assert loaded.splits["test"][1]["row_id"] == "test/1.jpg"
    assert loaded.splits["test"][1]["label"] == 1


def test_imagefolder_with_optional_keys(
    tmp_path: Path, write_imagefolder: Writer, load: Callable[..., LoadedRows]
) -> None:
    rows = [{"file_name": f"{n}.jpg", "label": n % 2, "video_id": n // 4} for n in range(24)]
    rows[0] |= {"latitude": 39.5, "longitude": -86.25, "weather": ["Rainy"], "mask": "m.png", "group": "mine"}
    loaded = load(write_imagefolder(tmp_path / "f", rows))
    row = next(row for row in _all_rows(loaded) if row["row_id"] == "train/0.jpg")
    assert (row["latitude"], row["longitude"], row["weather"]) == (39.5, -86.25, ["Rainy"])
    assert (row["mask"], row["group"]) == (str(tmp_path / "f" / "m.png"), "mine")
    assert next(r for r in _all_rows(loaded) if r["row_id"] == "train/5.jpg")["group"] == "video:1"


def test_imagefolder_counts_what_it_dropped(
    tmp_path: Path, write_imagefolder: Writer, load: Callable[..., LoadedRows]
) -> None:
    folder = write_imagefolder(tmp_path / "f", [{"file_name": f"{n}.jpg", "label": n % 2} for n in range(20)])
    (folder / "3.jpg").unlink()
    (folder / "4.jpg").write_bytes(b"")
    (folder / "extra.jpg").touch()
    report = load(folder).report
    assert {problem.row_id for problem in report.dropped} == {"train/3.jpg", "train/4.jpg", "train/extra.jpg"}
    assert (report.num_read, report.num_kept) == (21, 18)
    assert json.loads(json.dumps(report.as_dict()))["num_dropped"] == 3


def test_folder_without_a_usable_photo(
    tmp_path: Path, write_imagefolder: Writer, load: Callable[..., LoadedRows]
) -> None:
    folder = write_imagefolder(tmp_path / "f", [{"file_name": "0.jpg", "label": 3}])
    with pytest.raises(ValueError, match=r"all 1 rows are unusable; one of them: train/0\.jpg, label='3'"):
        load(folder)
    (folder / "0.jpg").unlink()
    with pytest.raises(ValueError, match="no photo is both there and listed"):
        load(folder)


def test_unchanged_folder_is_read_from_the_cache(
    tmp_path: Path,
    write_imagefolder: Writer,
    load: Callable[..., LoadedRows],
    caching: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_imagefolder(tmp_path / "f", [{"file_name": f"{n}.jpg", "label": n % 2} for n in range(20)])
    (folder / "2.jpg").write_bytes(b"")
    first = load(folder)
    headers = []
    read_header = normalise.read_header
    monkeypatch.setattr(normalise, "read_header", lambda *a, **k: headers.append(a) or read_header(*a, **k))
    again = load(folder)
    assert not headers
    assert again.report == first.report
    (folder / "3.jpg").write_bytes(b"")
    assert len(load(folder).report.dropped) == 2
    assert len(headers) == 20


def test_changed_shard_and_settings_are_read_anew(
    tmp_path: Path, natix_row: Row, write_shard: Writer, load: Callable[..., LoadedRows], caching: None
) -> None:
    path = write_shard(tmp_path / "d" / "train-0.parquet", [natix_row(n) for n in range(12)])
    first = load(tmp_path / "d")
    assert load(tmp_path / "d").fingerprint == first.fingerprint
    write_shard(path, [natix_row(n) for n in range(14)])
    assert load(tmp_path / "d").report.num_kept == 14
    with pytest.raises(ValueError, match="all 14 rows are unusable"):
        load(tmp_path / "d", max_megapixels=0.001)


def test_street_photos_load_whole(street_photos: Path, load: Callable[..., LoadedRows]) -> None:
    report = load(street_photos).report
    assert (report.num_read, report.num_kept) == (300, 300)
    assert sum(labels["Roadwork"] for labels in report.kept.values()) == 27
    assert report.unused_columns == ["sign_boxes"]

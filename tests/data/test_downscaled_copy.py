import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from PIL import Image

from natix_roadwork.data import downscaled_copy as copying
from natix_roadwork.data.copy_state import PrepareArguments
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.downscale import downscale_photo
from natix_roadwork.data.downscaled_copy import copy_shards, downscaled_copy


Photo = Callable[..., bytes]


def _arguments(source: Path, output: Path, **options: Any) -> PrepareArguments:
    return PrepareArguments(
        str(source), str(output), **{"max_side": 32, "rows_per_group": 5, "num_workers": 2, **options}
    )


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / name).to_pylist()


def test_large_photo_shrinks_to_its_longest_side(photo: Photo) -> None:
    small = downscale_photo(photo(64, 48), max_side=32, quality=92)
    assert small.size == (32, 24)
    assert Image.open(io.BytesIO(small.data)).size == (32, 24)


def test_small_photo_keeps_its_bytes(photo: Photo) -> None:
    data = photo(64, 48)
    assert downscale_photo(data, max_side=64, quality=92).data is data


def test_orientation_is_applied_once(photo: Photo) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    small = downscale_photo(photo(64, 48, exif=exif), max_side=32, quality=92)
    again = Image.open(io.BytesIO(small.data))
    assert small.size == again.size == (24, 32)
    assert 0x0112 not in again.getexif()


def test_very_flat_photo_keeps_a_pixel(photo: Photo) -> None:
    assert downscale_photo(photo(400, 1), max_side=10, quality=92).size == (10, 1)


@pytest.mark.parametrize("data", [b"", b"no photo"])
def test_unreadable_photo_keeps_its_bytes_and_says_why(data: bytes) -> None:
    result = downscale_photo(data, max_side=32, quality=92)
    assert result.data == data
    assert result.problem


def test_shards_keep_names_rows_and_columns(natix_folder: Path, tmp_path: Path) -> None:
    report = downscaled_copy(_arguments(natix_folder, tmp_path / "copy"))
    assert (report.shrunk, report.unchanged) == (30, 0)
    for path in (natix_folder / "data").iterdir():
        old, new = _rows(path.parent, path.name), _rows(tmp_path / "copy", path.name)
        assert pq.read_schema(path).equals(pq.read_schema(tmp_path / "copy" / path.name), check_metadata=True)
        assert {(row["width"], row["height"]) for row in new} == {(32, 24)}
        changed = {"image": None, "width": 0, "height": 0}
        assert [row | changed for row in old] == [row | changed for row in new]
        assert [row["image"]["path"] for row in old] == [row["image"]["path"] for row in new]


def test_copy_loads_with_the_same_row_ids(natix_folder: Path, tmp_path: Path) -> None:
    downscaled_copy(_arguments(natix_folder, tmp_path / "copy"))
    old, new = (load_rows(str(f), cache_dir=str(tmp_path / "c")) for f in (natix_folder, tmp_path / "copy"))
    assert {s: d["row_id"][:] for s, d in old.splits.items()} == {s: d["row_id"][:] for s, d in new.splits.items()}
    assert not new.report.problems
    assert new.splits["train"]["width"][:] == [32] * len(new.splits["train"])


def test_small_and_damaged_rows_stay_as_they_are(
    tmp_path: Path, natix_row: Callable[..., dict[str, Any]], write_shard: Callable[..., Path], photo: Photo
) -> None:
    rows = [natix_row(n) for n in range(3)]
    rows[0] |= {"image": {"bytes": photo(20, 20), "path": "s.jpg"}, "width": 999}
    rows[1]["image"] = {"bytes": b"broken", "path": "b.jpg"}
    write_shard(tmp_path / "d" / "train-0.parquet", rows)
    report = downscaled_copy(_arguments(tmp_path / "d", tmp_path / "copy"))
    assert _rows(tmp_path / "copy", "train-0.parquet")[:2] == rows[:2]
    assert len(report.unreadable) == 1
    assert report.unreadable[0].startswith("train-0:1: ")


def test_stopped_copy_goes_on_without_a_half_shard(
    natix_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _arguments(natix_folder, tmp_path / "copy")
    photos = 0

    def stop(data: bytes, arguments: PrepareArguments) -> object:
        nonlocal photos
        photos += 1
        if photos > 20:
            raise KeyboardInterrupt
        return shrink(data, arguments)

    shrink = copying._shrink
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(copying, "_shrink", stop)
        downscaled_copy(arguments)
    assert sorted(p.name for p in (tmp_path / "copy").glob("*.parquet")) == ["train-00000-of-00002.parquet"]
    assert downscaled_copy(arguments).files_already_there == 1
    assert not list((tmp_path / "copy").glob("*.partial"))
    downscaled_copy(_arguments(natix_folder, tmp_path / "whole"))
    for path in (tmp_path / "whole").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "copy" / path.name).read_bytes()


def test_folder_of_other_settings_is_refused(natix_folder: Path, tmp_path: Path) -> None:
    downscaled_copy(_arguments(natix_folder, tmp_path / "copy"))
    with pytest.raises(ValueError, match="max_side: 32 there, 40 now"):
        downscaled_copy(_arguments(natix_folder, tmp_path / "copy", max_side=40))


def test_folder_with_something_else_is_refused(natix_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="is not empty"):
        downscaled_copy(_arguments(natix_folder, tmp_path))


def test_shards_of_another_file_system(natix_folder: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    name = "train-00000-of-00002.parquet"
    files.pipe(f"/roadwork/{name}", (natix_folder / "data" / name).read_bytes())
    with ThreadPoolExecutor(2) as pool:
        arguments = _arguments(Path("unused"), tmp_path / "copy")
        report = copy_shards("memory://roadwork", [f"/roadwork/{name}"], tmp_path / "copy", arguments, pool)
    assert report.shrunk == len(_rows(tmp_path / "copy", name)) == 14


def test_imagefolder_keeps_layout_problems_and_keys(
    tmp_path: Path, write_imagefolder: Callable[..., Path], photo: Photo
) -> None:
    rows = [{"file_name": f"a/{n}.jpg", "label": n % 2, "boxes": [[1, 2, 3, 4]]} for n in range(12)]
    rows[1] |= {"width": 64, "height": 48}
    folder = write_imagefolder(tmp_path / "f" / "train", rows)
    with open(folder / "metadata.jsonl", "a") as file:
        file.write("not json\n")
    (folder / "mask.png").write_bytes(photo(90, 90, format="PNG"))
    (folder / "extra.jpg").write_bytes(photo())
    downscaled_copy(_arguments(tmp_path / "f", tmp_path / "copy"))
    lines = (tmp_path / "copy" / "train" / "metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == rows[1] | {"width": 32, "height": 24}
    assert lines[2:] == (folder / "metadata.jsonl").read_text().splitlines()[2:]
    old, new = (load_rows(str(f), cache_dir=str(tmp_path / "c")).report for f in (tmp_path / "f", tmp_path / "copy"))
    assert [p.row_id for p in old.problems] == [p.row_id for p in new.problems]


@pytest.mark.parametrize("options", [{"max_side": 0}, {"quality": 101}, {"rows_per_group": 0}, {"num_workers": -1}])
def test_arguments_out_of_range(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        _arguments(tmp_path, tmp_path, **options)


def test_hub_data_set_out_of_reach_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the Hub data set cannot be reached"):
        downscaled_copy(_arguments(Path("nobody/nothing"), tmp_path / "copy"))

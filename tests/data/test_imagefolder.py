import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_roadwork.data.imagefolder import imagefolder_rows, scan_imagefolder


Writer = Callable[[Path, list[dict[str, Any]]], Path]


@pytest.fixture
def folder(tmp_path: Path, write_imagefolder: Writer) -> Path:
    return write_imagefolder(tmp_path / "photos", [{"file_name": f"{n}.jpg", "label": n % 2} for n in range(4)])


def _add(folder: Path, line: str | dict[str, Any]) -> None:
    with open(folder / "metadata.jsonl", "a") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")


def _problems(folder: Path) -> list[tuple[str, str]]:
    return [(problem.row_id, problem.reason) for problem in scan_imagefolder(folder, "train").problems]


def test_complete_folder_has_no_problem(folder: Path) -> None:
    scan = scan_imagefolder(folder, "train")
    assert list(scan.records) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert not scan.problems
    assert scan.num_read == 4


def test_unlisted_photo_is_named_and_counted(folder: Path) -> None:
    (folder / "deeper").mkdir()
    (folder / "deeper" / "extra.PNG").touch()
    assert _problems(folder) == [("train/deeper/extra.PNG", "the photo is not listed in metadata.jsonl")]
    assert scan_imagefolder(folder, "train").num_read == 5


def test_listed_photo_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "2.jpg").unlink()
    assert _problems(folder) == [("train/2.jpg", "the metadata names a photo that is not there")]
    assert "2.jpg" not in scan_imagefolder(folder, "train").records


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "a\u0000.jpg"])
def test_path_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret.jpg").touch()
    _add(folder, {"file_name": name, "label": 1})
    ((row_id, reason),) = _problems(folder)
    assert row_id == "train/metadata.jsonl:5"
    assert "leaves the folder" in reason


@pytest.mark.parametrize("line", ["{not json", "[1, 2]", '{"label": 1}', '"text"', '{"file_name": 5}'])
def test_wrong_line_is_named_by_number(folder: Path, line: str) -> None:
    _add(folder, "\n" + line)
    ((row_id, reason),) = _problems(folder)
    assert row_id == "train/metadata.jsonl:6"
    assert "JSON" in reason


@pytest.mark.parametrize("line", [b'{"file_name": "\xff.jpg"}', b'{"file_name": "\\ud800.jpg"}', b"[" * 100_000])
def test_line_that_is_no_text_is_named(folder: Path, line: bytes) -> None:
    with open(folder / "metadata.jsonl", "ab") as file:
        file.write(line)
    ((row_id, reason),) = _problems(folder)
    assert row_id == "train/metadata.jsonl:5"
    assert "JSON in UTF-8" in reason


def test_name_that_is_no_text_can_be_reported(folder: Path) -> None:
    with open(bytes(folder) + b"/\xff.jpg", "wb"):
        pass
    ((row_id, _),) = _problems(folder)
    row_id.encode()


def test_photo_listed_again_keeps_its_first_line(folder: Path) -> None:
    _add(folder, {"file_name": "./1.jpg", "label": "Roadwork"})
    assert _problems(folder) == [("train/1.jpg", "the photo is listed again; its first line is kept")]
    assert scan_imagefolder(folder, "train").records["1.jpg"]["label"] == 1


def test_photo_listed_with_two_labels_is_dropped(folder: Path) -> None:
    _add(folder, {"file_name": "1.jpg", "label": 0})
    scan = scan_imagefolder(folder, "train")
    assert "1.jpg" not in scan.records
    assert len(scan.problems) == 2
    assert scan.num_read == len(scan.records) + len(scan.problems) == 5


def test_mask_is_no_unlisted_photo(folder: Path) -> None:
    (folder / "mask.png").touch()
    (folder / "4.jpg").touch()
    _add(folder, {"file_name": "4.jpg", "label": 0, "mask": "mask.png"})
    assert not _problems(folder)


def test_signature_follows_photos_and_metadata(folder: Path) -> None:
    first = scan_imagefolder(folder, "train").signature
    assert scan_imagefolder(folder, "train").signature == first
    (folder / "1.jpg").write_bytes(b"other")
    second = scan_imagefolder(folder, "train").signature
    _add(folder, {"file_name": "1.jpg", "label": 1, "city": "x"})
    assert second != first


def test_folder_that_changed_while_read_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="changed while it was being read"):
        list(imagefolder_rows(str(folder), "train", "another signature"))


def test_rows_keep_the_path_and_not_the_bytes(folder: Path) -> None:
    signature = scan_imagefolder(folder, "dev").signature
    row = next(imagefolder_rows(str(folder), "dev", signature))
    assert row["image"] == {"bytes": None, "path": str(folder / "0.jpg")}
    assert row["row_id"] == "dev/0.jpg"

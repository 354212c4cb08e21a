"""Every mask is looked for and read once, and what is wrong with one is said before the first epoch."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from natix_roadwork.data import mask_source
from natix_roadwork.data.mask_source import find_masks
from natix_roadwork.data.masks import mask_path, record_path
from tests.masks import masked_rows, shapes


NUM_ROWS = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "masks"


@pytest.fixture
def rows(folder: Path) -> Dataset:
    return masked_rows(NUM_ROWS, folder)


def with_own_masks(rows: Dataset, own: dict[int, Path | str]) -> Dataset:
    return rows.remove_columns("mask").add_column("mask", [str(own.get(row, "")) for row in range(len(rows))])


def spoil(folder: Path) -> dict[str, str]:
    """Damage the masks of four rows, each in another way; returns the reasons."""
    places = {row: mask_path(folder, f"row:{row}") for row in (0, 2, 4, 6)}
    places[0].write_bytes(places[0].read_bytes()[:-40])
    Image.fromarray(shapes(119, 90)).save(places[2])
    Image.fromarray(np.full((90, 120), 64, np.uint8)).save(places[4])
    record_path(places[6]).write_text("{")
    return {"row:0": "damaged", "row:2": "wrong size", "row:4": "unknown class", "row:6": "damaged record"}


def test_masks_of_the_folder_are_those_of_rows_without_their_own(rows: Dataset, folder: Path) -> None:
    own = folder / "own.png"
    Image.fromarray(np.full((90, 120), 0b100000, np.uint8)).save(own)
    masks = find_masks({"train": with_own_masks(rows, {0: own, 1: own})}, 16, str(folder))
    assert sorted(masks.paths) == ["row:0", "row:1", "row:2", "row:4", "row:6"]
    assert (masks.read("row:0", (120, 90)).bits == 0b100000).all(), "its own mask comes before the folder's"
    assert (masks.read("row:2", (120, 90)).bits == shapes(120, 90, seed=2)).all()
    assert masks.read("row:2", (120, 90)).known.tolist() == [True] * 4 + [False] * 2
    assert masks.read("row:3", (120, 90)) is None
    assert masks.summary() == "5 rows with a mask, 3 without"


def test_bad_masks_are_refused_with_a_list(rows: Dataset, folder: Path) -> None:
    reasons, own = spoil(folder), {1: folder / "gone.png"}
    with pytest.raises(ValueError, match="0 rows with a mask, 3 without") as error:
        find_masks({"train": with_own_masks(rows, own)}, 16, str(folder))
    text = str(error.value)
    assert all(f"1 {reason}" in text for reason in [*reasons.values(), "missing"])
    assert all(f"row {row_id!r}: mask" in text for row_id in reasons) and "gone.png is missing" in text
    assert "--bad_masks ignore" in text


def test_ignored_bad_masks_are_named_and_unknown(
    rows: Dataset, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("natix_roadwork"), "propagate", True)
    reasons = spoil(folder)
    Image.fromarray(shapes(120, 90)).save(mask_path(folder, "row:7"))
    with caplog.at_level("WARNING"):
        masks = find_masks({"train": rows}, 16, str(folder), "ignore")
    assert {one.row_id: one.reason for one in masks.bad} == reasons and list(masks.paths) == ["row:7"]
    assert masks.read("row:2", (120, 90)) is None
    assert all(any(f"{row_id!r}" in line and "unknown" in line for line in caplog.messages) for row_id in reasons)
    assert masks.as_dict() == {"rows": 8, "with_mask": 1, "bad": dict.fromkeys(reasons.values(), 1)}


def test_no_mask_at_all_is_an_error_where_they_are_required(rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no row has a usable mask .*0 rows with a mask, 8 without"):
        find_masks({"train": rows}, 16)
    assert not find_masks({"train": rows}, 16, required=False).paths
    with pytest.raises(ValueError, match=r"is no folder; recipes/pseudo_masks\.py writes one"):
        find_masks({"train": rows}, 16, str(tmp_path / "nowhere"))


def test_a_mask_that_changes_later_is_named(rows: Dataset, folder: Path) -> None:
    masks = find_masks({"train": rows}, 16, str(folder))
    mask_path(folder, "row:4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"row 'row:4': mask .*row%3A4_seg_mask\.png cannot be read"):
        masks.read("row:4", (120, 90))


def test_fingerprint_changes_with_any_mask_and_record(rows: Dataset, folder: Path) -> None:
    masks = find_masks({"train": rows}, 16, str(folder))
    known = {masks.fingerprint(rows), masks.fingerprint(rows.select(range(7)))}
    place = mask_path(folder, "row:4")
    bits = np.array(Image.open(place))
    bits[3, 3] ^= 1
    Image.fromarray(bits).save(place)
    known.add(masks.fingerprint(rows))
    record = json.loads(record_path(place).read_text())
    record_path(place).write_text(json.dumps(record | {"classes": ["cone"]}))
    known.add(masks.fingerprint(rows))
    known.add(find_masks({"train": rows}, 16, required=False).fingerprint(rows))
    assert len(known) == 5


def test_processes_share_the_reading_and_agree(rows: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons, read, found = spoil(folder), [], {}
    check = mask_source._check
    monkeypatch.setattr(mask_source, "_check", lambda item: read.append(item[0]) or check(item))
    for rank in (0, 1):  # what each finds, then what both know
        monkeypatch.setattr(mask_source, "gather_object", lambda bad, rank=rank: found.setdefault(rank, bad))
        state = SimpleNamespace(process_index=rank, num_processes=2)
        find_masks({"train": rows}, 16, str(folder), "ignore", required=False, state=state)
    assert sorted(read) == sorted(reasons), "each mask is read once"
    monkeypatch.setattr(mask_source, "gather_object", lambda _: found[1] + found[0])
    masks = find_masks({"train": rows}, 16, str(folder), "ignore", required=False, state=state)
    assert {one.row_id: one.reason for one in masks.bad} == reasons

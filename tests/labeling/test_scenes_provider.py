"""The drawn scenes' own masks, and every way in which one can be wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.data.masks import MaskError, write_mask
from natix_roadwork.labeling.scenes_provider import ScenesProvider
from tests.marked_photos import SIZE, mask_of


PHOTO = np.zeros((*SIZE[::-1], 3), np.uint8)


def row_with(mask: Path | str) -> dict[str, object]:
    return {"row_id": "train/1.png", "mask": str(mask), "image": {"path": "000001.jpg", "bytes": b""}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(mask_of(1)).save(tmp_path / "000001_seg_mask.png")
    return tmp_path


@pytest.mark.parametrize("mask", ["", "000001_seg_mask.png"], ids=["folder", "column"])
def test_the_mask_is_carried_over_piece_by_piece(folder: Path, mask: str) -> None:
    found = ScenesProvider(folder).find(row_with(folder / mask if mask else ""), PHOTO)
    assert np.array_equal(found.bits(*SIZE), mask_of(1))
    assert [(one.kind, one.box, one.area) for one in found.objects] == [
        ("barrier", (5, 5, 25, 25), 400),
        ("sign", (10, 20, 50, 40), 800),
    ]


def test_pieces_that_do_not_touch_are_objects_of_their_own(folder: Path) -> None:
    bits = np.zeros(SIZE[::-1], np.uint8)
    bits[2:4, 2:4] = bits[4, 4] = bits[10:12, 2:4] = 1
    Image.fromarray(bits).save(folder / "000001_seg_mask.png")
    found = ScenesProvider(folder).find(row_with(""), PHOTO)
    assert [one.box for one in found.objects] == [(2, 2, 5, 5), (2, 10, 4, 12)]


@pytest.mark.parametrize(
    ("bits", "reason"),
    [
        (None, "missing"),
        (np.zeros((10, 10), np.uint8), "wrong size"),
        (np.full(SIZE[::-1], 64, np.uint8), "unknown class"),
        (np.zeros((*SIZE[::-1], 3), np.uint8), "wrong format"),
        (b"no picture", "damaged"),
    ],
    ids=["missing", "size", "class", "format", "damaged"],
)
def test_wrong_masks_are_named_by_row_and_reason(folder: Path, bits: np.ndarray | bytes | None, reason: str) -> None:
    path = folder / "000001_seg_mask.png"
    path.unlink()
    if isinstance(bits, bytes):
        path.write_bytes(bits)
    elif bits is not None:
        Image.fromarray(bits).save(path)
    with pytest.raises(MaskError, match=r"row 'train/1.png': mask .*000001_seg_mask.png") as error:
        ScenesProvider(folder).find(row_with(""), PHOTO)
    assert error.value.reason == reason


def test_a_mask_that_does_not_know_every_class_is_refused(tmp_path: Path) -> None:
    path = write_mask(tmp_path, "1", mask_of(0), {"classes": ["cone"]})
    with pytest.raises(MaskError, match="does not know all classes"):
        ScenesProvider(tmp_path).find(row_with(path), PHOTO)


def test_without_any_masks_it_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"provider=scenes: no row names a mask .* and there is no folder '.*/masks'"):
        ScenesProvider(tmp_path / "masks")

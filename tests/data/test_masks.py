"""Mask files: bit for bit, atomic, and clear about what is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.data.masks import (
    MaskError,
    class_areas,
    mask_path,
    pack,
    read_mask,
    read_record,
    record_path,
    unpack,
    write_mask,
)
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


@pytest.fixture
def bits() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 64, (30, 40), dtype=np.uint8)


def test_packing_is_undone_by_unpacking(bits: np.ndarray) -> None:
    planes = unpack(bits)
    assert planes.shape == (6, 30, 40)
    assert (planes[2] == ((bits >> 2) & 1).astype(bool)).all()
    assert (pack(planes) == bits).all()


def test_areas_count_each_class(bits: np.ndarray) -> None:
    assert class_areas(bits) == dict(zip(MASK_CLASSES, unpack(bits).sum(axis=(1, 2)).tolist(), strict=True))


def test_a_mask_comes_back_with_its_record(tmp_path: Path, bits: np.ndarray) -> None:
    path = write_mask(tmp_path, "train/street 1.jpg", bits, {"provider": "human", "classes": ["cone", "sign"]})
    assert path == tmp_path / "train" / "street 1.jpg_seg_mask.png"
    mask = read_mask(path, (40, 30))
    assert (mask.bits == bits).all()
    assert mask.known.tolist() == [True, False, True, False, False, False]
    assert (mask.channels == unpack(bits)).all()
    record = read_record(path)
    assert (record["row_id"], record["size"], record["provider"]) == ("train/street 1.jpg", [40, 30], "human")


def test_a_mask_without_a_record_knows_every_class(tmp_path: Path, bits: np.ndarray) -> None:
    Image.fromarray(bits).save(tmp_path / "000001_seg_mask.png")
    assert read_mask(tmp_path / "000001_seg_mask.png").known.all()


def test_row_ids_become_safe_file_names(tmp_path: Path) -> None:
    assert mask_path(tmp_path, "train-0.parquet:12").name == "train-0.parquet%3A12_seg_mask.png"
    assert mask_path(tmp_path, "a%3A") != mask_path(tmp_path, "a:")
    for row_id in ("../outside", "a//b", "", "a/."):
        with pytest.raises(ValueError, match="names no file below"):
            mask_path(tmp_path, row_id)


def test_the_record_lies_beside_the_mask(tmp_path: Path) -> None:
    assert record_path(tmp_path / "a.jpg_seg_mask.png") == tmp_path / "a.jpg_seg_mask.json"
    assert record_path(tmp_path / "other.png") == tmp_path / "other_seg_mask.json"


def test_bad_masks_are_named(tmp_path: Path, bits: np.ndarray) -> None:
    path = write_mask(tmp_path, "a", bits, {})
    with pytest.raises(MaskError, match=r"a_seg_mask.png is 40x30, its upright photo 30x40") as caught:
        read_mask(path, (30, 40))
    assert caught.value.reason == "wrong size"
    with pytest.raises(MaskError, match=r"b_seg_mask.png is missing"):
        read_mask(tmp_path / "b_seg_mask.png")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MaskError, match=r"cannot be read") as caught:
        read_mask(path)
    assert caught.value.reason == "damaged"
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(MaskError, match="has mode RGB"):
        read_mask(path)


@pytest.mark.parametrize("seed", range(40))
def test_a_single_wrong_bit_is_noticed(tmp_path: Path, bits: np.ndarray, seed: int) -> None:
    path = write_mask(tmp_path, "a", bits, {})
    data = bytearray(path.read_bytes())
    draw, start = np.random.default_rng(seed), data.index(b"IDAT") + 4
    data[int(draw.integers(start, len(data) - 16))] ^= 1 << int(draw.integers(8))
    path.write_bytes(data)
    with pytest.raises(MaskError, match="cannot be read") as caught:
        read_mask(path)
    assert caught.value.reason == "damaged"


def test_a_png_without_pixels_is_damaged(tmp_path: Path, bits: np.ndarray) -> None:
    path = write_mask(tmp_path, "a", bits, {})
    data = path.read_bytes()
    start = data.index(b"IDAT") - 4
    path.write_bytes(data[:start] + data[data.index(b"IEND") - 4 :])
    with pytest.raises(MaskError, match="cannot be read"):
        read_mask(path)


def test_unknown_classes_are_named(tmp_path: Path, bits: np.ndarray) -> None:
    bits[3, 7] = 64
    with pytest.raises(MaskError, match="pixel at column 7, row 3 is 64; bits 6 and above are no class"):
        write_mask(tmp_path, "a", bits, {})
    Image.fromarray(bits).save(tmp_path / "a_seg_mask.png")
    with pytest.raises(MaskError, match="column 7, row 3"):
        read_mask(tmp_path / "a_seg_mask.png")
    with pytest.raises(MaskError, match=r"classes=\['tram'\]"):
        write_mask(tmp_path, "b", np.zeros((2, 2), np.uint8), {"classes": ["tram"]})
    assert not (tmp_path / "b_seg_mask.png").exists()


def test_a_damaged_record_is_named(tmp_path: Path, bits: np.ndarray) -> None:
    path = write_mask(tmp_path, "a", bits, {})
    record_path(path).write_text("{")
    with pytest.raises(MaskError, match=r"a_seg_mask\.json is no JSON"):
        read_mask(path)
    record_path(path).write_text(json.dumps([]))
    with pytest.raises(MaskError, match="no JSON object"):
        read_mask(path)

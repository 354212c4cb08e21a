import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.data.masks import read_mask
from natix_roadwork.data.scene_objects import OBJECT_KINDS
from tests.semi_synthetic import compose, write_semi_synthetic


NUM_ROWS, WIDTH, HEIGHT = 7, 640, 480


def texture(seed: int) -> np.ndarray:
    """A photo of random blocks: no piece of it looks like another."""
    blocks = np.random.default_rng(seed).integers(40, 200, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of label 0 and one of label 1, which must not be used."""
    folder = tmp_path_factory.mktemp("street")
    rows = [{"file_name": f"{index}.jpg", "label": int(index == 3)} for index in range(4)]
    for index in range(4):
        Image.fromarray(texture(index)).save(folder / f"{index}.jpg", quality=95)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def written(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_semi_synthetic(street, tmp_path_factory.mktemp("out") / "photos", num_rows=NUM_ROWS, seed=5)


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_labels_are_balanced_and_say_what_was_pasted(written: Path) -> None:
    rows = rows_of(written)
    assert len(rows) == NUM_ROWS and sum(row["label"] for row in rows) == NUM_ROWS // 2
    assert all((row["kind"] in OBJECT_KINDS) == bool(row["label"]) for row in rows)


def test_only_photos_of_label_0_are_sources_and_each_is_used(written: Path) -> None:
    assert {row["video_id"] for row in rows_of(written)} == {"0", "1", "2"}


def test_same_seed_gives_the_same_bytes(street: Path, written: Path, tmp_path: Path) -> None:
    again = write_semi_synthetic(street, tmp_path / "again", num_rows=NUM_ROWS, seed=5)
    assert bytes_of(again) == bytes_of(written)
    other = write_semi_synthetic(street, tmp_path / "other", num_rows=NUM_ROWS, seed=6)
    assert bytes_of(other)["00000.jpg"] != bytes_of(written)["00000.jpg"]


def test_a_finished_folder_is_left_alone(street: Path, written: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in written.iterdir()}
    assert write_semi_synthetic(street, written, num_rows=NUM_ROWS, seed=5) == written
    assert {path: path.stat().st_mtime_ns for path in written.iterdir()} == times


def test_other_settings_replace_the_folder_whole(street: Path, tmp_path: Path) -> None:
    folder = write_semi_synthetic(street, tmp_path / "photos", num_rows=3, seed=0)
    write_semi_synthetic(street, folder, num_rows=2, seed=0)
    assert sorted(path.name for path in folder.glob("*.jpg")) == ["00000.jpg", "00001.jpg"]
    assert len(rows_of(folder)) == 2
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_both_labels_change_their_box_and_nothing_else(label: int, seed: int) -> None:
    photo = texture(0)
    picture, _, box, bits = compose(photo, texture(1), label, np.random.default_rng(seed))
    left, top, right, bottom = box
    assert 0 <= left < right <= WIDTH and 0 <= top < bottom <= HEIGHT
    changed = (picture != photo).any(axis=-1)
    assert changed[top:bottom, left:right].mean() > 0.1
    assert bits.any() == bool(label) and not bits[~changed].any()
    changed[top:bottom, left:right] = False
    assert not changed.any()


def test_masks_show_the_evidence_that_was_pasted(written: Path) -> None:
    for row in rows_of(written):
        mask = read_mask(written / row["mask"], (WIDTH, HEIGHT))
        shown = [kind for kind, plane in zip(OBJECT_KINDS, mask.channels, strict=True) if plane.any()]
        assert shown == ([row["kind"]] if row["label"] else [])


def test_negatives_are_ordinary_objects_and_cut_outs() -> None:
    kinds = {compose(texture(0), texture(1), 0, np.random.default_rng(seed))[1] for seed in range(20)}
    assert "cut_out" in kinds and len(kinds) > 2

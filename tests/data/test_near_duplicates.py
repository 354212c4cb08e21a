import io
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from natix_roadwork.data.groups import components_of
from natix_roadwork.data.near_duplicates import (
    PhotoPrints,
    embedding_pairs,
    hash_pairs,
    near_duplicate_pairs,
    photo_print,
    photo_prints,
)
from natix_roadwork.data.scene_table import SceneSettings, plan_rows
from natix_roadwork.data.scenes import draw_plan


def _jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


def _picture(seed: int, size: tuple[int, int] = (320, 240)) -> PILImage.Image:
    """Smooth random shapes, the same for a seed whatever the size."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return PILImage.fromarray(coarse).resize(size, PILImage.Resampling.BICUBIC)


def _prints(photos: list[bytes]) -> PhotoPrints:
    rows = [{"image": {"bytes": photo, "path": None}} for photo in photos]
    return photo_prints(Dataset.from_list(rows, features=Features({"image": Image(decode=False)})))


def _bits(*flipped: int) -> int:
    return sum(1 << bit for bit in flipped)


@pytest.mark.parametrize("distance", [0, 1, 5, 10, 16])
def test_hashes_pair_up_to_the_distance(distance: int) -> None:
    rng = np.random.default_rng(distance)
    base = int(rng.integers(0, 1 << 63))
    near = base ^ _bits(*rng.permutation(64)[:distance].tolist())
    far = base ^ _bits(*rng.permutation(64)[: distance + 1].tolist())
    assert hash_pairs([base, near], max_distance=distance).tolist() == [[0, 1]]
    assert hash_pairs([base, far], max_distance=distance).tolist() == []


def test_hash_pairs_agree_with_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natix_roadwork.data.near_duplicates.COMPARED_A_PASS", 100)
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 1 << 63, 40)
    hashes = np.array(
        [int(b) ^ _bits(*rng.integers(0, 64, rng.integers(0, 12)).tolist()) for b in np.repeat(bases, 5)]
    )
    hashes = np.unique(hashes.astype(np.uint64))
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = np.argwhere(np.triu(distances <= 12, 1))
    assert hash_pairs(hashes).tolist() == expected.tolist()


def test_equal_hashes_are_paired_with_the_first_only() -> None:
    assert hash_pairs(np.full(5, 7, np.uint64)).tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert hash_pairs([7, 7, 7], [True, False, True]).tolist() == [[0, 2]]
    assert hash_pairs(np.empty(0, np.uint64)).shape == (0, 2)


def test_distance_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="max_distance=65"):
        hash_pairs([1], max_distance=65)


def test_resized_recompressed_and_darkened_photos_pair() -> None:
    photos = [_jpeg(np.asarray(_picture(seed))) for seed in range(6)]
    photos.append(_jpeg(np.asarray(_picture(2, (640, 480))), quality=40))
    photos.append(_jpeg((np.asarray(_picture(4)) * 0.8).astype(np.uint8)))
    assert near_duplicate_pairs(_prints(photos)).tolist() == [[2, 6], [4, 7]]


def test_flat_and_damaged_photos_pair_with_nothing(tmp_path: Path) -> None:
    flat = _jpeg(np.full((64, 64, 3), 90, np.uint8))
    prints = _prints([flat, flat, b"nothing", b"nothing", flat[:200]])
    assert not prints.comparable.any()
    assert near_duplicate_pairs(prints).shape == (0, 2)
    assert photo_print(flat) is None
    with pytest.raises(ValueError, match="cannot be decoded"):
        photo_print(b"nothing")


def test_turned_photo_is_compared_upright(tmp_path: Path) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    picture = _picture(3)
    turned = picture.transpose(PILImage.Transpose.ROTATE_90)
    (tmp_path / "t.jpg").write_bytes(_jpeg(np.asarray(turned), exif=exif))
    upright, found = photo_print(_jpeg(np.asarray(picture))), photo_print(str(tmp_path / "t.jpg"))
    assert (upright[0] ^ found[0]).bit_count() <= 4


def test_equal_hashes_of_unlike_photos_do_not_pair() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 255, (2, 32, 48), dtype=np.uint8)
    prints = PhotoPrints(np.array([5, 5], np.uint64), thumbnails, np.array([True, True]))
    assert near_duplicate_pairs(prints).shape == (0, 2)
    assert near_duplicate_pairs(prints, min_correlation=-1.0, min_detail=-1.0).tolist() == [[0, 1]]


def test_shifted_thumbnails_pair() -> None:
    wide = np.asarray(_picture(0, (52, 32)).convert("L"))
    thumbnails = np.stack([wide[:, :48], wide[:, 2:50]])
    prints = PhotoPrints(np.array([5, 5], np.uint64), thumbnails, np.array([True, True]))
    assert near_duplicate_pairs(prints, min_correlation=0.99, min_detail=0.9).tolist() == [[0, 1]]


def test_embeddings_pair_by_cosine_without_their_common_part() -> None:
    rng = np.random.default_rng(0)
    values = 100.0 + rng.normal(size=(50, 64))
    values[7] = values[3] + 0.05 * rng.normal(size=64)
    for chunk_rows in (5, 1000):
        assert embedding_pairs(values, chunk_rows=chunk_rows).tolist() == [[3, 7]]
    values[5, 2] = np.nan
    with pytest.raises(ValueError, match=r"embeddings\[5\]"):
        embedding_pairs(values)
    with pytest.raises(ValueError, match="min_cosine=0"):
        embedding_pairs(values, min_cosine=0.0)


def test_planted_near_duplicates_of_scenes_are_found() -> None:
    """A small form of `tests/benchmarks/near_duplicates.py`."""
    settings = SceneSettings(num_rows=60, test_share=0.0, width=400, duplicate_share=0.5, max_frames=1)
    plans = plan_rows(settings)
    planted = [p for p in plans if p.variation][:6]
    spots = {(p.place_number, p.frame) for p in planted}
    firsts = [p for p in plans if not p.variation and (p.place_number, p.frame) in spots]
    others = [p for p in plans if (p.place_number, p.frame) not in spots and not p.variation][:8]
    chosen = [*firsts, *planted, *others]
    pairs = near_duplicate_pairs(_prints([_jpeg(draw_plan(plan, settings).photo, quality=88) for plan in chosen]))
    sets = components_of(len(chosen), [pairs])
    found = {(a, b) for b in range(len(chosen)) for a in range(b) if sets[a] == sets[b]}
    expected = {(a, b) for b in range(len(chosen)) for a in range(b) if _spot(chosen[a]) == _spot(chosen[b])}
    assert expected and len(found & expected) >= 0.95 * len(expected)
    assert not {pair for pair in found if chosen[pair[0]].place_number != chosen[pair[1]].place_number}


def _spot(plan: object) -> tuple[int, int]:
    return plan.place_number, plan.frame

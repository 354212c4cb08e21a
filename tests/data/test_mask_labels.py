"""Mask labels of live photos and of cached tokens are the same, and belong to the draw of the global view."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data import feature_key
from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.draws import Draw, chosen_draws, whole_batch
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_key import FeatureOptions, rows_a_shard
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.mask_labels import extract_mask_labels
from natix_roadwork.data.mask_source import RowMasks, find_masks
from natix_roadwork.data.masks import mask_path, write_mask
from natix_roadwork.data.photo_batches import PhotoRows
from tests.masks import masked_rows, shapes


NUM_ROWS, DRAWS, SIZE = 6, 3, 8
AUGMENTATION = ViewAugmentation("x1.5", seed=1)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(feature_key, "ROWS_A_SHARD", 4)
    monkeypatch.setattr(feature_key, "GRID_ROWS_A_SHARD", 4)


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    return masked_rows(NUM_ROWS, tmp_path / "masks")


@pytest.fixture
def masks(rows: Dataset, tmp_path: Path) -> RowMasks:
    return find_masks({"train": rows}, SIZE, str(tmp_path / "masks"))


@pytest.fixture
def processor() -> RoadworkImageProcessor:
    return RoadworkImageProcessor(view_size=32, do_normalize=False)


@pytest.fixture
def live(rows: Dataset, masks: RowMasks, processor: RoadworkImageProcessor) -> PhotoRows:
    return PhotoRows(rows, processor, augmentation=AUGMENTATION, masks=masks)


@pytest.fixture
def cached(
    rows: Dataset,
    masks: RowMasks,
    processor: RoadworkImageProcessor,
    tiny_model: RoadworkForImageClassification,
    tmp_path: Path,
) -> FeatureRows:
    options = FeatureOptions(DRAWS, augmentation=AUGMENTATION, grid=True)
    cache = extract_features(rows, tiny_model, processor, options, folder=tmp_path / "cache")
    drawn = {"draws": DRAWS, "augmentation": AUGMENTATION}
    labels = extract_mask_labels(rows, masks, processor, cache.folder, **drawn)
    return FeatureRows(cache, rows, seed=7, mask_labels=labels)


def test_photo_batches_hold_mask_labels(live: PhotoRows) -> None:
    batch = live.read([0, 1, 2])
    labels = batch["mask_labels"]
    assert labels.shape == (3, 6, SIZE, SIZE) and labels.dtype == torch.float32
    assert labels[1].isnan().all(), "a row without a mask"
    assert labels[[0, 2], :4].isfinite().all() and labels[[0, 2], 4:].isnan().all(), "two classes were not looked for"
    expected = np.array([(shapes(120, 90, seed=0) >> kind & 1).mean() for kind in range(4)])
    np.testing.assert_allclose(labels[0, :4].mean((1, 2)), expected, atol=0.01)
    assert torch.equal(live[2]["mask_labels"].nan_to_num(-1), labels[2].nan_to_num(-1))


def test_rows_without_masks_have_no_such_input(rows: Dataset, processor: RoadworkImageProcessor) -> None:
    assert "mask_labels" not in PhotoRows(rows, processor).read([0])


def test_labels_follow_the_draw_and_bare_rows_are_clean(live: PhotoRows) -> None:
    clean = live.read([0, 0])["mask_labels"].nan_to_num(-1)
    drawn = live.read([Draw(0, 0, 0), Draw(0, 0, 1)])["mask_labels"].nan_to_num(-1)
    assert torch.equal(clean[0], clean[1]) and not torch.equal(drawn[0], drawn[1])


def test_cached_labels_and_grids_are_the_live_ones_of_their_address(
    cached: FeatureRows, live: PhotoRows, tiny_model: RoadworkForImageClassification
) -> None:
    draws = [Draw(4, 2, 40), Draw(0, 2, 41), Draw(1, 2, 42), Draw(4, 2, 43)]
    batch = cached.read(draws)
    chosen = chosen_draws(7, np.full(4, 2), np.arange(40, 44), 12, DRAWS)[:, 0].tolist()
    again = live.read([Draw(draw.row, number - 1, draw.row) for draw, number in zip(draws, chosen, strict=True)])
    assert torch.equal(batch["mask_labels"].nan_to_num(-1), again["mask_labels"].nan_to_num(-1))
    assert batch["mask_labels"][2].isnan().all() and len(set(chosen)) > 1
    _, grid = tiny_model.extract_tokens_and_grid(again["pixel_values"])
    assert torch.equal(batch["global_grid"], grid.half())
    assert batch["global_grid"].shape == (4, 2, 2, 16)


def test_bare_rows_of_a_cache_are_clean(
    cached: FeatureRows, live: PhotoRows, tiny_model: RoadworkForImageClassification
) -> None:
    batch, again = cached.select([5, 2]).read([1, 0]), live.read([2, 5])
    assert torch.equal(batch["mask_labels"].nan_to_num(-1), again["mask_labels"].nan_to_num(-1))
    assert torch.equal(batch["global_grid"], tiny_model.extract_tokens_and_grid(again["pixel_values"])[1].half())


def test_tokens_beside_grids_are_those_without(
    cached: FeatureRows,
    rows: Dataset,
    processor: RoadworkImageProcessor,
    tiny_model: RoadworkForImageClassification,
    tmp_path: Path,
) -> None:
    options = FeatureOptions(DRAWS, augmentation=AUGMENTATION)
    plain = extract_features(rows, tiny_model, processor, options, folder=tmp_path / "plain")
    assert "grid" not in json.loads((tmp_path / "plain" / "settings.json").read_text())
    assert set(plain.shards[0]) == {"tokens", "view_mask"}
    for one, other in zip(plain.shards, cached.cache.shards, strict=True):
        assert torch.equal(one["tokens"], other["tokens"])
    with pytest.raises(ValueError, match="grid: True there, 'nothing' now"):
        extract_features(rows, tiny_model, processor, options, folder=tmp_path / "cache")


def test_new_masks_get_labels_of_their_own_and_tokens_stay(
    cached: FeatureRows, rows: Dataset, masks: RowMasks, processor: RoadworkImageProcessor, tmp_path: Path
) -> None:
    write_mask(tmp_path / "masks", "row:4", np.full((90, 120), 1, np.uint8), {})
    drawn = {"draws": DRAWS, "augmentation": AUGMENTATION}
    labels = extract_mask_labels(rows, masks, processor, cached.cache.folder, **drawn)
    assert labels.folder != cached.mask_labels.folder and labels.folder.parent == cached.cache.folder
    fresh = FeatureRows(cached.cache, rows, mask_labels=labels).read([4, 2])["mask_labels"]
    assert (fresh[0, 0] == 1).all() and (fresh[0, 1:] == 0).all()
    assert torch.equal(fresh[1].nan_to_num(-1), cached.read([2])["mask_labels"][0].nan_to_num(-1))


def test_labels_are_computed_once(
    cached: FeatureRows,
    rows: Dataset,
    masks: RowMasks,
    processor: RoadworkImageProcessor,
    tiny_model: RoadworkForImageClassification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RowMasks, "read", lambda *_: pytest.fail("read again"))
    drawn = {"draws": DRAWS, "augmentation": AUGMENTATION}
    again = extract_mask_labels(rows, masks, processor, cached.cache.folder, **drawn)
    assert again.folder == cached.mask_labels.folder and again.num_bytes == NUM_ROWS * (DRAWS + 1) * 6 * SIZE**2
    with pytest.raises(ValueError, match=r"mask labels in .* are of .*6, 4.* the features in .* of .*6, 1"):
        clean = extract_features(rows, tiny_model, processor, folder=tmp_path / "clean")
        FeatureRows(clean, rows, mask_labels=again)


def test_a_mask_that_is_gone_is_named_from_a_worker(
    live: PhotoRows, rows: Dataset, masks: RowMasks, processor: RoadworkImageProcessor, tmp_path: Path
) -> None:
    mask_path(tmp_path / "masks", "row:2").unlink()
    loader = DataLoader(live, batch_sampler=[[0, 2]], collate_fn=whole_batch, num_workers=1)
    with pytest.raises(ValueError, match=r"row 'row:2': mask .* is missing"):
        next(iter(loader))
    with pytest.raises(ValueError, match=r"mask .*row%3A2_seg_mask\.png' cannot be read"):
        extract_mask_labels(rows, masks, processor, tmp_path / "labels")


def test_grids_are_counted_before_the_first_pass(
    rows: Dataset,
    processor: RoadworkImageProcessor,
    tiny_model: RoadworkForImageClassification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr("natix_roadwork.data.feature_cache.check_space", lambda _, needed: asked.append(needed))
    for grid in (False, True):
        options = FeatureOptions(DRAWS, augmentation=AUGMENTATION, grid=grid)
        cache = extract_features(rows, tiny_model, processor, options, folder=tmp_path / str(grid))
        assert asked[-1] == cache.num_bytes
    assert asked[1] - asked[0] == NUM_ROWS * (DRAWS + 1) * 2 * 2 * 16 * 2


def test_shards_with_grids_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [rows_a_shard(count, 12) for count in (100, 100_000)] == [64, 392]
    assert [rows_a_shard(count, 12, grid=True) for count in (100, 100_000)] == [16, 52]

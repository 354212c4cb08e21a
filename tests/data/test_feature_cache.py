import errno
import json
import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data import feature_cache, feature_key, feature_shards
from natix_roadwork.data.feature_cache import FeatureCache, extract_features
from natix_roadwork.data.feature_key import FeatureOptions
from natix_roadwork.data.feature_rows import FeatureRows
from tests.photo_rows import AddressedNoise, photo_rows


NUM_ROWS = 10
OPTIONS = FeatureOptions(draws=2, augmentation=AddressedNoise())


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards of four rows, the last of two."""
    torch.set_num_threads(1)
    monkeypatch.setattr(feature_key, "ROWS_A_SHARD", 4)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return photo_rows(NUM_ROWS)


@pytest.fixture
def processor() -> RoadworkImageProcessor:
    return RoadworkImageProcessor(view_size=32)


@pytest.fixture
def cache(
    rows: Dataset, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor, tmp_path: Path
) -> FeatureCache:
    return extract_features(rows, tiny_model, processor, OPTIONS, folder=tmp_path / "cache")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def live_tokens(
    rows: Dataset, model: RoadworkForImageClassification, processor: RoadworkImageProcessor, draw: int
) -> torch.Tensor:
    """Tokens of four rows, as a training step of four photos computes them from uint8 views."""
    views = [processor.render_views(row["image"]["bytes"]) for row in rows]
    if draw:
        views = [OPTIONS.augmentation(view, epoch=draw - 1, position=row) for row, view in enumerate(views)]
    pixels = torch.from_numpy(np.stack(views)).permute(0, 1, 4, 2, 3).contiguous()
    return model.extract_tokens(pixels)


@pytest.mark.parametrize("draw", [0, 1, 2])
def test_cached_tokens_are_the_live_ones_of_their_address_bit_for_bit(
    rows: Dataset,
    cache: FeatureCache,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    draw: int,
) -> None:
    live = live_tokens(rows.select(range(4)), tiny_model, processor, draw)
    assert torch.equal(cache.shards[0]["tokens"][:, draw], live.half())
    assert cache.shape == (NUM_ROWS, 3, 12, 6, 16) and [len(shard["tokens"]) for shard in cache.shards] == [4, 4, 2]


def test_a_row_s_place_does_not_change_its_tokens(
    rows: Dataset,
    cache: FeatureCache,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    tmp_path: Path,
) -> None:
    other = extract_features(rows.select([8, 9, 0]), tiny_model, processor, folder=tmp_path / "other")
    expected = FeatureRows(cache, rows).select([8, 9, 0]).arrays()[0]
    np.testing.assert_array_equal(other.shards[0]["tokens"][:, 0].numpy(), expected)


def test_workers_change_no_byte(
    rows: Dataset, cache: FeatureCache, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor
) -> None:
    again = cache.folder.with_name("again")
    extract_features(rows, tiny_model, processor, OPTIONS, folder=again, num_workers=2)
    assert files(again) == files(cache.folder)


def test_second_call_computes_nothing(
    rows: Dataset,
    cache: FeatureCache,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_cache.TokenPasses, "compute", lambda *_, **__: pytest.fail("computed again"))
    before = {path: path.stat().st_mtime_ns for path in cache.folder.iterdir()}
    extract_features(rows, tiny_model, processor, OPTIONS, folder=cache.folder)
    assert {path: path.stat().st_mtime_ns for path in cache.folder.iterdir()} == before


def test_missing_shard_is_computed_again(
    rows: Dataset, cache: FeatureCache, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor
) -> None:
    before = files(cache.folder)
    (cache.folder / "shard-00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is missing; extract the features again"):
        FeatureCache.open(cache.folder)
    extract_features(rows, tiny_model, processor, OPTIONS, folder=cache.folder)
    assert files(cache.folder) == before


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damaged_shard_is_named_and_not_read(
    rows: Dataset,
    cache: FeatureCache,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    damage: str,
) -> None:
    shard = cache.folder / "shard-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-5000] ^= 1
    shard.write_bytes(data if damage == "flipped" else data[:-9])
    with pytest.raises(ValueError, match=r"shard-00002\.safetensors is corrupt or truncated.*delete this file"):
        extract_features(rows, tiny_model, processor, OPTIONS, folder=cache.folder)


def test_shard_of_another_cache_is_refused(
    rows: Dataset,
    cache: FeatureCache,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    tmp_path: Path,
) -> None:
    options = FeatureOptions(draws=2, augmentation=AddressedNoise(seed=1))
    other = extract_features(rows, tiny_model, processor, options, folder=tmp_path / "other")
    os.replace(other.folder / "shard-00000.safetensors", cache.folder / "shard-00000.safetensors")
    with pytest.raises(ValueError, match="delete it and extract again"):
        FeatureCache.open(cache.folder)
    with pytest.raises(ValueError, match="does not fit its checksum"):
        extract_features(rows, tiny_model, processor, OPTIONS, folder=cache.folder)


def test_folder_of_other_settings_is_refused_and_the_settings_named(
    rows: Dataset, cache: FeatureCache, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor
) -> None:
    tiny_model.config.evidence_grid = 1
    options = FeatureOptions(draws=1, augmentation=AddressedNoise(seed=5))
    differing = "augmentation.seed: 0 there, 5 now; evidence_grid: 2 there, 1 now; feature_draws: 2 there, 1 now"
    with pytest.raises(ValueError, match=f"features of other settings .{differing}.; choose another folder"):
        extract_features(rows, tiny_model, processor, options, folder=cache.folder)


def test_readable_settings_are_what_the_key_is_made_from(cache: FeatureCache) -> None:
    settings = json.loads((cache.folder / "settings.json").read_text())
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    assert manifest["key"] == feature_key.feature_key(settings)
    assert settings["augmentation"] == {"name": "addressed noise", "seed": 0}
    assert settings["processor"]["view_size"] == 32 and settings["rows"]["count"] == NUM_ROWS


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damaged_photo_is_named_and_complete_shards_stay(
    rows: Dataset,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    tmp_path: Path,
    num_workers: int,
) -> None:
    columns = rows.to_dict()
    columns["image"][5] = {"bytes": b"no photo", "path": None}
    broken = Dataset.from_dict(columns, features=rows.features)
    with pytest.raises(ValueError, match="row 'row:5': the photo cannot be decoded"):
        extract_features(broken, tiny_model, processor, folder=tmp_path, num_workers=num_workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.json", "shard-00000.safetensors"]


def test_full_disk_is_refused_before_the_first_pass(
    rows: Dataset,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(feature_shards.shutil, "disk_usage", lambda _: usage(1, 1, 2**10))
    with pytest.raises(OSError, match=r"features need 0\.07 MiB in .*, 0\.00 MiB are free; make room"):
        extract_features(rows, tiny_model, processor, OPTIONS, folder=tmp_path / "cache")


def test_disk_that_fills_up_is_named_and_leaves_nothing_half_written(
    rows: Dataset,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    compute = feature_cache.TokenPasses.compute

    def fill(*args: object, **kwargs: object) -> Iterator[dict[str, torch.Tensor]]:
        monkeypatch.setattr(os, "fsync", full)
        return compute(*args, **kwargs)

    monkeypatch.setattr(feature_cache.TokenPasses, "compute", fill)
    with pytest.raises(OSError, match=r"the disk is full: .*shard-00000\.safetensors needs .* are free"):
        extract_features(rows, tiny_model, processor, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]

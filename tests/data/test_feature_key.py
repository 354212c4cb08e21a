from pathlib import Path

import pytest
import torch
from datasets import Dataset

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.feature_key import (
    FeatureOptions,
    differences,
    feature_key,
    feature_record,
    photos_fingerprint,
    rows_a_pass,
    rows_a_shard,
)
from tests.photo_rows import AddressedNoise, encoded_photo, photo_rows


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return photo_rows(6)


def with_photo(rows: Dataset, row: int, photo: dict[str, bytes | str | None]) -> Dataset:
    columns = rows.to_dict()
    columns["image"][row] = photo
    return Dataset.from_dict(columns, features=rows.features)


def test_key_follows_everything_that_decides_the_tokens(
    rows: Dataset, tiny_model: RoadworkForImageClassification
) -> None:
    def key(rows: Dataset = rows, options: FeatureOptions | None = None, **settings: object) -> str:
        processor = RoadworkImageProcessor(**{"view_size": 32} | settings)
        return feature_key(feature_record(rows, tiny_model, processor, options or FeatureOptions()))

    keys = [key(), key(image_mean=[0.5, 0.5, 0.5]), key(image_std=[0.5, 0.5, 0.5]), key(global_fit="letterbox")]
    options = [FeatureOptions(dtype="int8"), FeatureOptions(precision=torch.bfloat16)]
    options += [FeatureOptions(1, augmentation=AddressedNoise(seed)) for seed in (0, 1)]
    options += [FeatureOptions(2, augmentation=AddressedNoise())]
    keys += [key(options=chosen) for chosen in options]
    keys += [key(rows.select([0, 1])), key(rows.select([1, 0])), key(max_megapixels=3.0)]
    tiny_model.config.evidence_grid = 1
    keys.append(key())
    tiny_model.config.feature_pooling = "cls"
    keys.append(key())
    with torch.no_grad():
        next(tiny_model.backbone.parameters()).add_(1)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_head_labels_and_unused_augmentation_do_not_decide_the_tokens(
    rows: Dataset, tiny_model: RoadworkForImageClassification
) -> None:
    processor = RoadworkImageProcessor(view_size=32)
    before = feature_record(rows, tiny_model, processor, FeatureOptions())
    with torch.no_grad():
        tiny_model.classifier.output.weight.add_(1)
    relabelled = rows.map(lambda row: {"label": 1 - row["label"]})
    normalised = RoadworkImageProcessor(view_size=32, do_normalize=False)
    options = FeatureOptions(augmentation=AddressedNoise())
    assert feature_record(relabelled, tiny_model, normalised, options) == before


def test_photos_are_known_by_their_end_wherever_they_lie(rows: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded_photo(2))
    filed = with_photo(rows, 2, {"bytes": None, "path": str(path)})
    assert photos_fingerprint(filed) == photos_fingerprint(rows)
    path.write_bytes(encoded_photo(99))
    assert photos_fingerprint(filed) != photos_fingerprint(rows)
    path.unlink()
    with pytest.raises(ValueError, match=r"photo\.png' cannot be read"):
        photos_fingerprint(filed)


def test_differences_are_named_by_their_path() -> None:
    there, now = {"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2], "d": 2}, "e": None}
    assert differences(there, now) == ["b.c: [1] there, [2] now", "e: 'nothing' there, None now"]


def test_shards_are_whole_passes_and_few() -> None:
    assert rows_a_pass(12) == 4 and rows_a_pass(1) == 48
    assert rows_a_shard(6251, 12) == 64 and rows_a_shard(100, 1) == 96
    assert rows_a_shard(10_000_000, 12) % 4 == 0 and 10_000_000 / rows_a_shard(10_000_000, 12) <= 256


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="feature_draws=4 without an augmentation"):
        FeatureOptions(draws=4)
    with pytest.raises(ValueError, match="feature_draws=-1"):
        FeatureOptions(draws=-1)
    with pytest.raises(ValueError, match="feature_dtype='int4'"):
        FeatureOptions(dtype="int4")
    with pytest.raises(ValueError, match=r"precision=torch\.float16"):
        FeatureOptions(precision=torch.float16)


def test_a_part_that_only_one_record_has_is_one_difference() -> None:
    there, now = {"augmentation": {"seed": 0, "preset": "light"}, "draws": 2}, {"augmentation": None, "draws": 2}
    assert differences(there, now) == ["augmentation: {'seed': 0, 'preset': 'light'} there, None now"]

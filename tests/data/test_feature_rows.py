import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data import feature_key
from natix_roadwork.data.draws import Draw, chosen_draws, whole_batch
from natix_roadwork.data.feature_cache import FeatureCache, extract_features
from natix_roadwork.data.feature_key import FeatureOptions
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.token_passes import quantized
from tests.photo_rows import AddressedNoise, photo_rows


NUM_ROWS, DRAWS = 10, 3


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return photo_rows(NUM_ROWS)


@pytest.fixture
def folder(
    rows: Dataset, tiny_model: RoadworkForImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    torch.set_num_threads(1)
    monkeypatch.setattr(feature_key, "ROWS_A_SHARD", 4)
    options = FeatureOptions(DRAWS, augmentation=AddressedNoise())
    extract_features(rows, tiny_model, RoadworkImageProcessor(view_size=32), options, folder=tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def tokens(folder: Path, rows: Dataset) -> FeatureRows:
    return FeatureRows(FeatureCache.open(folder), rows, seed=7)


def everything(tokens: FeatureRows) -> torch.Tensor:
    """All tokens `(N, K + 1, V, T, D)`."""
    return torch.cat([shard["tokens"] for shard in tokens.cache.shards])


def test_draws_recombine_views_by_their_address(tokens: FeatureRows) -> None:
    draws = [Draw(9, 2, 40), Draw(0, 2, 41), Draw(9, 2, 42), Draw(5, 2, 43)]
    (batch,) = tokens.__getitems__(draws)
    chosen = chosen_draws(7, np.full(4, 2), np.arange(40, 44), 12, DRAWS)
    stored = everything(tokens)
    for number, draw in enumerate(draws):
        expected = torch.stack([stored[draw.row, chosen[number, view], view] for view in range(12)])
        assert torch.equal(batch["view_features"][number], expected)
    assert not torch.equal(batch["view_features"][0], batch["view_features"][2]), "one row, two positions"
    assert batch["labels"].tolist() == [1, 0, 1, 1] and batch["view_mask"].shape == (4, 12)
    assert len({tuple(row) for row in chosen}) == 4 and chosen.min() >= 1


def test_bare_rows_are_clean(tokens: FeatureRows) -> None:
    (batch,) = tokens.__getitems__([7, 3])
    assert torch.equal(batch["view_features"], everything(tokens)[[7, 3], 0])
    one = tokens[3]
    assert torch.equal(one["view_features"], batch["view_features"][1]) and one["labels"].item() == 1
    np.testing.assert_array_equal(tokens.arrays()[0], everything(tokens)[:, 0].numpy())


def test_chosen_rows_come_in_their_order(tokens: FeatureRows) -> None:
    some = tokens.select([6, 1, 6]).select([2, 1])
    assert len(some) == 2
    assert torch.equal(some.read([0, 1])["view_features"], everything(tokens)[[6, 1], 0])
    assert some.read([Draw(1, 0, 0)])["labels"].tolist() == [1]


def test_logits_from_tokens_are_those_from_photos(
    rows: Dataset, tokens: FeatureRows, tiny_model: RoadworkForImageClassification
) -> None:
    processor = RoadworkImageProcessor(view_size=32)
    batch = tokens.read(range(NUM_ROWS))
    with torch.no_grad():
        cached = tiny_model(view_features=batch["view_features"], view_mask=batch["view_mask"]).logits
        live = tiny_model(**processor([row["image"]["bytes"] for row in rows])).logits
    torch.testing.assert_close(cached, live, atol=5e-3, rtol=0)


def test_int8_is_half_the_bytes_and_within_half_a_level(
    rows: Dataset, tokens: FeatureRows, tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    options = FeatureOptions(DRAWS, "int8", augmentation=AddressedNoise())
    processor = RoadworkImageProcessor(view_size=32)
    small = FeatureRows(extract_features(rows, tiny_model, processor, options, folder=tmp_path / "int8"), rows)
    exact, found = tokens.arrays()[0].astype(np.float32), small.arrays()[0].astype(np.float32)
    levels = np.abs(exact).max(axis=-1, keepdims=True) / 127
    assert (np.abs(found - exact) / levels).max() < 0.6
    assert small.cache.shards[0]["tokens"].dtype == torch.int8
    assert small.cache.num_bytes < 0.6 * tokens.cache.num_bytes  # 16 dimensions and a scale of 2 bytes


def test_quantized_tokens_of_a_closed_form() -> None:
    levels, scales = quantized(torch.tensor([[127.0, -63.4, 0.2], [0.0, 0.0, 0.0]]))
    assert levels.tolist() == [[127, -63, 0], [0, 0, 0]] and scales[0].item() == 1.0


def test_rows_of_another_number_are_refused(tokens: FeatureRows, rows: Dataset) -> None:
    with pytest.raises(ValueError, match=r"rows has 3 rows, the features in .*cache 10"):
        FeatureRows(tokens.cache, rows.select(range(3)))


def test_incomplete_cache_is_not_opened(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"key": "another"}))
    with pytest.raises(ValueError, match="holds no complete features"):
        FeatureCache.open(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read .*; delete it"):
        FeatureCache.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds no complete features"):
        FeatureCache.open(folder)


def test_plain_trainer_trains_and_evaluates_on_clean_tokens(
    tokens: FeatureRows, tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=2, per_device_train_batch_size=4
    )
    trainer = Trainer(tiny_model, args, train_dataset=tokens, eval_dataset=tokens, data_collator=whole_batch)
    assert torch.isfinite(torch.tensor(trainer.train().training_loss))
    assert trainer.predict(tokens).predictions.shape == (NUM_ROWS, 2)

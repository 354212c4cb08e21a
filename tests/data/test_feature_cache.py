import io
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.feature_cache import TokenRows, extract_features, feature_key
from natix_roadwork.model.photo import DecodedPhoto, decode_photo


NUM_ROWS = 6


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def encoded(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def rows() -> Dataset:
    photos = [{"bytes": encoded(row), "path": None} for row in range(NUM_ROWS)]
    return Dataset.from_dict(
        {"row_id": [f"row:{row}" for row in range(NUM_ROWS)], "image": photos, "label": [0, 1] * 3},
        features=Features({"row_id": Value("string"), "image": Image(decode=False), "label": Value("int64")}),
    )


@pytest.fixture
def processor() -> RoadworkImageProcessor:
    return RoadworkImageProcessor(view_size=32)


@pytest.fixture
def tokens(
    rows: Dataset, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor, tmp_path: Path
) -> TokenRows:
    return extract_features(rows, tiny_model, processor, folder=tmp_path)


def test_tokens_are_those_of_the_model(
    rows: Dataset, tokens: TokenRows, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor
) -> None:
    stored, masks = tokens.arrays()
    views = processor([row["image"]["bytes"] for row in rows])
    live = tiny_model.extract_tokens(views["pixel_values"])
    assert stored.shape == tuple(live.shape) == (NUM_ROWS, *tokens.shape) and stored.dtype == np.float16
    np.testing.assert_allclose(stored, live.numpy(), atol=5e-3)
    np.testing.assert_array_equal(masks, views["view_mask"].numpy())


def test_logits_from_tokens_are_those_from_photos(
    rows: Dataset, tokens: TokenRows, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor
) -> None:
    batch = tokens.for_training()[:NUM_ROWS]
    inputs = {name: torch.stack(batch[name]) for name in ("view_features", "view_mask")}
    with torch.no_grad():
        cached = tiny_model(**inputs).logits
        live = tiny_model(**processor([row["image"]["bytes"] for row in rows])).logits
    torch.testing.assert_close(cached, live, atol=5e-3, rtol=0)
    assert torch.stack(batch["labels"]).tolist() == [0, 1] * 3


def test_rows_keep_their_columns_but_the_photo(tokens: TokenRows) -> None:
    assert set(tokens.dataset.column_names) == {"row_id", "label", "view_features", "view_mask"}
    assert len(tokens) == NUM_ROWS and tokens.shape == (12, 6, 16)


def test_chosen_rows_come_in_their_order(tokens: TokenRows) -> None:
    everything, some = tokens.arrays()[0], tokens.arrays([4, 1])[0]
    np.testing.assert_array_equal(some, everything[[4, 1]])


def test_second_call_reads_the_first_ones_file(
    rows: Dataset,
    tokens: TokenRows,
    tiny_model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("natix_roadwork.data.feature_cache._token_batch", refuse)
    again = extract_features(rows, tiny_model, processor, folder=tmp_path)
    np.testing.assert_array_equal(again.arrays()[0], tokens.arrays()[0])


def test_key_follows_everything_that_decides_the_tokens(
    rows: Dataset, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor
) -> None:
    def key(rows: Dataset = rows, precision: torch.dtype = torch.float32, **settings: object) -> str:
        changed = RoadworkImageProcessor(**processor.settings() | settings)
        return feature_key(rows, tiny_model, changed, precision)

    keys = [key(), key(image_mean=[0.5, 0.5, 0.5]), key(global_fit="letterbox"), key(precision=torch.bfloat16)]
    keys.append(key(rows.select([0, 1])))
    tiny_model.config.evidence_grid = 1
    keys.append(key())
    with torch.no_grad():
        next(tiny_model.backbone.parameters()).add_(1)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_head_does_not_decide_the_tokens(
    rows: Dataset, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor
) -> None:
    before = feature_key(rows, tiny_model, processor, torch.float32)
    with torch.no_grad():
        tiny_model.classifier.output.weight.add_(1)
    normalised = RoadworkImageProcessor(**processor.settings() | {"do_normalize": False})
    assert feature_key(rows, tiny_model, normalised, torch.float32) == before


@pytest.mark.parametrize("limit", [0.01, 3.0, 120.0])
def test_processor_has_the_only_limit_of_a_photo(
    rows: Dataset,
    tiny_model: RoadworkForImageClassification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
) -> None:
    limits = []

    def decode(source: bytes, max_megapixels: float, *others: object) -> DecodedPhoto:
        limits.append(max_megapixels)
        return decode_photo(source, max_megapixels, *others)

    monkeypatch.setattr("natix_roadwork.model.image_processing_roadwork.decode_photo", decode)
    processor = RoadworkImageProcessor(view_size=32, max_megapixels=limit)
    expected = pytest.raises(ValueError, match=r"row 'row:0'.*0\.01") if limit < 0.0108 else nullcontext()
    with expected:  # the photos have 120 x 90 pixels
        extract_features(rows, tiny_model, processor, folder=tmp_path)
    assert set(limits) == {limit}


def test_damaged_photo_is_named(
    rows: Dataset, tiny_model: RoadworkForImageClassification, processor: RoadworkImageProcessor, tmp_path: Path
) -> None:
    photos = [rows[0]["image"], {"bytes": b"no photo", "path": None}]
    columns = {"row_id": ["good:0", "bad:1"], "image": photos, "label": [0, 1]}
    broken = Dataset.from_dict(columns, features=rows.features)
    with pytest.raises(ValueError, match="bad:1"):
        extract_features(broken, tiny_model, processor, folder=tmp_path)
    assert not list(tmp_path.glob("*.arrow")), "a file that is not finished must not be read as finished"

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.draws import whole_batch
from natix_roadwork.data.extra_evidence import ExtraEvidence, write_extra_evidence
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.metadata import MetadataInputs
from natix_roadwork.data.photo_batches import collate_rows, photo_transform
from natix_roadwork.model.configuration_roadwork import DEFAULT_VOCABULARIES, METADATA_FIELDS
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.metadata_inputs import load_evidence, metadata_inputs
from natix_roadwork.training.pretrain_inputs import prepare_inputs
from natix_roadwork.training.pretrain_model import build_model


EMBEDDED = "embedded:all-minilm-l6-v2"
METADATA = [
    {
        "weather": "['Sunny']",
        "daytime": "Light",
        "scene": "Urban",
        "text": "A quiet street.",
    },
    {"weather": "['Rain', 'Cloudy']", "daytime": "Dark", "scene": "Moon", "text": "Cones on the lane."},
    {},
]
SHAPES = {"gps": (2,), "weather_ids": (8,), "daytime_ids": (6,), "scene_ids": (7,), "text_embeddings": (384,)}


@pytest.fixture
def rows(tmp_path: Path) -> LoadedRows:
    """Twelve train rows and four dev rows, each at a place of its own; each third one has no metadata."""
    for split, num_rows, north in (("train", 12, 39.7), ("dev", 4, 36.7)):
        folder = tmp_path / "photos" / split
        folder.mkdir(parents=True)
        lines = []
        for row in range(num_rows):
            Image.fromarray(np.full((48, 64, 3), 16 * row, np.uint8)).save(folder / f"{row}.png")
            values = METADATA[row % 3] | ({"gps": f"[{north + row / 10}, -86.18]"} if row % 3 == 0 else {})
            lines.append(json.dumps({"file_name": f"{row}.png", "label": row % 2, **values}))
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    return load_rows(str(tmp_path / "photos"), cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def args(tmp_path: Path) -> RoadworkTrainingArguments:
    torch.set_num_threads(1)
    return RoadworkTrainingArguments(
        output_dir=str(tmp_path / "run"),
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
        max_steps=2,
        per_device_train_batch_size=6,
        save_strategy="no",
        eval_strategy="no",
        load_best_model_at_end=False,
    )


def prepared(rows: LoadedRows, args: RoadworkTrainingArguments, *fields: str, **weights: float) -> MetadataInputs:
    return metadata_inputs(
        rows.splits, fields, DEFAULT_VOCABULARIES, {"focal": 1.0, **weights}, EMBEDDED, args, args.output_dir
    )


class MetadataHead(nn.Module):
    """Stands in for the model: one layer over every metadata input, missing values read as zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(sum(shape[0] for shape in SHAPES.values()), 2)

    def forward(
        self,
        view_features: Tensor,
        view_mask: Tensor,
        gps: Tensor,
        weather_ids: Tensor,
        daytime_ids: Tensor,
        scene_ids: Tensor,
        text_embeddings: Tensor,
        labels: Tensor,
    ) -> dict[str, Tensor]:
        inputs = torch.cat([gps, weather_ids, daytime_ids, scene_ids, text_embeddings], 1)
        logits = self.layer(inputs.nan_to_num())
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_training_on_cached_tokens_reads_metadata_with_real_text_vectors(
    rows: LoadedRows,
    args: RoadworkTrainingArguments,
    tiny_model: RoadworkForImageClassification,
    tmp_path: Path,
) -> None:
    processor = RoadworkImageProcessor(view_size=32)
    train = rows.splits["train"]
    cache = extract_features(train, tiny_model, processor, folder=tmp_path / "tokens")
    dataset = FeatureRows(cache, train, metadata=prepared(rows, args, *METADATA_FIELDS))
    batch = dataset.read(range(12))
    assert batch.keys() == {"view_features", "view_mask", "labels", *SHAPES}
    assert {name: tuple(batch[name].shape[1:]) for name in SHAPES} == SHAPES
    missing = torch.isnan(batch["text_embeddings"]).all(1)
    assert missing.tolist() == [row % 3 == 2 for row in range(12)]
    assert torch.isnan(batch["gps"]).all(1).tolist() == [row % 3 > 0 for row in range(12)]
    assert batch["weather_ids"][:3, :3].tolist() == [[0, -1, -1], [1, 3, -1], [-1, -1, -1]]
    assert batch["scene_ids"][:3, 0].tolist() == [0, 6, -1]
    head = MetadataHead()
    before = head.layer.weight.detach().clone()
    Trainer(head, args, train_dataset=dataset, data_collator=whole_batch).train()
    changed = (head.layer.weight - before).abs().sum(0)
    assert torch.isfinite(head.layer.weight).all() and (changed[-384:] > 0).all()


def test_training_on_photos_reads_the_chosen_fields_only(rows: LoadedRows, args: RoadworkTrainingArguments) -> None:
    metadata = prepared(rows, args, "gps", "scene", weather=0.15)
    transform = photo_transform(RoadworkImageProcessor(view_size=32), metadata)
    dataset = rows.splits["train"].with_transform(transform)
    batch = next(iter(DataLoader(dataset, batch_size=4, collate_fn=collate_rows)))
    assert batch.keys() == {"pixel_values", "view_mask", "labels", "gps", "scene_ids", "weather_labels"}
    assert batch["weather_labels"].tolist() == [0, -100, -100, 0]


def test_without_fields_the_batches_hold_no_metadata(
    rows: LoadedRows, args: RoadworkTrainingArguments, tiny_model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    dev = rows.splits["dev"]
    cache = extract_features(dev, tiny_model, RoadworkImageProcessor(view_size=32), folder=tmp_path)
    dataset = FeatureRows(cache, dev, metadata=prepared(rows, args))
    assert dataset[0].keys() == {"view_features", "view_mask", "labels"}


def test_model_is_built_with_the_resolved_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def from_backbone(*args: object, metadata_fields: list[str], **kwargs: object) -> None:
        asked.append(metadata_fields)
        raise InterruptedError

    place = "natix_roadwork.training.pretrain_model.RoadworkForImageClassification.from_backbone"
    monkeypatch.setattr(place, from_backbone)
    with pytest.raises(InterruptedError):
        build_model(PretrainArguments(dataset_name="x", metadata_fields=["auto"]), [0, 1], ["weather"])
    assert asked == [["weather"]]


@pytest.mark.parametrize("feature_cache", ["off", "auto"])
def test_recipe_key_decides_what_the_batches_hold(
    rows: LoadedRows,
    args: RoadworkTrainingArguments,
    tiny_model: RoadworkForImageClassification,
    tmp_path: Path,
    feature_cache: str,
) -> None:
    tiny_model.backbone.save_pretrained(tmp_path / "backbone")
    settings = PretrainArguments(
        dataset_name=rows.dataset_name,
        backbone_id=str(tmp_path / "backbone"),
        view_size=32,
        evidence_grid=2,
        hidden_size=16,
        num_attention_heads=2,
        feature_cache=feature_cache,
        metadata_fields=["gps", "daytime"],
        allow_leaking_fields=["gps", "daytime"],  # a few rows without a place or a text say nothing either way
        baselines=False,
    )
    inputs = prepare_inputs(settings, args, folder=str(tmp_path / "kept"))
    photo = {"off": "pixel_values", "auto": "view_features"}[feature_cache]
    for split in ("train", "dev"):
        assert inputs.datasets[split][0].keys() == {photo, "view_mask", "labels", "gps", "daytime_ids"}
    assert inputs.model.config.metadata_fields == ["gps", "daytime"]
    batch = inputs.datasets["train"].read(range(6))
    assert inputs.model(**batch).loss.isfinite()


@pytest.mark.parametrize("provider", ["human", "scenes"])
def test_a_file_that_names_a_label_knowing_provider_is_refused(
    rows: LoadedRows, tmp_path: Path, provider: str
) -> None:
    ids = np.concatenate([np.array(split["row_id"][:]) for split in rows.splits.values()])
    values, path = np.ones((len(ids), 1, 2), np.float32), str(tmp_path / "made.arrow")
    for name in (provider, "sam3"):
        write_extra_evidence(path, ExtraEvidence(ids, values, ("a", "b"), {"provider": {"name": name}}))
        if name == "sam3":
            assert load_evidence(path, rows.splits) is not None
        else:
            with pytest.raises(ValueError, match=rf"made.arrow': provider='{name}' knows what the label knows"):
                load_evidence(path, rows.splits)

"""A model with metadata and a weather head under both trainers."""

from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.trainer import RoadworkTrainer
from tests.training_rows import Row, accuracy_as_mcc, token_rows


FIELDS = ["gps", "weather", "text"]


@pytest.fixture
def model(tiny_config: RoadworkConfig) -> RoadworkForImageClassification:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fields = {"metadata_fields": FIELDS, "loss_weights": {"focal": 0.4, "consistency": 0.25, "weather": 0.15}}
    return RoadworkForImageClassification(RoadworkConfig.from_dict(tiny_config.to_dict() | fields))


def metadata_rows(num_rows: int, seed: int = 0) -> list[Row]:
    """Token rows with metadata, every third without; the weather is known in every second."""
    rows = token_rows(num_rows, seed)
    for index, row in enumerate(rows):
        missing = index % 3 == 0
        row["gps"] = torch.full((2,), torch.nan) if missing else torch.tensor([40.0, -74.0])
        row["weather_ids"] = torch.tensor([-1, -1]) if missing else torch.tensor([index % 7, -1])
        row["text_embeddings"] = torch.full((384,), torch.nan) if missing else torch.ones(384)
        row["weather_labels"] = torch.tensor(index % 7 if index % 2 else -100)
    return rows


def test_roadwork_trainer_trains_and_logs_the_weather_term(
    model: RoadworkForImageClassification, tmp_path: Path
) -> None:
    args = RoadworkTrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=20, logging_steps=10, eval_steps=10, eval_strategy="steps",
        save_strategy="no", load_best_model_at_end=False, per_device_train_batch_size=8, learning_rate=2e-3,
    )  # fmt: skip
    trainer = RoadworkTrainer(
        model, args, train_dataset=metadata_rows(32), eval_dataset=metadata_rows(12, seed=1), compute_metrics=accuracy_as_mcc
    )  # fmt: skip
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"]
    for line in lines:
        mixed = 0.4 * line["loss_focal"] + 0.25 * line["loss_consistency"] + 0.15 * line["loss_weather"]
        assert line["loss"] == pytest.approx(mixed / 0.8, rel=1e-4)
    assert "eval_loss_weather" in trainer.state.log_history[-2] | trainer.state.log_history[-1]


def test_decay_spares_tables_nulls_and_presence(model: RoadworkForImageClassification, tmp_path: Path) -> None:
    args = RoadworkTrainingArguments(str(tmp_path), use_cpu=True, eval_strategy="no", load_best_model_at_end=False)
    names = RoadworkTrainer(model, args).get_decay_parameter_names(model)
    assert {"metadata_fusion.linear.weight", "weather_head.hidden.weight"} <= set(names)
    assert not [name for name in names if any(part in name for part in ("table", "null", "presence", "norm"))]


def test_plain_trainer_trains_with_metadata(model: RoadworkForImageClassification, tmp_path: Path) -> None:
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=20, logging_steps=10, learning_rate=2e-3, report_to="none",
        label_names=["labels", "weather_labels"],
    )  # fmt: skip
    trainer = Trainer(model, args, train_dataset=metadata_rows(32), eval_dataset=metadata_rows(12, seed=1))
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    assert trainer.predict(trainer.eval_dataset).predictions.shape == (12, 2)


def test_plain_trainer_needs_no_weather_labels(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    trainer = Trainer(
        tiny_model, TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, report_to="none"),
        eval_dataset=token_rows(4), compute_metrics=accuracy_as_mcc,
    )  # fmt: skip
    assert {"eval_loss", "eval_mcc"} <= trainer.evaluate().keys()

"""A model with metadata and a weather head under both trainers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from transformers import Trainer, TrainingArguments

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.trainer import RoadworkTrainer, keep_input_precision
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


def test_evaluation_in_bfloat16_reads_the_same_places(
    model: RoadworkForImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, seen = metadata_rows(12, seed=1), []
    forward = model.metadata_fusion.encoder.fields["gps"].encoder.forward
    monkeypatch.setattr(
        model.metadata_fusion.encoder.fields["gps"].encoder, "forward", lambda gps: seen.append(gps) or forward(gps)
    )
    args = RoadworkTrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, bf16_full_eval=True, eval_strategy="no", load_best_model_at_end=False,
        report_to=[],
    )  # fmt: skip
    logits = RoadworkTrainer(model, args).predict(rows).predictions
    assert next(model.parameters()).dtype == torch.bfloat16 and np.isfinite(logits).all()
    assert torch.equal(torch.cat(seen), torch.stack([row["gps"] for row in rows]).nan_to_num())


def test_sharded_weights_in_bfloat16_leave_the_coordinates_whole(tmp_path: Path) -> None:
    policy = MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16, buffer_dtype=torch.bfloat16)
    plugin = SimpleNamespace(mixed_precision_policy=policy)
    keep_input_precision(plugin)
    module = nn.Sequential(nn.Linear(2, 2))
    seen = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        sharded = FullyShardedDataParallel(
            module, mixed_precision=plugin.mixed_precision_policy, device_id=torch.device("cpu"), use_orig_params=True
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert sharded(torch.ones(1, 2)).dtype == torch.bfloat16
    finally:
        torch.distributed.destroy_process_group()
    assert seen == [torch.float32]


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

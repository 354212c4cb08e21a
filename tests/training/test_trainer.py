from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import BatchSampler
from transformers import Trainer, TrainingArguments

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.callbacks import EMA_FILE, trainable
from natix_roadwork.training.samplers import EpochSampler
from natix_roadwork.training.trainer import RoadworkTrainer
from tests.training_rows import accuracy_as_mcc, token_rows, weights


Build = Callable[..., RoadworkTrainer]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def build(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> Build:
    def make(**settings: object) -> RoadworkTrainer:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "use_cpu": True,
            "disable_tqdm": True,
            "max_steps": 6,
            "logging_steps": 2,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_strategy": "steps",
            "save_steps": 2,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
        }
        return RoadworkTrainer(
            model=tiny_model,
            args=RoadworkTrainingArguments(**defaults | settings),
            train_dataset=token_rows(32),
            eval_dataset=token_rows(12, seed=1),
            compute_metrics=accuracy_as_mcc,
        )

    return make


def logged(trainer: Trainer, key: str) -> list[float]:
    return [line[key] for line in trainer.state.log_history if key in line]


def switch_dropout_off(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def test_training_lowers_the_loss_and_leaves_the_backbone_alone(build: Build) -> None:
    trainer = build(
        max_steps=60, logging_steps=10, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )
    before = weights(trainer.model)
    trainer.train()
    losses, after = logged(trainer, "loss"), weights(trainer.model)
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))


def test_log_has_the_parts_of_the_loss(build: Build) -> None:
    trainer = build()
    trainer.train()
    assert len(logged(trainer, "loss_focal")) == len(logged(trainer, "loss_consistency")) == 3
    assert len(logged(trainer, "eval_loss_focal")) == 3
    focal, consistency = (np.array(logged(trainer, f"loss_{name}")) for name in ("focal", "consistency"))
    np.testing.assert_allclose((0.4 * focal + 0.25 * consistency) / 0.65, logged(trainer, "loss"), rtol=1e-5)


def test_evaluation_loss_is_the_weighted_parts(build: Build) -> None:
    metrics = build(eval_strategy="no", save_strategy="no", load_best_model_at_end=False).evaluate()
    mixed = (0.4 * metrics["eval_loss_focal"] + 0.25 * metrics["eval_loss_consistency"]) / 0.65
    assert metrics["eval_loss"] == pytest.approx(mixed, rel=1e-5)


def test_log_has_the_histogram_of_kept_views(build: Build) -> None:
    metrics = build().evaluate()
    kept = [metrics[f"eval_view_kept_{view:02d}"] for view in range(12)]
    assert kept[0] == 1.0 and sum(kept) == pytest.approx(8.0)
    assert 0.9 < metrics["eval_view_entropy"] <= 1.0


def test_first_loss_is_that_of_the_plain_trainer(build: Build, tiny_model: RoadworkForImageClassification) -> None:
    trainer = build(max_steps=1, logging_steps=1)
    batch = trainer.data_collator(token_rows(8))
    tiny_model.train()
    torch.manual_seed(0)
    ours = trainer.compute_loss(tiny_model, batch)
    torch.manual_seed(0)
    assert torch.allclose(ours, tiny_model(**batch).loss)


def test_mixing_is_drawn_by_step_and_only_in_training(
    build: Build, tiny_model: RoadworkForImageClassification
) -> None:
    batch = build().data_collator(token_rows(8))
    switch_dropout_off(tiny_model)
    plain, mixing = build(), build(mixup_alpha=1.0)
    losses = [trainer.compute_loss(tiny_model.train(), batch).item() for trainer in (plain, mixing, mixing)]
    assert losses[1] == losses[2] != losses[0]
    mixing.state.global_step = 1
    assert mixing.compute_loss(tiny_model, batch).item() != losses[1]
    tiny_model.eval()
    assert mixing.compute_loss(tiny_model, batch).item() == plain.compute_loss(tiny_model, batch).item()


def test_a_term_without_rows_does_not_weigh(build: Build, tiny_model: RoadworkForImageClassification) -> None:
    trainer = build()
    batch = trainer.data_collator(token_rows(8))
    batch["view_mask"][:, 1:] = False  # one wide view a photo: nothing to compare
    tiny_model.train()
    torch.manual_seed(0)
    loss, outputs = trainer.compute_loss(tiny_model, batch, return_outputs=True)
    assert torch.allclose(loss, outputs.loss_parts["focal"])


def test_plain_trainer_trains_the_model(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=40, logging_steps=10, learning_rate=1e-3, report_to="none"
    )
    trainer = Trainer(tiny_model, args, train_dataset=token_rows(32), eval_dataset=token_rows(12, seed=1))
    trainer.train()
    assert logged(trainer, "loss")[-1] < logged(trainer, "loss")[0]
    assert trainer.predict(trainer.eval_dataset).predictions.shape == (12, 2)


@pytest.mark.parametrize(
    ("loss_weights", "tolerance"),
    [
        ({"focal": 1.0}, 1e-4),  # its denominator is the batch, which all passes share alike
        ({"focal": 0.4, "consistency": 0.25}, 0.01),  # each pass has other rows with two wide views
    ],
)
def test_accumulated_steps_equal_whole_batches(
    build: Build, tiny_model: RoadworkForImageClassification, loss_weights: dict[str, float], tolerance: float
) -> None:
    switch_dropout_off(tiny_model)
    tiny_model.config.loss_weights = loss_weights
    start = weights(tiny_model)
    settings = {"max_steps": 4, "logging_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
    settings |= {"load_best_model_at_end": False}
    whole = build(**settings, per_device_train_batch_size=16)
    whole.train()
    tiny_model.load_state_dict(start)
    parts = build(**settings, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    parts.train()
    np.testing.assert_allclose(logged(whole, "loss"), logged(parts, "loss"), atol=tolerance)


def test_matrices_decay_norms_biases_and_positions_do_not(
    build: Build, tiny_model: RoadworkForImageClassification
) -> None:
    decayed = set(build().get_decay_parameter_names(tiny_model))
    matrices = {"projection.linear.weight", "classifier.hidden.weight", "evidence_pooling.hidden.weight"}
    gates = {"evidence_pooling.gate.weight", "view_fusion.gate.0.weight"}
    assert matrices | gates | {"attention_layers.0.attention.gate_proj.weight"} <= decayed
    kept = trainable(tiny_model).keys() - decayed
    assert {"projection.norm.weight", "projection.positions.weight", "classifier.hidden.bias"} <= kept
    assert {"attention_layers.0.feed_forward.0.weight", "attention_layers.0.attention.gate_proj.bias"} <= kept
    assert all(tiny_model.get_parameter(name).ndim < 2 for name in kept - {"projection.positions.weight"})


def test_checkpoint_has_no_backbone_and_no_pickled_arguments(build: Build) -> None:
    trainer = build()
    trainer.train()
    folder = Path(trainer.state.best_model_checkpoint)
    assert not [name for name in load_file(folder / "model.safetensors") if name.startswith("backbone.")]
    assert not (folder / "training_args.bin").exists()
    torch.load(folder / "optimizer.pt", weights_only=True)


def test_save_asks_the_model_for_no_second_state(
    tiny_model: RoadworkForImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = weights(tiny_model)
    monkeypatch.setattr(tiny_model, "state_dict", None)  # with sharded weights one process alone would wait for ever
    tiny_model.save_pretrained(tmp_path, state_dict=dict(state), include_backbone=False)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == {name for name in state if not name.startswith("backbone.")}


def test_best_model_is_restored_bit_for_bit(build: Build) -> None:
    trainer = build(save_total_limit=None)
    trainer.train()
    saved = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    live = trainer.model.state_dict()
    assert saved and all(torch.equal(live[name], tensor) for name, tensor in saved.items())
    assert set(live) - set(saved) == {name for name in live if name.startswith("backbone.")}


def test_best_model_with_average_is_the_average(build: Build) -> None:
    trainer = build(ema_decay=0.9)
    trainer.train()
    folder = Path(trainer.state.best_model_checkpoint)
    average, raw = load_file(folder / EMA_FILE), load_file(folder / "model.safetensors")
    live = trainer.model.state_dict()
    assert all(torch.equal(live[name], tensor) for name, tensor in average.items())
    assert any(not torch.equal(raw[name], tensor) for name, tensor in average.items())


def test_foreign_checkpoint_is_refused(build: Build, tmp_path: Path) -> None:
    trainer = build()
    trainer.train()
    folder = Path(trainer.state.best_model_checkpoint)
    trainer.model.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="extra"):
        trainer._load_from_checkpoint(str(folder))


def test_resume_without_a_checkpoint_names_the_folder(build: Build) -> None:
    with pytest.raises(ValueError, match="no complete checkpoint"):
        build().train(resume_from_checkpoint=True)


def test_sampler_orders_by_seed_and_epoch_only() -> None:
    first, again = EpochSampler(10, seed=3), EpochSampler(10, seed=3)
    assert list(first) == list(again) and sorted(first) == list(range(10))
    again.set_epoch(1)
    again.set_epoch(1)
    assert list(first) != list(again)
    assert list(EpochSampler(10, seed=4)) != list(first)


@pytest.mark.parametrize(("num_rows", "multiple", "length"), [(10, 4, 8), (3, 4, 3), (8, 4, 8)])
def test_sampler_fills_whole_steps(num_rows: int, multiple: int, length: int) -> None:
    sampler = EpochSampler(num_rows, seed=0, multiple_of=multiple)
    assert len(sampler) == len(list(sampler)) == length


def test_two_ranks_partition_one_draw() -> None:
    draw = BatchSampler(EpochSampler(16, seed=0, multiple_of=8), 4, drop_last=False)
    ranks = [[row for batch in BatchSamplerShard(draw, 2, rank) for row in batch] for rank in range(2)]
    assert not set(ranks[0]) & set(ranks[1]) and len(ranks[0]) + len(ranks[1]) == 16


def test_tensorboard_file_is_written(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    build(report_to="tensorboard", max_steps=2).train()
    events = EventAccumulator(str(next((tmp_path / "logs").rglob("events.*")).parent)).Reload()
    assert {"train/loss", "train/loss_focal", "eval/mcc"} <= set(events.Tags()["scalars"])

"""One training step: nothing in it waits for the device, frozen features are computed once, precision is right."""

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.trainer import RoadworkTrainer
from tests.training_rows import pixel_model, pixel_rows, token_rows


# What asks the device for a value, or copies one to it from memory it cannot read on its own (`torch.tensor(list)`).
WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "unique2", "_unique2", "lift_fresh"}
QUIET = {"eval_strategy": "no", "save_strategy": "no", "logging_strategy": "no", "load_best_model_at_end": False}


class Waits(TorchDispatchMode):
    """Notes where an operation waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Callable, types: object, args: tuple = (), kwargs: dict | None = None):  # noqa: ANN204
        if operation.overloadpacket.__name__ in WAITS:
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            # `one_hot` looks at its values on a CPU only; a loader draws its seed on the host, once an epoch.
            if not any(frame.name == "soft_targets" or frame.filename.endswith("data_loader.py") for frame in frames):
                self.found.append(f"{operation} at {frames[-2].filename}:{frames[-2].lineno}")
        return operation(*args, **(kwargs or {}))


class ByStep(TrainerCallback):
    """Keeps what was found between the ends of two steps."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits
        self.steps: list[list[str]] = []

    def on_step_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        self.steps.append(self.waits.found)
        self.waits.found = []


def trainer_of(model: RoadworkForImageClassification, rows: list, folder: Path, **settings: object) -> RoadworkTrainer:
    defaults = {"use_cpu": True, "disable_tqdm": True, "max_steps": 3, "per_device_train_batch_size": 4} | QUIET
    args = RoadworkTrainingArguments(output_dir=str(folder), **defaults | settings)
    return RoadworkTrainer(model=model, args=args, train_dataset=rows, eval_dataset=rows)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}, {"gradient_accumulation_steps": 2}], ids=str)
@pytest.mark.parametrize("live", [False, True], ids=["tokens", "pixels"])
def test_no_step_waits_for_the_device(
    tiny_model: RoadworkForImageClassification, tmp_path: Path, live: bool, settings: dict
) -> None:
    model, rows = (pixel_model(), pixel_rows(16)) if live else (tiny_model, token_rows(16))
    trainer, waits = trainer_of(model, rows, tmp_path, **settings), Waits()
    by_step = ByStep(waits)
    trainer.add_callback(by_step)
    with waits:
        trainer.train()
    assert by_step.steps[1:] == [[], []]  # the first step also makes the optimizer's state, once


def test_waiting_is_seen() -> None:
    with Waits() as waits:
        torch.ones(1).item()
        torch.tensor([1.0])
        torch.ones(2).nonzero()
    assert len(waits.found) == 3


def test_a_step_with_metadata_needs_no_value(tiny_config: RoadworkConfig) -> None:
    """On the meta device there are no values to ask for: whoever does raises."""
    tiny_config.metadata_fields = ["gps", "weather", "daytime", "scene", "text"]
    tiny_config.loss_weights = {"focal": 0.4, "consistency": 0.25, "weather": 0.15}
    with torch.device("meta"):
        model = RoadworkForImageClassification(tiny_config).train()
        tags = {f"{name}_ids": torch.zeros(4, 2, dtype=torch.long) for name in ("weather", "daytime", "scene")}
        output = model(
            pixel_values=torch.zeros(4, 12, 3, 32, 32, dtype=torch.uint8),
            gps=torch.zeros(4, 2),
            text_embeddings=torch.zeros(4, 384),
            labels=torch.zeros(4, dtype=torch.long),
            weather_labels=torch.zeros(4, dtype=torch.long),
            **tags,
        )
    output.loss.backward()
    assert output.loss.is_meta and set(output.loss_parts) == {"focal", "consistency", "weather"}


def test_frozen_features_are_computed_once_a_step(tmp_path: Path) -> None:
    model, passes = pixel_model(), []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    trainer_of(model, pixel_rows(16), tmp_path, activation_checkpointing=True).train()
    assert len(passes) == 3


def test_view_chunk_is_a_setting_of_the_run(tmp_path: Path) -> None:
    model, sizes = pixel_model(), []
    model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    trainer_of(model, pixel_rows(16), tmp_path, view_chunk=8, max_steps=1).train()
    assert sizes == [8, 4]  # four photos of three views


def test_optimizer_is_fused_adamw(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_model, token_rows(16), tmp_path)
    optimizer = trainer.create_optimizer()
    assert type(optimizer) is torch.optim.AdamW and all(group["fused"] for group in optimizer.param_groups)


def test_bfloat16_covers_the_live_backbone_and_not_the_loss(tmp_path: Path) -> None:
    model, types = pixel_model(), []
    model.backbone.model.layer[0].mlp.up_proj.register_forward_hook(lambda *a: types.append(a[-1].dtype))
    model.attention_layers[0].attention.qkv_proj.register_forward_hook(lambda *a: types.append(a[-1].dtype))
    trainer = trainer_of(model, pixel_rows(16), tmp_path, bf16=True, max_steps=1)
    seen: list[Tensor] = []
    compute = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: seen.append(compute(*args, **kwargs)) or seen[-1]
    trainer.train()
    assert types == [torch.bfloat16, torch.bfloat16]
    assert seen[0].dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_bfloat16_gives_about_the_same_logits(tiny_model: RoadworkForImageClassification) -> None:
    rows = torch.stack([row["view_features"] for row in token_rows(4)])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = tiny_model(view_features=rows).logits.float()
    with torch.no_grad():
        torch.testing.assert_close(rough, tiny_model(view_features=rows).logits, rtol=0, atol=2e-2)

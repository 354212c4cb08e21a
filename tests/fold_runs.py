"""A tiny base and tiny runs of the fold recipe on it, for the tests of fine-tuning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.runs import RunResult
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetuning import finetune_folds
from natix_roadwork.training.pretraining import pretrain
from natix_roadwork.training.yaml_args import parse_recipe
from tests.recipe_photos import write_photos


RECIPES = Path(__file__).parents[1] / "recipes"
ROWS = {"train": 20, "dev": 24, "test": 12}
COMMON = {"use_cpu": "true", "disable_tqdm": "true", "report_to": "none"}
VARYING = ("wall_seconds", "peak_memory_bytes", "peak_gpu_memory_bytes", "commit", "dirty")


def pairs(settings: dict[str, object]) -> list[str]:
    return [f"--{key}={value}" for key, value in settings.items()]


def train_base(folder: Path, write: Callable[..., Path] = write_photos, **settings: object) -> Path:
    """Photos, a backbone and a trained model in one folder; its epoch is chosen on a part of train."""
    photos = write(folder / "photos", ROWS)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = DINOv3ViTConfig(patch_size=16, image_size=32, num_register_tokens=4, **sizes)
    DINOv3ViTModel(config).save_pretrained(folder / "backbone")
    own = {
        "dataset_name": photos,
        "backbone_id": folder / "backbone",
        "output_dir": folder / "base",
        "feature_cache": folder / "tokens",
        "view_size": 32,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_attention_layers": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "selection_share": 0.3,
        "baselines": "false",
        "gps_sampling": "off",
        "seed": 1,
    }
    recipe = ["--config", str(RECIPES / "pretrain" / "model_1_baseline.yaml")]
    pretrain(*parse_recipe(recipe + pairs(COMMON | own | settings), (PretrainArguments, RoadworkTrainingArguments)))
    return folder / "base"


def fold_command(
    base: Path, output_dir: Path, variant: str = "model_1_baseline.yaml", **settings: object
) -> list[str]:
    """The command line of a tiny run: two folds of a few steps, from cached draws."""
    own = {
        "base_model": base,
        "output_dir": output_dir,
        "feature_cache": "auto",
        "num_folds": 2,
        "num_train_epochs": 3,
        "selection_share": 0.3,
        "adapter_rank": 2,
        "feature_draws": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
    }
    return ["--config", str(RECIPES / "finetune_folds" / variant), *pairs(COMMON | own | settings)]


def run_folds(base: Path, output_dir: Path, **settings: object) -> RunResult:
    command = fold_command(base, output_dir, **settings)
    return finetune_folds(*parse_recipe(command, (FinetuneArguments, RoadworkTrainingArguments)))


def outcome(folder: Path) -> dict[str, Any]:
    """Everything a run leaves for others: the bytes of each file, and its result without times and checkout."""
    names = [folder / "oof.arrow", folder / "folds.json", *sorted((folder / "adapters").rglob("*"))]
    found: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in names if path.is_file()
    }
    result = json.loads((folder / "result.json").read_text())
    result["config"].pop("output_dir")
    return found | {"result": {key: value for key, value in result.items() if key not in VARYING}}

"""Tiny students, a made-up teacher and tiny distillations, for the tests of the lite profile."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from natix_roadwork.data.predictions import Predictions, write_predictions
from natix_roadwork.training.distillation_student import label_settings


ROOT = Path(__file__).parents[1]
ROWS = {"train": 32, "dev": 12}
WIDTH = 4  # of the teacher's embedding
TINY_VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "patch_size": 56,
}
TINY = {
    "vit": TINY_VIT,
    "swinv2": {"model_type": "swinv2", "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "patch_size": 16},
    "dinov2": TINY_VIT | {"model_type": "dinov2", "image_size": 224},
    "convnextv2": {"model_type": "convnextv2", "hidden_sizes": [4, 4, 4, 4], "depths": [1, 1, 1, 1]},
    "efficientnet": {
        "model_type": "efficientnet",
        "width_coefficient": 0.1,
        "depth_coefficient": 0.1,
        "hidden_dim": 128,
    },
}


def tiny_student(name: str = "vit", seed: int = 0) -> PreTrainedModel:
    """An untrained student of two classes."""
    config = dict(TINY[name])
    torch.manual_seed(seed)
    made = AutoConfig.for_model(config.pop("model_type"), **config, **label_settings())
    return AutoModelForImageClassification.from_config(made).eval()


def teacher(splits: dict[str, int] | None = None, name: str = "teacher", seed: int = 0, **values: Any) -> Predictions:
    """Answers to the rows of `tests.recipe_photos`: out of fold on train, right with a margin of about 3."""
    counts = splits or ROWS
    names = [(split, row) for split, count in counts.items() for row in range(count)]
    labels = np.array([row % 2 for _, row in names])
    margins = 3.0 * (2 * labels - 1) + np.random.default_rng(seed).normal(size=len(names))
    fields = {
        "row_ids": np.array([f"{split}/{row}.png" for split, row in names]),
        "labels": labels,
        "groups": np.array([f"{split}{row}" for split, row in names]),
        "splits": np.array([split for split, _ in names]),
        "logits": np.stack([-margins / 2, margins / 2], axis=1).astype(np.float32),
        "embeddings": (margins[:, None] + np.random.default_rng(seed + 1).normal(size=(len(names), WIDTH))).astype(
            "f4"
        ),
        "folds": np.array([row % 3 if split == "train" else -1 for split, row in names]),
        "transforms": np.zeros(len(names), dtype=np.int64),
        "record": {"learned_from": ["train"]},
    }
    return Predictions(member=name, **fields | values)


def teacher_file(folder: Path, **values: Any) -> Path:
    """Write such answers."""
    made = teacher(**values)
    write_predictions(folder / f"{made.member}.arrow", made)
    return folder / f"{made.member}.arrow"


def recipe(name: str) -> ModuleType:
    """A script of recipes/ as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_recipe", ROOT / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distill_command(photos: Path, predictions: list[Path], output_dir: Path, **settings: object) -> list[str]:
    """The command line of a tiny run on the CPU."""
    own = {
        "dataset_name": photos,
        "output_dir": output_dir,
        "student_config": json.dumps(TINY_VIT),
        "near_duplicates": "false",
        "num_seeds": 1,
        "num_train_epochs": 3,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 8,
        "dataloader_num_workers": 0,
        "selection_share": 0.3,
        "use_cpu": "true",
        "disable_tqdm": "true",
    }
    pairs = [f"--{key}={value}" for key, value in (own | settings).items()]
    files = ["--predictions", *map(str, predictions)]
    return ["--config", str(ROOT / "recipes" / "distill" / "stock_vit.yaml"), "--student_id=null", *pairs, *files]

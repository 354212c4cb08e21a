"""Rows of tokens and a trainer over them, for the tests of training."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, EvalPrediction

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.trainer import RoadworkTrainer


Row = dict[str, Tensor]


def token_rows(num_rows: int, seed: int = 0) -> list[Row]:
    """Rows of tokens (V, T, D) = (12, 6, 16) whose label can be read from the global view."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(num_rows):
        features = torch.randn(12, 6, 16, generator=generator)
        features[0] += 2 * (index % 2) - 1
        mask = torch.ones(12, dtype=torch.bool)
        rows.append({"view_features": features, "view_mask": mask, "labels": torch.tensor(index % 2)})
    return rows


def pixel_rows(num_rows: int, seed: int = 0) -> list[Row]:
    """Rows of three views of 32 pixels, uint8, whose label is their brightness."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(num_rows):
        low, high = (0, 128) if index % 2 == 0 else (128, 256)
        pixels = torch.randint(low, high, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
        rows.append({"pixel_values": pixels, "labels": torch.tensor(index % 2)})
    return rows


def pixel_model(seed: int = 0, **config: object) -> RoadworkForImageClassification:
    """A tiny DINOv3 with a tiny head for `pixel_rows`, dropout on."""
    torch.manual_seed(seed)
    backbone = DINOv3ViTConfig(
        hidden_size=16,
        image_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_register_tokens=4,
        patch_size=16,
    )
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_attention_layers": 1, "evidence_size": 4}
    views = {"num_views": 3, "keep_views": 2, "view_size": 32, "evidence_grid": 2, "wide_views": [0, 1, 2]}
    return RoadworkForImageClassification(RoadworkConfig(backbone_config=backbone, **sizes | views | config))


def accuracy_as_mcc(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy under the name by which the best model is chosen."""
    return {"mcc": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def pixel_trainer(
    output_dir: Path, sampling_weights: NDArray[np.float64] | None = None, **settings: object
) -> RoadworkTrainer:
    """A run of twelve steps over two and a half epochs that saves every second step."""
    defaults = {
        "use_cpu": True,
        "disable_tqdm": True,
        "max_steps": 12,
        "logging_strategy": "no",
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "ema_decay": 0.9,
        "seed": 3,
    }
    return RoadworkTrainer(
        model=pixel_model(),
        args=RoadworkTrainingArguments(output_dir=str(output_dir), **defaults | settings),
        train_dataset=pixel_rows(20),
        eval_dataset=pixel_rows(6, seed=1),
        compute_metrics=accuracy_as_mcc,
        sampling_weights=sampling_weights,
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor of a model, by name."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}

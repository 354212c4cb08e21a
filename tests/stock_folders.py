"""Model folders that plain transformers loads, of a few kilobytes, for the tests of the simulator and of the check."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    BitImageProcessor,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    PreTrainedConfig,
    Swinv2Config,
    TimmWrapperConfig,
    ViTConfig,
    ViTImageProcessor,
)


SIDE = 32
NAMES = {"num_labels": 2, "id2label": {0: "None", 1: "Roadwork"}, "label2id": {"None": 0, "Roadwork": 1}}
_VIT = {
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    **{"image_size": SIDE, "patch_size": 16},
}
_SWIN = {
    **{"image_size": SIDE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
    "window_size": 4,
}


def stock_config(kind: str, **settings: Any) -> PreTrainedConfig:
    """A tiny config of `vit`, `swinv2`, `dinov2`, `dinov2_with_registers` or `timm`."""
    values = NAMES | settings
    if kind == "timm":
        return TimmWrapperConfig(architecture="resnet10t", **values)
    kinds = {"vit": ViTConfig, "dinov2": Dinov2Config, "dinov2_with_registers": Dinov2WithRegistersConfig}
    return Swinv2Config(**_SWIN | values) if kind == "swinv2" else kinds[kind](**_VIT | values)


def save_stock(folder: Path, kind: str = "vit", processor: str = "vit", **settings: Any) -> Path:
    """Save a model with random weights and `ViTImageProcessor` (`vit`) or `BitImageProcessor` (`bit`)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageClassification.from_config(stock_config(kind, **settings))
    model.save_pretrained(folder)
    vit = ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    bit = BitImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    {"vit": vit, "bit": bit}[processor].save_pretrained(folder)
    return folder


def save_brightness_model(folder: Path) -> Path:
    """Save a ViT that calls bright photos roadwork: its classifier is the difference of the class means."""
    save_stock(folder)
    model = AutoModelForImageClassification.from_pretrained(folder)
    processor = ViTImageProcessor.from_pretrained(folder)
    draw = np.random.default_rng(0)
    means = []
    for low in (0, 140):
        pixels = [draw.integers(low, low + 100, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(16)]
        inputs = processor([Image.fromarray(array) for array in pixels], return_tensors="pt")
        with torch.no_grad():
            means.append(model.vit(**inputs).last_hidden_state[:, 0].mean(dim=0))
    direction = means[1] - means[0]
    with torch.no_grad():
        model.classifier.weight.copy_(torch.stack([-direction, direction]))
        model.classifier.bias.copy_(torch.stack([direction, -direction]) @ (means[0] + means[1]) / 2)
    model.save_pretrained(folder)
    return folder


def change_json(path: Path, **values: object) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    content |= values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

"""A tiny ablation for tests: bright and dark photos, a backbone of two layers, heads of two epochs."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.training.ablation_settings import AblationArguments
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments


CITIES = {"Pittsburgh": (40.44, -80.0), "Boston": (42.36, -71.06)}


def write_sources(folder: Path, num_rows: int = 24) -> Path:
    """Write `photos`, an imagefolder whose label is the brightness, and `backbone`, whose class token is of its own."""
    draw = np.random.default_rng(0)
    for split, rows in {"train": num_rows, "dev": 8}.items():
        (folder / "photos" / split).mkdir(parents=True)
        lines = []
        for row in range(rows):
            low = 110 if row % 2 else 60
            pixels = draw.integers(low, low + 90, (96, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / split / f"{row}.png")
            city = list(CITIES)[row // 2 % 2]
            gps = [value + draw.normal(0, 0.1) for value in CITIES[city]]
            values = {"gps": str(gps), "weather": ["Sunny", "Rainy"][row // 4 % 2], "city_name": city}
            lines.append(json.dumps({"file_name": f"{row}.png", "label": row % 2, **values}))
        (folder / "photos" / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = DINOv3ViTConfig(patch_size=16, image_size=32, num_register_tokens=4, **sizes)
    DINOv3ViTModel(config).save_pretrained(folder / "backbone")
    return folder


def tiny_settings(sources: Path, **changes: object) -> PretrainArguments:
    """The default of a tiny ablation; its tokens are kept beside its sources."""
    given: dict[str, object] = {
        "dataset_name": str(sources / "photos"),
        "backbone_id": str(sources / "backbone"),
        "feature_cache": str(sources / "tokens"),
        "view_size": 32,
        "hidden_size": 16,
        "evidence_size": 8,
        "evidence_grid": 2,
        "num_attention_heads": 2,
        "num_attention_layers": 1,
        "keep_views": 12,
        "selection_share": 0.25,
        "near_duplicates": False,
        "existing_run": "resume",
    }
    return PretrainArguments(**given | changes)


def tiny_training(folder: Path, **changes: object) -> RoadworkTrainingArguments:
    """Two epochs on the CPU."""
    given = {"use_cpu": True, "disable_tqdm": True, "num_train_epochs": 2, "per_device_train_batch_size": 8, "seed": 3}
    return RoadworkTrainingArguments(output_dir=str(folder), **given | changes)


def tiny_ablation(*rows: str, **changes: object) -> AblationArguments:
    """Two folds of the named rows."""
    return AblationArguments(rows=list(rows), **{"num_folds": 2} | changes)

"""A lite student as a folder that the stock miner, and any reader with transformers, loads without code of ours.

In come a model and its image processor; out goes a folder of `config.json`, `model.safetensors`,
`preprocessor_config.json`, `model_card.json`, `README.md`, and the miner's `ViT_roadwork.yaml` and `miner.env`.
"""

import copy
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel, ViTImageProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging

from natix_roadwork.calibration import anchor_none
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.hub.model_card_json import MODEL_CARD_NAME
from natix_roadwork.hub.model_card_json import write as write_model_card
from natix_roadwork.subnet.challenge import VIEW_SIDE
from natix_roadwork.training.distillation_student import (
    LABELS,
    STOCK_MODEL_TYPES,
    check_profile,
    label_settings,
    vit_processor,
)


logger = logging.get_logger(__name__)

PROCESSOR_TYPE = "ViTImageProcessor"
DETECTOR_FILE = "ViT_roadwork.yaml"
# Sizes (width, height) of the pictures on which two image processors must agree to the bit.
TRIED_SIZES = ((VIEW_SIDE, VIEW_SIDE), (640, 360), (300, 500), (97, 151))
_README = """---
library_name: transformers
pipeline_tag: image-classification
tags: [roadwork]
---

# {model_name}

{description}

```python
from transformers import pipeline

classify = pipeline("image-classification", model="{repo_id}")
classify("photo.jpg")  # [{{'label': 'Roadwork', 'score': ...}}, {{'label': 'None', 'score': ...}}]
```

One view of 224 x 224 pixels, to which the whole photo is squashed; no metadata, no code of its own. Probability 0.5 is the
cut. For a miner of NATIX's subnet: `miner.env` and `ViT_roadwork.yaml`.
"""


@dataclass(frozen=True)
class LiteCard:
    """What `model_card.json` says of a student.

    Attributes:
        model_name: Its name.
        description: One or two sentences.
        version: X.Y.Z.
        submitted_by: Hotkey of the wallet that submits it; empty = no `model_card.json` yet.
        repo_id: Hub id it will be published under.
    """

    model_name: str
    description: str
    version: str = "1.0.0"
    submitted_by: str = ""
    repo_id: str = "user/roadwork-lite"


def export_lite(
    model: PreTrainedModel, processor: BaseImageProcessor, folder: str | Path, card: LiteCard, profile: str
) -> Path:
    """Write the folder, whole or not at all, and read it back to compare.

    The model's probabilities are kept; its logit of None is made 0 (`calibration.anchor_none` says why).

    Args:
        model: Two labels, stock architecture, not changed; its threshold at 0.5 (`training/distillation_training.py` does that).
        processor: The one it was trained with.
        folder: Must not exist yet.
        card: What the card says.
        profile: `stock-4.45` or `modern`.

    Raises:
        ValueError: If the folder exists, the profile cannot load the architecture, a weight is not finite, the processor
            is not to be had as `ViTImageProcessor` with equal pixels, or what was written answers differently.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists already; delete it or choose another folder")
    _check_model(model, profile)
    plain, model = as_vit_processor(processor), copy.deepcopy(model).float().cpu().eval()
    anchor_none(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(part, model, plain, card)
        _compare(part, model, plain)
        part.chmod(0o755)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def as_vit_processor(processor: BaseImageProcessor) -> ViTImageProcessor:
    """Return the `ViTImageProcessor` that gives the same pixels.

    transformers 4.45.2, asked for fast processors as the stock miner does, knows no other class.

    Raises:
        ValueError: If there is none: the processor crops, keeps the aspect, or has another size.
    """
    settings: dict[str, Any] = processor.to_dict()
    if not settings.get("do_normalize", True) or not settings.get("do_rescale", True):
        raise ValueError(f"{type(processor).__name__} does not rescale and normalise; a stock reader does both")
    plain = vit_processor(settings["image_mean"], settings["image_std"], int(settings.get("resample", 2)))
    draw = np.random.default_rng(0)
    for width, height in TRIED_SIZES:
        picture = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        wanted, found = (one(images=picture, return_tensors="pt")["pixel_values"] for one in (processor, plain))
        if wanted.shape != found.shape or not torch.equal(wanted, found):
            raise ValueError(
                f"{type(processor).__name__} gives other pixels than {PROCESSOR_TYPE} for a picture of {width} x {height}, so the "
                f"model would see in deployment what it was not trained on; train it with {PROCESSOR_TYPE} at {VIEW_SIDE} "
                "pixels (no crop, aspect not kept)"
            )
    return plain


def processor_settings(processor: ViTImageProcessor) -> dict[str, Any]:
    """Return what `preprocessor_config.json` holds, every setting explicit."""
    settings = processor.to_dict()
    size = {"height": int(settings["size"]["height"]), "width": int(settings["size"]["width"])}
    return {
        "image_processor_type": PROCESSOR_TYPE,
        "do_resize": True,
        "size": size,
        "resample": int(settings["resample"]),
        "do_rescale": True,
        "rescale_factor": float(settings["rescale_factor"]),
        "do_normalize": True,
        "image_mean": [float(value) for value in settings["image_mean"]],
        "image_std": [float(value) for value in settings["image_std"]],
    }


def _check_model(model: PreTrainedModel, profile: str) -> None:
    check_profile(model.config.model_type, profile)
    if model.config.model_type not in STOCK_MODEL_TYPES:
        logger.warning(
            f"The stock miner's transformers 4.45.2 cannot load model_type={model.config.model_type!r}; readers need a newer one."
        )
    if model.config.num_labels != len(LABELS):
        raise ValueError(f"num_labels={model.config.num_labels}; a lite model has two, {LABELS}")
    if getattr(model.config, "auto_map", None):
        raise ValueError(f"{type(model).__name__} needs code of its own (auto_map); a lite folder holds none")
    bad = [name for name, weight in model.state_dict().items() if not torch.isfinite(weight).all()]
    if bad:
        raise ValueError(f"weights {bad[:3]} are not finite ({len(bad)} such tensors); train the model again")


def _write(folder: Path, model: PreTrainedModel, processor: ViTImageProcessor, card: LiteCard) -> None:
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # timm's own record would make AutoImageProcessor ignore preprocessor_config.json; what it says is in there.
    config.pop("pretrained_cfg", None)
    config.pop("label_names", None)
    names = label_settings()
    config |= {"id2label": {str(key): name for key, name in names["id2label"].items()}, "label2id": names["label2id"]}
    config |= {"num_labels": names["num_labels"], "problem_type": "single_label_classification"}
    _write_json(folder / "config.json", config)
    _write_json(folder / "preprocessor_config.json", processor_settings(processor))
    _write_card(folder, card)
    readme = _README.format(model_name=card.model_name, description=card.description, repo_id=card.repo_id)
    write_whole(folder / "README.md", readme.encode())
    detector = {"hf_repo": card.repo_id, "config_name": "config.yaml", "weights": "model.safetensors"}
    write_whole(folder / DETECTOR_FILE, yaml.safe_dump(detector, sort_keys=False).encode())
    write_whole(folder / "miner.env", f"IMAGE_DETECTOR=ViT\nIMAGE_DETECTOR_CONFIG={DETECTOR_FILE}\n".encode())


@torch.no_grad()
def _compare(folder: Path, model: PreTrainedModel, processor: ViTImageProcessor) -> None:
    """Read the folder as a stranger would and compare labels, pixels and logits."""
    read = AutoModelForImageClassification.from_pretrained(folder).eval()
    again = AutoImageProcessor.from_pretrained(folder)
    if read.config.id2label != LABELS or type(again).__name__ != PROCESSOR_TYPE:
        raise ValueError(f"written, the model has labels {read.config.id2label} and a {type(again).__name__}")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    pixels = [one(images=picture, return_tensors="pt")["pixel_values"] for one in (processor, again)]
    answers = [one(pixel_values=pixels[0]).logits for one in (model, read)]
    if not torch.equal(*pixels) or not torch.allclose(*answers, atol=1e-5):
        raise ValueError(f"written to {folder} and read back, the model answers {answers[1]} and not {answers[0]}")


def _write_card(folder: Path, card: LiteCard) -> None:
    """Write `model_card.json`; without a hotkey it would be refused, so it is left to the publishing."""
    if not card.submitted_by:
        logger.warning(
            f"No {MODEL_CARD_NAME} in {folder.name}: submitted_by is empty; publishing writes one with a hotkey."
        )
        return
    known = {"model_name": card.model_name, "description": card.description, "version": card.version}
    write_model_card(folder, submitted_by=card.submitted_by, **known)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())

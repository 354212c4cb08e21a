"""What the files of a model's folder say, before anything is loaded: would a stock miner of NATIX's subnet load them?

In comes a folder; out go `Finding`s. The stock miner of January 2026 pins transformers 4.45.2 and loads with
`AutoModelForImageClassification` and `AutoImageProcessor(use_fast=True)`, without remote code, on the CPU, and reads the
score of the label `Roadwork`. `check_answers.py` then loads the folder and asks it.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCard
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
from yaml import YAMLError

from natix_roadwork.hub.findings import Finding
from natix_roadwork.inference.challenge_answers import ROADWORK
from natix_roadwork.model.configuration_roadwork import RoadworkConfig


Profile = Literal["stock-4.45", "modern"]
STOCK: Profile = "stock-4.45"
MODERN: Profile = "modern"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
# The model types that AutoModelForImageClassification of transformers 4.45.2 knows.
STOCK_TYPES = frozenset(
    "beit bit clip convnext convnextv2 cvt data2vec-vision deit dinat dinov2 efficientformer efficientnet focalnet hiera "
    "imagegpt levit mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 nat perceiver poolformer pvt pvt_v2 regnet resnet "
    "segformer siglip swiftformer swin swinv2 van vit vit_hybrid vit_msn".split()
)
# use_fast=True makes 4.45.2 look for the class with "Fast" behind its name, of which it has this one.
STOCK_PROCESSORS = ("ViTImageProcessor", "ViTImageProcessorFast")
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
_TRAINING = re.compile(
    r"checkpoint-\d+/(optimizer|scheduler|scaler|rng_state\w*)\.(pt|pth|bin)$"
)  # the Trainer's own state
PIPELINE_LABELS = 5  # the pipeline returns so many labels at most
MINER_MEMORY = 4e9  # bytes, what the subnet asks miners to have
DISTILL = "recipes/distill.py makes a lite folder of it, of a stock architecture"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where the file is absent or holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_files(folder: Path, profile: Profile) -> list[Finding]:
    """Look at config, image processor, weights, code, size and licence of a folder that holds a config.json."""
    config = read_json(folder / CONFIG) or {}
    processor = read_json(folder / PROCESSOR)
    return [
        check_architecture(config, profile),
        check_labels(config),
        check_processor(processor, config, profile),
        check_remote_code(config, processor or {}),
        check_weights(folder),
        check_size(folder),
        check_licence(folder, config),
    ]


def check_architecture(config: dict[str, Any], profile: Profile) -> Finding:
    """Say whether the miner's transformers knows the model type."""
    name, kind = "architecture", model_type(config)
    if kind == RoadworkConfig.model_type:
        return Finding(name, "fail", f"{kind}, the full model, runs code of its own; a stock miner runs none", DISTILL)
    if kind in STOCK_TYPES:
        return Finding(name, "pass", f"{kind}: transformers 4.45.2 and newer know it (profile {STOCK})")
    if kind not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        found = f"model_type {kind!r} is no image classifier of transformers: nothing loads, every answer is -1"
        return Finding(
            name, "fail", found, f"train one of {', '.join(sorted(STOCK_TYPES)[:4])}, ... dinov2, swinv2, vit"
        )
    if profile == MODERN:
        return Finding(name, "pass", f"{kind}: newer transformers know it, 4.45.2 does not (profile {MODERN})")
    found = f"{kind}: transformers 4.45.2 does not know it, every answer is -1"
    return Finding(name, "fail", found, f"distil into dinov2, swinv2 or vit, or --profile {MODERN} for a newer miner")


def model_type(config: dict[str, Any]) -> str:
    """Return a config's model type; timm's own configs, which name none, are `timm_wrapper`."""
    return str(config.get("model_type") or ("timm_wrapper" if "pretrained_cfg" in config else ""))


def check_labels(config: dict[str, Any]) -> Finding:
    """Look for the one label that the miner reads."""
    name, found = "labels", config.get("id2label") or dict(enumerate(config.get("label_names") or []))
    names = list(found.values()) if isinstance(found, dict) else []
    fix = 'set id2label to {0: "None", 1: "Roadwork"} in config.json, with label2id to match'
    if ROADWORK not in names:
        near = [label for label in names if str(label).casefold() == ROADWORK.casefold()]
        what = f"{near[0]!r} is spelt otherwise" if near else f"there are {names[:4] or 'none, so LABEL_0, LABEL_1'}"
        return Finding(name, "fail", f"no label is exactly {ROADWORK!r} ({what}): KeyError, every answer is -1", fix)
    if len(names) > PIPELINE_LABELS:
        found = f"{len(names)} labels, of which the pipeline returns the best {PIPELINE_LABELS}: KeyError where {ROADWORK} is not there"
        return Finding(name, "warn", found, fix)
    return Finding(name, "pass", ", ".join(map(str, names)))


def check_processor(processor: dict[str, Any] | None, config: dict[str, Any], profile: Profile) -> Finding:
    """Say whether the miner's transformers finds the class that the file names, and what it makes of its settings."""
    name = "image processor file"
    fix = (
        "save a ViTImageProcessor(size={'height': ..., 'width': ...}) with the mean, std and resample of the training"
    )
    if processor is None:
        status = "warn" if profile == MODERN and model_type(config) == "timm_wrapper" else "fail"
        return Finding(name, status, f"no {PROCESSOR} that can be read", fix)
    kind = declared_processor(processor)
    if profile == MODERN:
        return Finding(name, "pass", f"{kind or 'no class'} is named; what is loaded stands below")
    if kind is not None and kind not in STOCK_PROCESSORS:
        found = f"{kind}: 4.45.2 looks for {kind.removesuffix('Fast')}Fast, which it has not; nothing loads, every answer is -1"
        return Finding(name, "fail", found, fix)
    if kind is None:
        found = (
            f"it names no image_processor_type, so that 4.45.2 takes the class of the model type {model_type(config)}"
        )
        return Finding(name, "warn", found, fix)
    size = processor.get("size", {"height": 224, "width": 224})
    if not isinstance(size, int) and not (isinstance(size, dict) and {"height", "width"} <= size.keys()):
        return Finding(name, "fail", f"size={size!r}: 4.45.2's ViTImageProcessor needs height and width", fix)
    if processor.get("do_center_crop") or processor.get("do_pad"):
        found = (
            "it asks for a crop or a border, which 4.45.2's ViTImageProcessor leaves out: other pixels than trained on"
        )
        return Finding(name, "fail", found, fix)
    missing = [key for key in ("image_mean", "image_std", "resample", "size") if key not in processor]
    if missing:
        return Finding(name, "warn", f"it leaves {', '.join(missing)} to the defaults of the miner's version", fix)
    return Finding(name, "pass", f"{kind}, size {size if isinstance(size, int) else (size['height'], size['width'])}")


def declared_processor(processor: dict[str, Any]) -> str | None:
    """Return the class that the file names, an old feature extractor by its new name."""
    old = str(processor.get("feature_extractor_type") or "").replace("FeatureExtractor", "ImageProcessor")
    return processor.get("image_processor_type") or old or None


def check_remote_code(*contents: dict[str, Any]) -> Finding:
    """Look for code of the folder's own."""
    maps = [content["auto_map"] for content in contents if content.get("auto_map")]
    if not maps:
        return Finding("remote code", "pass", "none is asked for")
    classes = {str(key) for entry in maps for key in entry}
    found = f"auto_map names {', '.join(sorted(classes))}: a stock miner runs no code of a repository"
    return Finding(
        "remote code", "fail", found, f"remove auto_map if transformers' own class is meant; else {DISTILL}"
    )


def check_weights(folder: Path) -> Finding:
    """Look for safetensors, and for pickles, which can run code when they are opened."""
    name, files = "weights", sorted(path for path in folder.rglob("*") if path.is_file())
    pickles = [path.relative_to(folder).as_posix() for path in files if path.suffix.lower() in PICKLES]
    tensors = [path.name for path in files if path.suffix == ".safetensors" and path.parent == folder]
    state = [path for path in pickles if _TRAINING.match(path)]
    others = [path for path in pickles if path not in state]
    if others:
        found = f"pickled files, which can run code when opened: {', '.join(others[:4])} ({len(others)})"
        return Finding(name, "fail", found, "save with safetensors (save_pretrained does) and delete them")
    if not tensors:
        return Finding(name, "fail", "no .safetensors beside config.json", "save the model with save_pretrained")
    if state:
        found = f"{tensors[0]}; {len(state)} pickled files of the training, {state[0]} among them"
        return Finding(name, "warn", found, "publish the folder without its checkpoint-N folders")
    return Finding(name, "pass", ", ".join(tensors[:3]) + (", ..." if len(tensors) > 3 else ""))


def check_size(folder: Path) -> Finding:
    """Add up the folder's files."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    text = f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
    if size <= MINER_MEMORY:
        return Finding("size on disk", "pass", text)
    return Finding(
        "size on disk", "warn", f"{text}; the subnet asks miners for {MINER_MEMORY / 1e9:g} GB of memory", "distil it"
    )


def check_licence(folder: Path, config: dict[str, Any]) -> Finding:
    """Read the licence from the card, and look for backbones whose weights carry a licence of their own."""
    name, card = "licence", {}
    if (folder / "README.md").is_file():
        try:
            card = ModelCard.load(folder / "README.md").data.to_dict()
        except (ValueError, YAMLError) as error:
            return Finding(
                name, "warn", f"the card's front matter cannot be read: {' '.join(str(error).split())[:120]}"
            )
    licence = str(card.get("license_name") or card.get("license") or config.get("license") or "").lower()
    base = card.get("base_model") or []
    bases = [base] if isinstance(base, str) else list(base)
    origin = " ".join([licence, *map(str, bases), model_type(config), str(config.get("architecture", ""))]).lower()
    shown = f"{licence or 'unknown'}" + (f", from {', '.join(map(str, bases))}" if bases else "")
    if "dinov3" in origin:
        found = f"{shown}: DINOv3 weights are gated and pass Meta's DINOv3 licence on to what contains them"
        return Finding(name, "warn", found, "name it in the card (license: other, license_name: dinov3-license)")
    if not licence or licence in ("other", "unknown"):
        return Finding(
            name, "warn", f"{shown}: no card or config names the licence", "name license and base_model in README.md"
        )
    if "-nc" in licence or "noncommercial" in licence.replace("-", ""):
        return Finding(
            name, "warn", f"{shown}: not for commercial use, which mining is", "take a backbone that is free to use"
        )
    return Finding(name, "pass", shown)

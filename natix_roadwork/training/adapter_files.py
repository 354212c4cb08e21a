"""Adapter folders: written for strangers, read back onto the right base, merged into plain weights.

In come `PeftModel`s of `finetuning.py`; out go folders `fold0`, `fold1`, ... in peft's layout, each with `base.json`
that names the base by hash, so that an adapter never lands on another model. Inference loads them by `load_adapters` or
as one model by `merged_soup`.
"""

import copy
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import AdaLoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import save_file
from torch import Tensor, nn

from natix_roadwork.model.backbone import hash_weights
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.adapters import CLASSIFIER_LAYERS, quiet_peft, take_off


WEIGHTS_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"
ONLY = "default"  # peft's name of an adapter that is alone on its model
_FOLD = re.compile(r"fold(\d+)")


@dataclass(frozen=True)
class BaseIdentity:
    """Which model an adapter belongs to: a name for people, the hash of all its weights for the check."""

    name: str
    sha256: str


def identify(model: RoadworkForImageClassification, name: str) -> BaseIdentity:
    """Hash a base, its backbone included.

    Raises:
        ValueError: If it wears an adapter.
    """
    if any(isinstance(part, BaseTunerLayer) for part in model.modules()):
        raise ValueError("base_model wears an adapter already; load it anew, or take the adapter off by take_off")
    return BaseIdentity(name, hash_weights(model))


def write_adapter(wearing: PeftModel, folder: str | Path, base: BaseIdentity) -> None:
    """Write the one adapter of a model in peft's layout, whole or not at all; no local path is written.

    Args:
        wearing: The model with the adapter.
        folder: The adapter's own folder, `fold0` say; one that is there is replaced.
        base: The model under the adapter.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = wearing.peft_config[ONLY]
    config.base_model_name_or_path, config.inference_mode = base.name, True
    if isinstance(config, AdaLoraConfig):
        config.rank_pattern = None  # with it, ranks at zero would be cut out, and the sums rounded otherwise
    state = get_peft_model_state_dict(wearing, adapter_name=ONLY, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, partial / WEIGHTS_FILE, metadata={"format": "pt"})
    kind = type(wearing.get_base_model())
    config.save_pretrained(
        str(partial), auto_mapping_dict={"base_model_class": kind.__name__, "parent_library": kind.__module__}
    )
    versions = {"peft": peft.__version__, "transformers": transformers.__version__}
    record = json.dumps({**asdict(base), "versions": versions}, indent=2, sort_keys=True)
    (partial / BASE_FILE).write_text(record + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def adapter_folders(folder: str | Path) -> dict[str, Path]:
    """Find the folders `fold0`, `fold1`, ... of a run, by name, in the order of their numbers.

    Raises:
        ValueError: If there is none.
    """
    folder = Path(folder)
    found = [path for path in folder.iterdir() if _FOLD.fullmatch(path.name)] if folder.is_dir() else []
    if not found:
        raise ValueError(f"{folder} holds no adapter folders fold0, fold1, ...; name the folder `adapters` of a run")
    return {path.name: path for path in sorted(found, key=lambda path: int(path.name.removeprefix("fold")))}


def load_adapters(base_model: RoadworkForImageClassification, folder: str | Path) -> PeftModel:
    """Put all adapters of a run on their base, by name; the first one is active, `set_adapter("fold1")` switches.

    Args:
        base_model: The model they were trained on, with its weights as saved; it is changed in place.
        folder: Holds `fold0`, `fold1`, ...

    Raises:
        ValueError: If there is none, or one belongs to another base.
    """
    return load_folders(base_model, adapter_folders(folder))


def load_folders(
    base_model: RoadworkForImageClassification, folders: dict[str, Path], base: BaseIdentity | None = None
) -> PeftModel:
    """Put adapters on their base, each under its name; as `load_adapters`.

    Args:
        base_model: The model they were trained on; it is changed in place.
        folders: Folder of each adapter by name.
        base: What `identify` says of the model; None = it is hashed here.

    Raises:
        ValueError: If the model wears an adapter already, or one of them belongs to another base.
    """
    found = (base or identify(base_model, "")).sha256
    for path in folders.values():
        _check_base(path, found)
    model: PeftModel | None = None
    with quiet_peft():
        for name, path in folders.items():
            options: dict[str, Any] = {"adapter_name": name, "torch_device": str(base_model.device)}
            if model is None:
                model = PeftModel.from_pretrained(base_model, str(path), **options)
            else:
                model.load_adapter(str(path), **options)
    if model is None:
        raise ValueError("folders is empty; name at least one adapter")
    model.set_adapter(next(iter(folders)), inference_mode=True)
    return model.eval()


def _check_base(folder: Path, found: str) -> None:
    record = folder / BASE_FILE
    if not record.is_file():
        raise ValueError(f"{folder} has no {BASE_FILE}, so nothing says which base it belongs to; fine-tune it anew")
    expected = json.loads(record.read_text(encoding="utf-8"))
    if expected["sha256"] != found:
        raise ValueError(
            f"{folder} is an adapter of another base: it was trained on {expected['name']!r} with weights "
            f"{expected['sha256'][:12]}..., this model has {found[:12]}...; load that base, in float32 as it was saved"
        )


def layer_weights(wearing: PeftModel, adapter: str = ONLY) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield every weight that an adapter changes: its name in the base, merged, and as the base has it."""
    for name, part in wearing.get_base_model().named_modules():
        if isinstance(part, BaseTunerLayer):
            before = part.get_base_layer()
            if hasattr(before.weight, "quant_state"):  # 4 bits: a merged copy would be rounded again
                weight = dequantize_module_weight(before).detach()
                yield f"{name}.weight", weight + part.get_delta_weight(adapter).detach(), weight
                continue
            after = _merged_layer(part, adapter)
        elif isinstance(part, ModulesToSaveWrapper):
            before, after = part.original_module, part.modules_to_save[adapter]
        else:
            continue
        own = dict(before.named_parameters())
        for key, weight in after.named_parameters():
            yield f"{name}.{key}", weight.detach(), own[key].detach()


def _merged_layer(layer: BaseTunerLayer, adapter: str) -> nn.Module:
    """Merge one layer in a copy: peft's unmerge does not bring the weights back bit for bit."""
    copied = copy.deepcopy(layer)
    copied.merge(adapter_names=[adapter])
    return copied.get_base_layer()


@torch.no_grad()
def weight_changes(wearing: PeftModel, adapter: str = ONLY) -> tuple[float, dict[str, float]]:
    """Measure how far an adapter moves its base.

    Args:
        wearing: The model with the adapter.
        adapter: Its name.

    Returns:
        The norm of all changes over the norm of all adapted weights (the classifier's aside), and the same for each
        weight by name, the classifier's too where it was trained.
    """
    ratios, squares = {}, torch.zeros(2, dtype=torch.float64)
    for name, after, before in layer_weights(wearing, adapter):
        if name.endswith(".weight"):
            pair = torch.stack([(after.double() - before.double()).norm(), before.double().norm()]).cpu()
            ratios[name] = float(pair[0] / pair[1])
            if not name.startswith(CLASSIFIER_LAYERS):
                squares += pair**2
    return float((squares[0] / squares[1]).sqrt()), ratios


def merge(base_model: RoadworkForImageClassification, folder: str | Path, fold: str) -> RoadworkForImageClassification:
    """Write one fold's adapter into the weights of its base, which is changed in place and returned.

    Args:
        base_model: The model it was trained on.
        folder: Holds `fold0`, `fold1`, ...
        fold: Name of the adapter, `fold0` say.

    Raises:
        ValueError: If there is no such adapter, or it belongs to another base.
    """
    folders = adapter_folders(folder)
    if fold not in folders:
        raise ValueError(f"fold={fold!r} is not among the adapters {list(folders)} in {folder}")
    return _merged(base_model, {fold: folders[fold]})


def merged_soup(base_model: RoadworkForImageClassification, folder: str | Path) -> RoadworkForImageClassification:
    """Average the merged weights of all folds: one model, as fast as its base, which is changed in place and returned.

    Each adapter is merged into the base's weights first and those are averaged. Averages of A, B and magnitudes would be
    another model, since the update is their product.

    Args:
        base_model: The model they were trained on.
        folder: Holds `fold0`, `fold1`, ...

    Raises:
        ValueError: If there is none, or one belongs to another base.
    """
    return _merged(base_model, adapter_folders(folder))


@torch.no_grad()
def _merged(base_model: RoadworkForImageClassification, folders: dict[str, Path]) -> RoadworkForImageClassification:
    wearing, sums = load_folders(base_model, folders), {}
    for name in folders:
        wearing.set_adapter(name, inference_mode=True)
        for key, weight, _ in layer_weights(wearing, name):
            sums[key] = sums.get(key, 0.0) + weight.double()
    base = take_off(wearing)
    weights = dict(base.named_parameters())
    for key, total in sums.items():
        weights[key].copy_(total / len(folders))
    return base

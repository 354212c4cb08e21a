"""Adapters of a trained model: which kind, on which layers, how large, and how a model wears one for a while.

In comes a trained base, out goes a `PeftModel` around it. `finetuning.py` trains one adapter a fold,
`adapter_files.py` writes, reads and merges them.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PeftModel, VeraConfig, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn

from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.four_bit import require_bitsandbytes


KINDS = ("dora", "lora", "rslora", "adalora", "vera", "ia3", "qlora")
AUTO, PLAN_TREE = "auto", "plan_tree"
AUTO_ORDER = ("dora", "vera", "ia3")  # the first that fits the budget
# The plan's choice by the parameters of the whole model: below the limit, that kind.
PLAN_LIMITS = ((4e9, "lora"), (32e9, "adalora"), (70e9, "vera"), (float("inf"), "ia3"))
# A name of the whole path: a backbone may have an `out_proj` of its own.
HEAD_TARGETS = r"attention_layers\.\d+\.attention\.(qkv_proj|out_proj)"
# Its layers, not "classifier", which would also match the one of a timm backbone.
CLASSIFIER_LAYERS = ("classifier.hidden", "classifier.output")
VERA_RANKS = 16  # times the rank of LoRA: its two projections are shared and frozen
ADALORA_START, ADALORA_FINAL = 0.1, 0.3  # shares of the steps before and after the ranks shrink


@dataclass(frozen=True)
class AdapterSettings:
    """What an adapter is.

    Attributes:
        kind: One of `KINDS`, `auto` or `plan_tree`.
        rank: r.
        alpha: LoRA's scale; the update is multiplied by alpha / r.
        dropout: Dropout of the adapter's input; off inside the backbone, which stays in evaluation.
        backbone_blocks: Last blocks of the backbone whose attention projections are adapted too.
        train_classifier: Whether the classifier is trained in full and saved with the adapter.
        parameter_budget: Most trainable parameters that `auto` may choose.
    """

    kind: str = "dora"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    backbone_blocks: int = 0
    train_classifier: bool = False
    parameter_budget: int = 1_000_000


@dataclass(frozen=True)
class AdapterChoice:
    """The kind chosen, its trainable parameters, counted, and why it was chosen."""

    kind: str
    trainable: int
    reason: str


def choose_adapter(model: RoadworkForImageClassification, settings: AdapterSettings) -> AdapterChoice:
    """Resolve `auto` and `plan_tree`, and count what is really trained.

    Args:
        model: The base; it wears each candidate for a moment and is left as it was.
        settings: What is asked for.

    Raises:
        ValueError: If the kind is unknown, or none fits the budget.
    """
    kind = settings.kind
    if kind == AUTO:
        return _within_budget(model, settings)
    reason = "as asked for"
    if kind == PLAN_TREE:
        total = sum(weight.numel() for weight in model.parameters())
        kind = next(name for limit, name in PLAN_LIMITS if total < limit)
        reason = f"the plan's tree: the model has {total / 1e9:.2g} billion parameters"
    return AdapterChoice(kind, trainable_parameters(model, kind, settings), reason)


def _within_budget(model: RoadworkForImageClassification, settings: AdapterSettings) -> AdapterChoice:
    budget, sizes = settings.parameter_budget, {}
    for kind in AUTO_ORDER:
        sizes[kind] = trainable_parameters(model, kind, settings)
        if sizes[kind] <= budget:
            tried = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
            return AdapterChoice(
                kind, sizes[kind], f"first of {', '.join(AUTO_ORDER)} within parameter_budget={budget:,} ({tried})"
            )
    raise ValueError(
        f"parameter_budget={budget:,} is below every kind ({', '.join(f'{k} {n:,}' for k, n in sizes.items())} trainable "
        "parameters); raise it, lower adapter_rank, or set train_classifier false"
    )


def trainable_parameters(model: RoadworkForImageClassification, kind: str, settings: AdapterSettings) -> int:
    """Count the weights that an adapter of this kind trains, by putting one on for a moment."""
    with adapted(model, adapter_config(model, kind, settings, total_steps=1)) as wearing:
        return sum(weight.numel() for weight in wearing.parameters() if weight.requires_grad)


def adapter_config(
    model: RoadworkForImageClassification, kind: str, settings: AdapterSettings, total_steps: int
) -> PeftConfig:
    """Write an adapter down as peft's config.

    Args:
        model: The base, whose layers are named.
        kind: One of `KINDS`.
        settings: Rank, scale, dropout and layers.
        total_steps: Optimizer steps of the training, by which AdaLoRA shrinks its ranks.

    Raises:
        ValueError: If the kind is unknown, or the backbone has no attention blocks to adapt.
        ImportError: If QLoRA is asked for without bitsandbytes.
    """
    rank, alpha, dropout = settings.rank, settings.alpha, settings.dropout
    layers = {
        "target_modules": target_pattern(model, settings.backbone_blocks),
        "modules_to_save": list(CLASSIFIER_LAYERS) if settings.train_classifier else None,
    }
    if kind == "qlora":
        require_bitsandbytes()
    if kind in ("dora", "lora", "rslora", "qlora"):
        choice = {"use_dora": kind == "dora", "use_rslora": kind == "rslora"}
        return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, **choice, **layers)
    if kind == "adalora":
        start, final = int(ADALORA_START * total_steps), int(ADALORA_FINAL * total_steps)
        ranks = {"init_r": rank * 3 // 2, "target_r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
        pace = {"tinit": start, "tfinal": final, "deltaT": max(1, total_steps // 100), "total_step": total_steps}
        return AdaLoraConfig(**ranks, **pace, **layers)
    if kind == "vera":
        return VeraConfig(r=VERA_RANKS * rank, vera_dropout=dropout, save_projection=True, **layers)
    if kind == "ia3":
        return IA3Config(feedforward_modules=[], **layers)
    raise ValueError(f"adapter={kind!r} is unknown; choose one of {', '.join((*KINDS, AUTO, PLAN_TREE))}")


def target_pattern(model: RoadworkForImageClassification, backbone_blocks: int = 0) -> str:
    """Return the regular expression over module names that says which layers are adapted.

    Args:
        model: The base.
        backbone_blocks: Last blocks of the backbone to adapt besides the head's gated attention.

    Raises:
        ValueError: If the backbone has fewer attention blocks.
    """
    names = attention_projections(model.backbone, backbone_blocks) if backbone_blocks else []
    return "|".join([HEAD_TARGETS, *(re.escape(f"backbone.{name}") for name in names)])


def attention_projections(backbone: nn.Module, num_blocks: int) -> list[str]:
    """Name the linear layers of attention in the last blocks of a backbone.

    The blocks are the longest list of modules that hold an attention, whatever the architecture calls them.

    Raises:
        ValueError: If there are fewer such blocks than `num_blocks`.
    """
    blocks: list[list[str]] = []
    for path, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            found = [_attention_linears(f"{path}.{name}", block) for name, block in module.named_children()]
            if all(found) and len(found) > len(blocks):
                blocks = found
    if len(blocks) < num_blocks:
        raise ValueError(
            f"backbone_blocks={num_blocks}, but {type(backbone).__name__} has {len(blocks)} attention blocks; set it to at "
            f"most {len(blocks)}" + ("" if blocks else ": a convolutional backbone cannot be adapted this way")
        )
    return [name for block in blocks[-num_blocks:] for name in block]


def _attention_linears(path: str, block: nn.Module) -> list[str]:
    return [
        f"{path}.{name}"
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) and any("att" in part for part in name.lower().split("."))
    ]


@contextmanager
def adapted(model: RoadworkForImageClassification, config: PeftConfig) -> Iterator[PeftModel]:
    """Put an untrained adapter on a base for the time of a block; the base comes out as it went in."""
    with quiet_peft():
        wearing = get_peft_model(model, config)
    try:
        yield wearing
    finally:
        take_off(wearing)


def take_off(wearing: PeftModel) -> RoadworkForImageClassification:
    """Take all adapters off and return the base with its own weights, a trained classifier included."""
    base = wearing.get_base_model()
    # peft's `unload` would leave the trained copies of whole layers in the place of the base's own.
    wrapped = {name: part for name, part in base.named_modules() if isinstance(part, ModulesToSaveWrapper)}
    wearing.unload()
    for name, part in wrapped.items():
        base.set_submodule(name, part.original_module)
    return base


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence what peft says of every custom model: a property of transformers that it reads is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def set_dropout(model: RoadworkForImageClassification, dropout: float) -> None:
    """Give every layer of the head this dropout; backbone, metadata encoder and token dropout keep theirs."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not name.startswith(("backbone.", "metadata_fusion.encoder.")):
            module.p = dropout
    model.config.dropout = dropout

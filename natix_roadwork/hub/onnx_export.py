"""Models as ONNX files, whose answers onnxruntime gives to 1e-4.

In comes a lite student, or a full model whose tokens are computed elsewhere; out goes one `.onnx` file that says in its
metadata what goes in and comes out. Needs the extra `onnx`.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript import opset20
from torch import Tensor, nn
from transformers import PreTrainedModel, ViTImageProcessor

from natix_roadwork.hub.export import processor_settings
from natix_roadwork.model.evidence import FeatureStandardizer
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.distillation_student import LABELS


OPSET = 20
TOLERANCE = 1e-4  # of a logit


class _Lite(nn.Module):
    """Pixels in, logits out; a copy."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


class _AnyTokens(FeatureStandardizer):
    """The standardizer without the check of the number of tokens, which would fix that number in the graph."""

    def token_kinds(self, num_tokens: int, device: torch.device) -> Tensor:
        kinds = torch.arange(num_tokens, device=device)
        return torch.where(kinds < num_tokens - self.num_cells, kinds, 2)


class _Head(nn.Module):
    """Tokens and the mask of valid views in, logits out; a copy without the backbone."""

    def __init__(self, model: RoadworkForImageClassification) -> None:
        super().__init__()
        head = copy.copy(model)
        standardizer = _AnyTokens(model.config.feature_dim, model.config.evidence_grid)
        standardizer.load_state_dict(model.standardizer.state_dict())
        head._modules = model._modules | {"backbone": nn.Identity(), "standardizer": standardizer}
        self.model = copy.deepcopy(head)

    def forward(self, view_features: Tensor, view_mask: Tensor, global_grid: Tensor | None = None) -> Tensor:
        return self.model(view_features=view_features, view_mask=view_mask, global_grid=global_grid).logits


def export_lite_onnx(model: PreTrainedModel, processor: ViTImageProcessor, path: str | Path) -> float:
    """Write a lite student: `pixel_values` `(B, 3, 224, 224)` to `logits` `(B, 2)`, B free.

    Args:
        model: The student.
        processor: Its processor; its settings go into the file's metadata.
        path: The `.onnx` file.

    Returns:
        The largest difference of a logit between onnxruntime and the model.

    Raises:
        ValueError: If it exceeds `TOLERANCE`.
    """
    settings = processor_settings(processor)
    side = settings["size"]
    inputs = {"pixel_values": torch.randn(2, 3, side["height"], side["width"], generator=_generator())}
    facts = {"preprocessor": settings, "model_type": model.config.model_type}
    other = {"pixel_values": torch.randn(3, 3, side["height"], side["width"], generator=_generator())}
    return _export(_Lite(model), inputs, {"pixel_values": {0: "batch"}}, path, facts, other)


def export_head_onnx(model: RoadworkForImageClassification, path: str | Path) -> float:
    """Write the head of a full model: `view_features` `(B, V, T, D)` and `view_mask` `(B, V)` to `logits` `(B, 2)`.

    B is free, and so is T as far as the model's is: pooled tokens, then those of its grid; V and D are the model's. Without
    metadata, as a miner sees a photo. A model whose decision reads the decoded masks also takes `global_grid`
    `(B, h, w, D)`, the patch grid of the global view.

    Args:
        model: The full model.
        path: The `.onnx` file.

    Returns:
        The largest difference of a logit between onnxruntime and the model.

    Raises:
        ValueError: If it exceeds `TOLERANCE`.
    """
    config = model.config
    tokens = (2 if config.feature_pooling == "cls_mean" else 1) + config.evidence_grid**2
    shapes = {"view_features": {0: "batch", 2: "tokens"}, "view_mask": {0: "batch"}}
    if config.mask_evidence:
        shapes["global_grid"] = {0: "batch"}
    facts = {"model_type": config.model_type, "backbone_id": config.backbone_id, "tokens": tokens}
    inputs, other = (_tokens(model, rows, tokens) for rows in (2, 3))
    return _export(_Head(model), inputs, shapes, path, facts, other)


def _tokens(model: RoadworkForImageClassification, rows: int, tokens: int) -> dict[str, Tensor]:
    config = model.config
    features = torch.randn(rows, config.num_views, tokens, config.feature_dim, generator=_generator())
    mask = torch.ones(rows, config.num_views, dtype=torch.bool)
    mask[0, 1:] = False  # a photo with its global view alone
    found = {"view_features": features, "view_mask": mask}
    if config.mask_evidence:
        side = config.view_size
        with torch.no_grad():
            grid = model.extract_tokens_and_grid(torch.zeros(1, 1, 3, side, side))[1]
        found["global_grid"] = torch.randn(rows, *grid.shape[1:], generator=_generator())
    return found


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, str]],
    path: str | Path,
    facts: Mapping[str, Any],
    other: Mapping[str, Tensor],
) -> float:
    """Write the graph with its metadata, and compare its answers on inputs of another size."""
    module = module.float().cpu().eval()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {
        name: {axis: torch.export.Dim(word, min=1) for axis, word in sizes.items()} for name, sizes in dynamic.items()
    }
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes=axes,
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            dynamo=True,
            verbose=False,
        )
    program.save(str(path))
    graph = onnx.load(str(path))
    for key, value in {"labels": LABELS, "opset": OPSET, **facts}.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    return _difference(module, path, other)


def _stable_sort(values: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:  # noqa: ANN401
    """Translate torch's stable sort; of equal values TopK, too, puts the lower index first."""
    size = opset20.Gather(opset20.Shape(values), opset20.Constant(value_ints=[dim]))
    return opset20.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


def _difference(module: nn.Module, path: Path, inputs: Mapping[str, Tensor]) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {name: values.numpy() for name, values in inputs.items()})
    with torch.no_grad():
        wanted = module(*inputs.values()).numpy()
    difference = float(np.abs(found - wanted).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"{path}: a logit of onnxruntime differs by {difference:.1e}, more than {TOLERANCE:g}")
    return difference

"""Targets that `forward` takes besides `labels`: checks, and stand-ins for what is missing.

Comes in: weather and mask labels. Goes out: tensors of a known shape, to the loss.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from .configuration_roadwork import MASK_CLASSES
from .model_inputs import refuse_rows


def hidden_from_signature(*names: str) -> Callable[[Callable], Callable]:
    """Makes a decorator that leaves arguments out of what `inspect.signature` shows.

    `transformers.Trainer` takes each argument with "label" in its name for one that every batch must have: without
    an optional one it would compute neither loss nor metrics at evaluation.
    """

    def hide(function: Callable) -> Callable:
        """Gives the function a signature without the arguments."""
        signature = inspect.signature(function)
        shown = [parameter for parameter in signature.parameters.values() if parameter.name not in names]
        function.__signature__ = signature.replace(parameters=shown)
        return function

    return hide


def known_weather(labels: Tensor | None, logits: Tensor, training: bool) -> Tensor:
    """Checks weather labels; -100 throughout when none are given.

    Args:
        labels: `(B,)` positions in the vocabulary, -100 = unknown, or None.
        logits: `(B, W)` of the weather head.
        training: Whether labels must be given: a term that never had any would train nothing, unseen.

    Raises:
        ValueError: Shape, type or a value does not fit, or labels are missing in training.
    """
    batch_size, num_classes = logits.shape
    if labels is None:
        if training:
            raise ValueError(
                "loss_weights has a weather term, but weather_labels are not given; give -100 where the weather is "
                'unknown. transformers.Trainer passes them on with label_names=["labels", "weather_labels"].'
            )
        return torch.full((batch_size,), -100, device=logits.device)
    if labels.shape != (batch_size,) or labels.is_floating_point():
        raise ValueError(
            f"weather_labels of shape {tuple(labels.shape)} and {labels.dtype} must be whole numbers ({batch_size},)."
        )
    bad = ((labels < 0) | (labels >= num_classes)) & (labels != -100)
    refuse_rows(bad, "weather_labels", labels, f"expected 0 ... {num_classes - 1}, or -100 for unknown")
    return labels


def known_masks(labels: Tensor | None, logits: Tensor | None, training: bool) -> Tensor:
    """Checks mask labels; NaN, which is unknown, throughout when none are given.

    Args:
        labels: `(B, C, m, m)` shares in [0, 1], NaN = unknown, or None.
        logits: `(B, C, m, m)` of the mask decoder; None where it had no patch grid.
        training: Whether labels and a patch grid must be given: a term that never had any would train nothing, unseen.

    Raises:
        ValueError: Something is missing in training, or shape, type or a value does not fit.
    """
    if logits is None:
        raise ValueError("loss_weights has a mask term: give global_grid beside view_features, or give pixel_values.")
    if labels is None:
        if training:
            raise ValueError(
                f"loss_weights has a mask term, but mask_labels are not given; give (B, {len(MASK_CLASSES)}, m, m) with "
                "NaN where a mask is unknown."
            )
        return torch.full_like(logits, torch.nan)
    if labels.shape != logits.shape or not labels.is_floating_point():
        raise ValueError(
            f"mask_labels of shape {tuple(labels.shape)} and {labels.dtype} must be floats {tuple(logits.shape)}, one "
            "mask for each class at the config's mask_size."
        )
    outside = ((labels < 0) | (labels > 1)).flatten(1).sum(dim=1)
    refuse_rows(outside > 0, "mask_labels outside [0, 1]", outside, "expected shares of a cell, or NaN for unknown")
    return labels

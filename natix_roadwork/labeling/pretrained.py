"""Loading the models behind the mask providers, from the Hub or a folder, with one clear line where that fails."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from natix_roadwork.model.backbone import hash_weights


DTYPES = ("float32", "bfloat16")
Loaded = TypeVar("Loaded")


def load_pretrained(load: Callable[..., Loaded], model_id: str, revision: str | None = None, **options: Any) -> Loaded:
    """Call a `from_pretrained` and say in one line why it failed.

    Args:
        load: A class's `from_pretrained`.
        model_id: Hub id, or a folder.
        revision: Commit, tag or branch on the Hub.
        options: Handed to `load`.

    Raises:
        ValueError: If there is no such model or it may not be had: the model and what to do are named, a token never.
    """
    try:
        return load(model_id, revision=revision, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        # Without the chain of causes: a request's own error may quote its headers, and the token in them.
        raise ValueError(_not_loaded(model_id, revision, error)) from None


def load_model(
    load: Callable[..., Any], model_id: str, revision: str | None, device: str | torch.device
) -> PreTrainedModel:
    """Load a model in float32, in evaluation mode without gradients, onto a device.

    Args:
        load: A model class's `from_pretrained`.
        model_id: Hub id, or a folder.
        revision: Commit, tag or branch on the Hub.
        device: Such as `cpu` or `cuda:1`.

    Raises:
        ValueError: If there is no such model, it lacks weights, or the device cannot be used.
    """
    model, report = load_pretrained(load, model_id, revision, dtype=torch.float32, output_loading_info=True)
    names = {name for name, _ in model.named_parameters()}
    missing = sorted(names & set(report["missing_keys"]))
    if missing:  # the library would draw them at random and go on
        raise ValueError(
            f"model={model_id!r} (revision {revision!r}) lacks {len(missing)} of the {len(names)} weights of "
            f"{type(model).__name__}, such as {missing[0]}; give a whole model of that kind"
        )
    try:
        return model.requires_grad_(False).eval().to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error


def arithmetic(device: torch.device, dtype: str) -> AbstractContextManager:
    """Autocast a model's float32 weights to `dtype`, one of `DTYPES`; float32 changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def check_dtype(dtype: str) -> str:
    """Return a name of `DTYPES`.

    Raises:
        ValueError: If it is none.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    return dtype


def check_share(value: float, name: str) -> float:
    """Return a score or an overlap.

    Raises:
        ValueError: If it does not lie in [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r} must lie in [0, 1]")
    return float(value)


def model_settings(
    model: torch.nn.Module, model_id: str, revision: str | None, dtype: str, library: str
) -> dict[str, Any]:
    """What of a model decides the outcome: its name, weights, arithmetic, and the library that runs it."""
    weights = hash_weights(model)
    return {"model": model_id, "revision": revision, "weights": weights, "dtype": dtype, "library": library}


def _not_loaded(model_id: str, revision: str | None, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = os.environ.get(name, "").strip()
        reason = reason.replace(token, "***") if token else reason
    return (
        f"model={model_id!r} (revision {revision!r}) cannot be loaded: give the folder of a saved model, or a Hub id; for "
        "a gated one such as facebook/sam3 accept its licence on its page and set HF_TOKEN to a token that may read it "
        f"({reason})"
    )

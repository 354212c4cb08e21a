"""The frozen backbone: views in, tokens out.

Any vision model that `AutoModel` builds works: a token sequence (ViT, DINOv2, DINOv3, timm ViT) or a feature map
(ConvNeXt, timm CNN). The tokens go to evidence pooling.
"""

import hashlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel


def freeze(backbone: PreTrainedModel) -> PreTrainedModel:
    """Puts a backbone into evaluation mode without gradients (DINOv3 jitters its positions in train mode)."""
    # Convolutions on a CPU are several times faster on channels-last weights; other weights are not touched.
    return backbone.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def is_frozen(backbone: nn.Module) -> bool:
    """Whether no weight of a backbone is trained, adapters inside it included."""
    return not any(parameter.requires_grad for parameter in backbone.parameters())


def patch_size(backbone: PreTrainedModel) -> int | None:
    """Side of a backbone's patch in pixels; None for one without patches."""
    source = getattr(getattr(backbone, "timm_model", None), "patch_embed", backbone.config)
    patch = getattr(source, "patch_size", None)
    return patch[0] if isinstance(patch, tuple | list) else patch


def check_view_size(backbone: PreTrainedModel, size: int, name: str = "view_size") -> None:
    """Refuses views whose last rows and columns the backbone would cut off unseen.

    Raises:
        ValueError: `size`, the config's field `name`, is not a multiple of the patch.
    """
    patch = patch_size(backbone)
    if patch and size % patch:
        raise ValueError(
            f"RoadworkConfig: {name}={size} must be a multiple of the backbone's patch of {patch} pixels, "
            f"e.g. {size // patch * patch or patch}."
        )


def view_tokens(backbone: PreTrainedModel, views: Tensor, pooling: str, grid: int) -> Tensor:
    """Runs the backbone on single views, with or without a gradient as the caller's grad mode says.

    Args:
        backbone: Vision model.
        views: `(N, 3, S, S)` normalised pixels.
        pooling: `cls`, `mean` or `cls_mean`.
        grid: G of the evidence grid, 0 = none.

    Returns:
        `(N, T, D)`: the pooled tokens, then the G x G cells row by row.
    """
    return pooled_tokens(*patch_features(backbone, views), pooling, grid)


def patch_features(backbone: PreTrainedModel, views: Tensor) -> tuple[Tensor | None, Tensor]:
    """Runs the backbone on single views.

    Args:
        backbone: Vision model.
        views: `(N, 3, S, S)` normalised pixels.

    Returns:
        The class token `(N, D)`, None for a backbone without one, and the patch grid `(N, D, h, w)`.
    """
    parameter = next(backbone.parameters())
    # A width of one would make both memory formats look alike, so the format is asked for, not inferred.
    views = views.to(parameter.dtype).contiguous(memory_format=torch.channels_last)
    features = backbone(pixel_values=views).last_hidden_state
    if features.dim() == 4:
        channels_last = getattr(getattr(backbone, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
        return None, features.permute(0, 3, 1, 2) if channels_last else features
    class_token, patch_map = _split_tokens(features, views.shape[-1], patch_size(backbone))
    return (class_token if _has_class_token(backbone) else None), patch_map


def pooled_tokens(class_token: Tensor | None, patch_map: Tensor, pooling: str, grid: int) -> Tensor:
    """Pools the patch grid of views.

    Args:
        class_token: `(N, D)`, or None.
        patch_map: `(N, D, h, w)`.
        pooling: `cls`, `mean` or `cls_mean`.
        grid: G of the evidence grid, 0 = none.

    Returns:
        `(N, T, D)`, as `view_tokens`.
    """
    pooled = []
    if class_token is not None and pooling != "mean":
        pooled.append(class_token)
    if class_token is None or pooling != "cls":
        pooled.append(patch_map.flatten(2).transpose(1, 2).mean(dim=1))
    tokens = torch.stack(pooled, dim=1)
    if grid:
        cells = F.adaptive_avg_pool2d(patch_map.float(), grid).to(patch_map.dtype)
        tokens = torch.cat([tokens, cells.flatten(2).transpose(1, 2)], dim=1)
    return tokens.contiguous()


def _has_class_token(backbone: PreTrainedModel) -> bool:
    """False for a timm model whose tokens before the patches are all registers; True where nothing says so."""
    return getattr(getattr(backbone, "timm_model", None), "cls_token", ...) is not None


def _split_tokens(sequence: Tensor, view_size: int, patch: int | None) -> tuple[Tensor | None, Tensor]:
    """Splits `(N, L, D)` into the first token `(N, D)`, if one precedes the patches, and the patch grid `(N, D, h, h)`."""
    length = sequence.shape[1]
    side = view_size // patch if patch else 0
    if side == 0 or side * side > length:  # no patch size, or a pyramid: the grid is the largest square that fits
        side = math.isqrt(length)
    prefix = length - side * side
    patch_map = sequence[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    return (sequence[:, 0] if prefix else None), patch_map


def hash_weights(backbone: nn.Module) -> str:
    """Hashes weights whatever their names and order.

    Returns:
        sha256 over the sorted sha256 of each tensor's shape and float32 bytes, as 64 hexadecimal digits.
    """
    digests = []
    for tensor in backbone.state_dict().values():
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest = hashlib.sha256(str(tuple(values.shape)).encode())
        digest.update(values.numpy().tobytes())
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def load_backbone(
    backbone_id: str,
    *,
    revision: str | None = None,
    expected_sha256: str | None = None,
    **hub_options: "str | bool | None",
) -> PreTrainedModel:
    """Loads a backbone's weights in float32 by Hub id or from a folder, and checks them.

    Args:
        backbone_id: Hub id, or a folder.
        revision: Commit id on the Hub.
        expected_sha256: Hash the weights must have, or None.
        hub_options: `cache_dir`, `token`, `local_files_only`.

    Raises:
        ValueError: The weights have another hash.
    """
    backbone = AutoModel.from_pretrained(
        backbone_id, revision=revision, dtype=torch.float32, trust_remote_code=False, **hub_options
    )
    if expected_sha256 is not None:
        found = hash_weights(backbone)
        if found != expected_sha256:
            raise ValueError(
                f"backbone_id={backbone_id!r} (revision {revision!r}) holds weights with sha256 {found}, but this "
                f"checkpoint was trained on {expected_sha256}. Give the backbone it was trained on."
            )
    return freeze(backbone)

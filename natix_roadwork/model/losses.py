"""Loss terms and their sum.

Each term returns its mean and the count that mean was taken over, so that a trainer can weigh the batches of several
processes as if they were one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_roadwork import RoadworkConfig
from .outputs import RoadworkOutput
from .targets import known_masks, known_weather
from .views import filled


def soft_targets(labels: Tensor, num_labels: int, smoothing: float) -> Tensor:
    """Turns labels `(B,)` or soft labels `(B, C)` into smoothed targets `(B, C)` that sum to 1.

    Raises:
        ValueError: `labels` are neither whole numbers `(B,)` nor probabilities `(B, C)`.
    """
    is_hard = labels.dim() == 1 and not labels.is_floating_point()
    if not is_hard and labels.shape[1:] != (num_labels,):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} and {labels.dtype} are neither class indices (B,) nor class "
            f"probabilities (B, {num_labels})."
        )
    targets = F.one_hot(labels.long(), num_labels) if is_hard else labels
    return (1 - smoothing) * targets.float() + smoothing / num_labels


def focal_loss(logits: Tensor, targets: Tensor, alpha: Tensor, gamma: float) -> Tensor:
    """Class-wise focal loss of soft targets, mean over the batch.

    L = -sum_k q_k alpha_k (1 - p_k)^gamma log p_k (Lin et al., https://arxiv.org/abs/1708.02002, per class so that
    smoothed and mixed targets keep their penalty). With gamma 0 and alpha 1 it is the cross-entropy.

    Args:
        logits: `(B, C)`.
        targets: `(B, C)` class probabilities.
        alpha: `(C,)` class weights.
        gamma: Focusing exponent >= 0.
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    # 1 - p by expm1 keeps its precision, and its gradient, where p is close to 1.
    modulator = (-torch.expm1(log_p)).clamp_min(1e-12) ** gamma if gamma else 1.0
    return -(targets * alpha.to(log_p) * modulator * log_p).sum(dim=-1).mean()


def consistency_loss(view_logits: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised Jensen-Shannon divergence between the class probabilities of a photo's wide views.

    (1/n) sum_i KL(p_i || mean p) over the n wide views, at most ln 2; a mean over the photos that kept at least two.
    Tiles are left out: one cone in one tile is no contradiction.

    Args:
        view_logits: `(B, K, C)`.
        wide: `(B, K)` whether a kept view is wide and valid.

    Returns:
        The mean (0 without any such photo) and the number of such photos.
    """
    log_p = F.log_softmax(view_logits.float(), dim=-1)
    weights = wide.float() / wide.sum(dim=1, keepdim=True).clamp_min(1)
    mean_p = (weights.unsqueeze(-1) * log_p.exp()).sum(dim=1, keepdim=True)
    divergence = (log_p.exp() * (log_p - mean_p.clamp_min(1e-12).log())).sum(dim=-1)
    active = (wide.sum(dim=1) >= 2).float()
    count = active.sum()
    return ((weights * divergence).sum(dim=1) * active).sum() / count.clamp_min(1), count


def weather_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the weather over the photos whose weather is known.

    Args:
        logits: `(B, C)`.
        labels: `(B,)` classes, -100 = unknown.

    Returns:
        The mean (0, with a gradient of 0, without any such photo) and the number of such photos.
    """
    count = (labels != -100).float().sum()
    total = F.cross_entropy(logits.float(), labels.long(), ignore_index=-100, reduction="sum")
    return total / count.clamp_min(1), count


def dice_loss(logits: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """Dice loss of each mask, 1 - (2 sum(p g) + s) / (sum(p^2) + sum(g^2) + s).

    Milletari et al., https://arxiv.org/abs/1606.04797; with squares a share of a cell that is met exactly costs nothing.

    Args:
        logits: `(..., h, w)`.
        targets: `(..., h, w)` shares in [0, 1].
        smooth: s; an empty mask costs sum(p^2) / (sum(p^2) + s).

    Returns:
        `(...)` in [0, 1].
    """
    p, g = logits.float().sigmoid().flatten(-2), targets.float().flatten(-2)
    overlap = (p * g).sum(dim=-1)
    return 1 - (2 * overlap + smooth) / (p.square().sum(dim=-1) + g.square().sum(dim=-1) + smooth)


def mask_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of every known mask plus Dice of those that show something.

    An empty mask has no overlap to measure, and its Dice would be the size of the smoothing: it is left to the
    cross-entropy. Most rows have few classes, so that each row weighs alike: a mean over its known masks, plus the mean
    Dice over those that are not empty.

    Args:
        logits: `(B, C, m, m)`.
        labels: `(B, C, m, m)` shares in [0, 1]; a mask with a NaN is unknown.

    Returns:
        The mean over rows with a known mask (0, with a gradient of 0, without any such row) and their number.
    """
    known = ~labels.isnan().flatten(2).any(dim=2)  # (B, C)
    targets = labels.nan_to_num(nan=0.0).float()
    shown = known & (targets.flatten(2).sum(dim=2) > 0)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").flatten(2).mean(dim=2)
    entropy = (entropy * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)
    dice = (dice_loss(logits, targets) * shown).sum(dim=1) / shown.sum(dim=1).clamp_min(1)
    count = known.any(dim=1).float().sum()
    return (entropy + dice).sum() / count.clamp_min(1), count


def total_loss(parts: dict[str, Tensor], counts: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Weighs the loss terms; the weights are renormalised over the terms that have rows.

    Args:
        parts: Name to mean of the term.
        counts: Name to the number of rows behind the mean; a term with 0 is inactive.
        weights: Name to weight.
    """
    active = {name: weights[name] * (counts[name] > 0).float() for name in parts}
    return sum(active[name] * parts[name] for name in parts) / sum(active.values()).clamp_min(1e-12)


def loss_parts(
    config: RoadworkConfig,
    output: RoadworkOutput,
    mask: Tensor,
    labels: Tensor,
    weather_labels: Tensor | None,
    mask_labels: Tensor | None,
    training: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Every active term.

    Args:
        config: Says which terms are active, and their settings.
        output: What the model computed; of its fields those that a term reads.
        mask: `(B, K)` valid kept views.
        labels: `(B,)` class indices or `(B, C)` class probabilities.
        weather_labels: `(B,)` positions in the vocabulary, -100 = unknown; None = all unknown.
        mask_labels: `(B, C, m, m)` shares in [0, 1], NaN = unknown; None = all unknown.
        training: Whether a term must have what it reads.

    Returns:
        Each term's mean, and the number of rows behind it.

    Raises:
        ValueError: Labels do not fit, or a term lacks its labels in training.
    """
    targets = soft_targets(labels, config.num_labels, config.label_smoothing)
    alpha = filled(config.focal_alpha, targets)
    parts = {"focal": focal_loss(output.logits, targets, alpha, config.focal_gamma)}
    counts = {"focal": targets.new_full((), len(targets))}
    if "consistency" in config.loss_weights:
        wide = torch.zeros_like(mask)
        for view in config.wide_views:
            wide |= output.view_indices == view
        parts["consistency"], counts["consistency"] = consistency_loss(output.view_logits, wide & mask)
    if "weather" in config.loss_weights:
        weather_labels = known_weather(weather_labels, output.weather_logits, training)
        parts["weather"], counts["weather"] = weather_loss(output.weather_logits, weather_labels)
    if "mask" in config.loss_weights and (training or output.mask_logits is not None):
        mask_labels = known_masks(mask_labels, output.mask_logits, training)
        parts["mask"], counts["mask"] = mask_loss(output.mask_logits, mask_labels)
    return parts, counts

"""Adding view selection to a model: a linear scorer of thumbnails, fitted on photo labels.

In come a model, its processor and train rows; the model then runs its backbone on k views of a photo only, and is trained,
saved and loaded like any other. Whether that pays is for dev rows to say: `tests/benchmarks/view_selection.py` measures it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor

from natix_roadwork.data.photo_batches import photo_transform
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkModel
from natix_roadwork.model.view_selection import ViewSelector
from natix_roadwork.training.token_features import Features


ROWS_A_PASS = 4


def add_view_selector(
    model: RoadworkModel,
    processor: RoadworkImageProcessor,
    train: Dataset,
    select_views: int,
    thumbnail_size: int = 112,
    seed: int = 0,
) -> None:
    """Make a model run its backbone on the `select_views` best views of a photo, the global view among them.

    Do it before the head is trained, and train on pixels: a head that saw all views, as the tokens of the feature cache
    hold them, finds roadwork too often among views chosen for it.

    Args:
        model: Gets a fitted `view_selector`; its other weights stay. It runs on the device it is on.
        processor: Cuts the views.
        train: Rows of `data.dataset.load_rows` that the selector may learn from.
        select_views: k, below the model's `num_views`.
        thumbnail_size: Side of a thumbnail in pixels, a multiple of the backbone's patch.
        seed: Seed of the row order.

    Raises:
        ValueError: If there is nothing to select from, a size does not fit, or train holds one class only.
    """
    config = model.config
    if not 1 <= select_views < config.num_views:
        raise ValueError(
            f"select_views={select_views!r} must lie between 1 and num_views - 1 = {config.num_views - 1}"
        )
    before = config.select_views, config.thumbnail_size
    config.select_views, config.thumbnail_size = select_views, thumbnail_size
    try:
        selector = ViewSelector(config, model.backbone).to(model.device)
        fit_view_selector(selector, thumbnail_features(selector, model, processor, train), seed=seed)
    except BaseException:
        config.select_views, config.thumbnail_size = before
        raise
    model.view_selector = selector


@torch.no_grad()
def thumbnail_features(
    selector: ViewSelector, model: RoadworkModel, processor: RoadworkImageProcessor, rows: Dataset
) -> Features:
    """Run the backbone on the thumbnails of every row's views."""
    cut_views = photo_transform(RoadworkImageProcessor(**processor.settings() | {"do_normalize": False}))
    tokens, masks = [], []
    for start in range(0, len(rows), ROWS_A_PASS):
        views = cut_views(rows[start : start + ROWS_A_PASS])
        pixels = views["pixel_values"].to(model.device)
        tokens.append(selector.thumbnail_tokens(model.backbone, pixels).half().cpu().numpy())
        masks.append(views["view_mask"].numpy())
    return Features(
        np.concatenate(tokens), np.concatenate(masks), np.asarray(rows["label"][:]), np.asarray(rows["group"][:]), 1
    )


def fit_view_selector(
    selector: ViewSelector,
    train: Features,
    seed: int = 0,
    num_epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
) -> None:
    """Fit the scorer on photo labels: a photo shows roadwork if at least one of its views does (noisy-OR).

    With the score s of a view, p(roadwork) = 1 - Π (1 - σ(s)) over the valid views; both classes weigh the same. Tokens
    are standardised for the fit, and the scorer that is kept takes them as they are.

    Args:
        selector: Its weight and bias are set.
        train: Tokens of thumbnails, with labels of both classes.
        seed: Seed of the row order.
        num_epochs: Passes over `train`.
        batch_size: Rows a step.
        learning_rate: AdamW's learning rate.
        weight_decay: AdamW's weight decay.

    Raises:
        ValueError: If train holds one class only.
    """
    counts = np.bincount(train.labels, minlength=2)
    if not counts.all():
        raise ValueError(f"train labels are all {train.labels[0]}; a view selector needs rows of both classes")
    valid = torch.from_numpy(train.view_features[train.view_mask]).float().flatten(0, 1)  # (valid views * T, D)
    mean, std = valid.mean(dim=0), valid.std(dim=0).clamp_min(1e-6)
    class_weights = torch.from_numpy(len(train) / (2.0 * counts)).float()
    weight = torch.zeros(len(mean), requires_grad=True)
    bias = torch.tensor(-float(np.log(train.view_mask.sum(axis=1).mean())), requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=learning_rate, weight_decay=weight_decay)
    order = torch.Generator().manual_seed(seed)
    for _ in range(num_epochs):
        for rows in torch.randperm(len(train), generator=order).split(batch_size):
            tokens = (torch.from_numpy(train.view_features[rows.numpy()]).float() - mean) / std
            labels = torch.from_numpy(train.labels[rows.numpy()].astype(np.int64))
            scores = (tokens @ weight + bias).amax(dim=2)
            losses = noisy_or_loss(scores, torch.from_numpy(train.view_mask[rows.numpy()]), labels)
            optimizer.zero_grad()
            (losses * class_weights[labels]).mean().backward()
            optimizer.step()
    with torch.no_grad():
        selector.weight.copy_(weight / std)
        selector.bias.copy_(bias - (weight * mean / std).sum())


def noisy_or_loss(scores: Tensor, view_mask: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of p = 1 - Π (1 - σ(s)) over the valid views.

    Args:
        scores: `(B, V)` logits of the views.
        view_mask: `(B, V)` valid views.
        labels: `(B,)` 0 or 1.

    Returns:
        `(B,)` losses.
    """
    log_none = -F.softplus(scores).masked_fill(~view_mask, 0.0).sum(dim=1)  # log of the probability of no roadwork
    log_any = torch.log(-torch.expm1(log_none.clamp_max(-1e-6)))
    return -torch.where(labels > 0, log_any, log_none)

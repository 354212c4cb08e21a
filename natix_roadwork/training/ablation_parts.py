"""Simpler stand-ins for parts of the model that every model has, so that an ablation can switch them off.

They are no options of the config: something has to fuse the views and to classify, and nobody should choose the simpler
part before a table says that it is as good. `ablation_bench.py` puts them into an untrained model.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification


class MeanOfViews(nn.Module):
    """The mean of the valid views in the place of `GatedViewFusion`; the views stay as they are."""

    def forward(self, views: Tensor, mask: Tensor, strength: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Average views.

        Args:
            views: `(B, K, H)`.
            mask: `(B, K)` valid views; the others weigh 0.
            strength: `(B, K)`, not read.

        Returns:
            Mean `(B, H)`, the views `(B, K, H)`, view weights `(B, K)`.
        """
        weights = mask / mask.sum(dim=1, keepdim=True)
        return torch.einsum("bk,bkh->bh", weights.to(views.dtype), views), views, weights


def use_mean_of_views(model: RoadworkForImageClassification) -> None:
    """Replace the gated view fusion by the mean of the views."""
    model.view_fusion = MeanOfViews()


def use_linear_classifier(model: RoadworkForImageClassification) -> None:
    """Replace the classifier of two layers by one linear layer, which starts as the model's other layers do."""
    layer = nn.Linear(model.config.hidden_size, model.config.num_labels)
    model._init_weights(layer)
    model.classifier = layer


PARTS: dict[str, Callable[[RoadworkForImageClassification], None]] = {
    "view_fusion": use_mean_of_views,
    "classifier": use_linear_classifier,
}


def switch_off(model: RoadworkForImageClassification, parts: Sequence[str]) -> None:
    """Put the stand-ins of the named parts, keys of `PARTS`, into an untrained model."""
    for name in parts:
        PARTS[name](model)

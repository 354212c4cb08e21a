"""What the models return."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class RoadworkOutput(ModelOutput):
    """Loss, predictions and what led to them.

    Attributes:
        loss: Weighted mean of the loss terms.
        loss_parts: Name of a loss term to its unweighted mean.
        loss_counts: Name of a loss term to the number of rows behind that mean.
        logits: `(B, 2)` before softmax, class 1 is roadwork.
        embedding: `(B, H)` fused photo vector, with metadata where it was given.
        view_logits: `(B, K, 2)` the classifier on each kept view.
        view_indices: `(B, K)` which views were kept, ascending.
        view_weights: `(B, K)` share of each kept view in the embedding, sums to 1.
        token_weights: `(B, V, T)` share of each token in its view's vector, sums to 1.
        weather_logits: `(B, W)` weather read from the views alone, one for each weather of the vocabulary.
        mask_logits: `(B, C, m, m)` masks of the global view, one for each of `MASK_CLASSES`; with a `mask` term, and where
            the global view's pixels or patch grid are given.
    """

    loss: Tensor | None = None
    loss_parts: dict[str, Tensor] | None = None
    loss_counts: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    embedding: Tensor | None = None
    view_logits: Tensor | None = None
    view_indices: Tensor | None = None
    view_weights: Tensor | None = None
    token_weights: Tensor | None = None
    weather_logits: Tensor | None = None
    mask_logits: Tensor | None = None

"""Heads: the last layers for one output."""

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_roadwork import MASK_CLASSES


MASK_WIDTH = 256
# Evidence covers few cells: the decoder starts from two in a hundred (the sigmoid of this), not from a half.
PRIOR_LOGIT = -4.0
# Share of the strongest cells that say whether a class is there at all.
PRESENCE_SHARE = 0.01


class Classifier(nn.Module):
    """Two layers from an embedding to logits: H, H/2, C, with GELU and dropout."""

    def __init__(self, hidden_size: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(hidden_size, hidden_size // 2)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size // 2, num_labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """Maps `(..., H)` to logits `(..., C)`."""
        return self.output(self.dropout(self.activation(self.hidden(embedding))))


class MaskDecoder(nn.Module):
    """Patch grid of the global view to one mask a class.

    A vector of the whole photo has no places in it, so masks are decoded from the patch grid: each patch is projected,
    neighbours are mixed at the grid's resolution and at twice of it, and the logits are enlarged to the mask's size.
    About 0.7 million weights on patches of 1,280 channels.
    """

    def __init__(self, feature_dim: int, mask_size: int, dropout: float) -> None:
        super().__init__()
        self.mask_size = mask_size
        self.norm = nn.LayerNorm(feature_dim)
        self.project = nn.Linear(feature_dim, MASK_WIDTH)
        self.mix = nn.Conv2d(MASK_WIDTH, MASK_WIDTH // 2, kernel_size=3, padding=1)
        self.dropout = nn.Dropout2d(dropout)
        self.refine = nn.Conv2d(MASK_WIDTH // 2, MASK_WIDTH // 4, kernel_size=3, padding=1)
        self.output = nn.Conv2d(MASK_WIDTH // 4, len(MASK_CLASSES), kernel_size=1)

    def forward(self, grid: Tensor) -> Tensor:
        """Decodes a standardised patch grid `(B, h, w, D)` into logits `(B, C, m, m)`."""
        hidden = F.gelu(self.project(self.norm(grid))).permute(0, 3, 1, 2)
        hidden = self.dropout(F.gelu(self.mix(hidden)))
        hidden = F.interpolate(hidden, scale_factor=2, mode="bilinear")
        logits = self.output(F.gelu(self.refine(hidden))) + PRIOR_LOGIT
        return F.interpolate(logits, (self.mask_size, self.mask_size), mode="bilinear")


def class_presence(mask_logits: Tensor) -> Tensor:
    """How surely each class is seen anywhere: the mean logit of its strongest cells.

    Args:
        mask_logits: `(B, C, h, w)`.

    Returns:
        `(B, C)` logits.
    """
    cells = mask_logits.flatten(2)
    count = max(1, round(PRESENCE_SHARE * cells.shape[-1]))
    return cells.topk(count, dim=-1).values.mean(dim=-1)

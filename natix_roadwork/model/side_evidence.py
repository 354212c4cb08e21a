"""Evidence beside the view tokens: what the decoded masks show, and what others found in the photo.

Comes in: the presence of each mask class, figures of detectors. Goes out: a correction of the embedding, to metadata
fusion and the classifier.
"""

import torch
from torch import Tensor, nn

from .configuration_roadwork import MASK_CLASSES, RoadworkConfig


class SideEvidence(nn.Module):
    """Corrects the embedding by evidence that is no view.

    Each piece of evidence is projected to the width of the embedding; the pieces that are there are summed, pass a
    non-linearity, and the outcome is added to the embedding and to each kept view, so that the classifier reads one space.
    A photo without any piece keeps its embedding bit for bit. In training a share of the rows,
    `whole_metadata_dropout`, loses its extra evidence, since a photo may come without it.

    Args:
        config: Which evidence is read, its width, dropout.
    """

    def __init__(self, config: RoadworkConfig) -> None:
        super().__init__()
        self.extra_dropout = config.whole_metadata_dropout
        self.presence = nn.Linear(len(MASK_CLASSES), config.hidden_size) if config.mask_evidence else None
        self.extra = None
        if config.extra_evidence_size:
            self.extra = nn.Linear(config.extra_evidence_size, config.hidden_size)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, embedding: Tensor, presence: Tensor | None, extra: Tensor | None) -> Tensor:
        """Computes the correction.

        Args:
            embedding: `(B, H)`; says type and device.
            presence: `(B, C)` logit that each mask class is seen; None where it is not read.
            extra: `(B, E, F)` figures, NaN = missing; None = missing in every row.

        Returns:
            `(B, H)` to be added, exactly 0 for a row without evidence.
        """
        total = torch.zeros_like(embedding)
        there = torch.zeros(embedding.shape[0], 1, dtype=torch.bool, device=embedding.device)
        if self.presence is not None and presence is not None:
            # Detached: the decoder learns from masks alone, so that its masks stay masks.
            total = total + self.presence(presence.detach().sigmoid().to(embedding.dtype))
            there = ~there
        if self.extra is not None:
            if extra is None:  # a missing piece, so that every weight has its gradient in every step
                extra = embedding.new_full((embedding.shape[0], 1, self.extra.in_features), torch.nan)
            known = ~extra.isnan().any(dim=2)
            if self.training:
                kept = torch.rand(extra.shape[0], 1, device=extra.device) >= self.extra_dropout
                known = known & kept
            pieces = self.extra(extra.nan_to_num(nan=0.0).to(embedding.dtype))  # a NaN would reach the gradients
            total = total + (pieces * known.unsqueeze(-1)).sum(dim=1) / known.sum(dim=1, keepdim=True).clamp_min(1)
            there = there | known.any(dim=1, keepdim=True)
        correction = self.output(self.dropout(self.activation(total)))
        return torch.where(there, correction, torch.zeros_like(correction))

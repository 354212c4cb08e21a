"""Projection, multi-scale pyramid and gated attention over the kept views.

Comes in: `(B, K, D)` view vectors. Goes out: `(B, K, H)`, to view fusion.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ViewProjection(nn.Module):
    """Projects view vectors from D to H and tells each view where it lies in the photo."""

    def __init__(self, feature_dim: int, hidden_size: int, num_views: int, dropout: float, positions: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(feature_dim)
        self.linear = nn.Linear(feature_dim, hidden_size)
        self.positions = nn.Embedding(num_views, hidden_size) if positions else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, views: Tensor, indices: Tensor) -> Tensor:
        """Projects `(B, K, D)` with view indices `(B, K)` to `(B, K, H)`."""
        projected = self.linear(self.dropout(self.norm(views)))
        if self.positions is not None:
            projected = projected + self.positions(indices)
        return projected


class MultiScalePyramid(nn.Module):
    """Three widths H, H/2 and H/4 of the same vector, mixed back to H with a residual.

    Each level has its own non-linearity; without it the three levels collapse into one linear layer.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        widths = (hidden_size, hidden_size // 2, hidden_size // 4)
        self.levels = nn.ModuleList(nn.Sequential(nn.Linear(hidden_size, width), nn.GELU()) for width in widths)
        self.mix = nn.Linear(sum(widths), hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, views: Tensor) -> Tensor:
        """Maps `(B, K, H)` to `(B, K, H)`."""
        mixed = self.mix(torch.cat([level(views) for level in self.levels], dim=-1))
        return self.norm(views + self.dropout(mixed))


class AttentionGate(nn.Linear):
    """Linear layer whose sigmoid gates the attention; it starts nearly open (`RoadworkModel._init_weights`)."""


class SelfAttention(nn.Module):
    """Multi-head attention over views, with an optional sigmoid gate on its output.

    The gate is computed from the normed input and multiplies the attention's result before `out_proj` (position G1
    of Qiu et al., https://arxiv.org/abs/2505.06708): Y' = Y * sigmoid(X W).
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, gate: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = nn.Linear(hidden_size, 3 * hidden_size)
        gate_width = {"none": 0, "headwise": num_heads, "elementwise": hidden_size}[gate]
        self.gate_proj = AttentionGate(hidden_size, gate_width) if gate_width else None
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, views: Tensor, mask: Tensor) -> Tensor:
        """Attends `(B, K, H)` over the views that `mask` `(B, K)` holds valid."""
        heads = self.qkv_proj(views).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)  # each (B, heads, K, H / heads)
        # Plain SDPA, no `sdpa_kernel` around it: its priorities are one setting for the whole process, which threads
        # would change under each other; a masked call has no flash kernel to prefer; and entering it takes about as
        # long as this call itself on a CPU.
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        attended = attended.transpose(1, 2)  # (B, K, heads, H / heads)
        if self.gate_proj is not None:
            gate = self.gate_proj(views).float().sigmoid().to(attended.dtype)
            attended = attended * gate.unflatten(-1, (self.num_heads, -1))
        return self.dropout(self.out_proj(attended.flatten(-2)))


class GatedAttentionLayer(nn.Module):
    """Pre-norm gated attention, then an optional feed-forward block, each with a residual."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, gate: str, feed_forward: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = SelfAttention(hidden_size, num_heads, dropout, gate)
        self.feed_forward = None
        if feed_forward:
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(hidden_size),
                nn.Linear(hidden_size, 2 * hidden_size),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * hidden_size, hidden_size),
                nn.Dropout(dropout),
            )

    def forward(self, views: Tensor, mask: Tensor) -> Tensor:
        """Maps `(B, K, H)` to `(B, K, H)`; `mask` `(B, K)` holds the valid views."""
        views = views + self.attention(self.attention_norm(views), mask)
        return views if self.feed_forward is None else views + self.feed_forward(views)

"""View pruning: of V view vectors the K that matter go on.

The kept vectors go to projection and pyramid (`attention.py`).
"""

import torch
from torch import Tensor, nn


class ViewPruning(nn.Module):
    """Keeps K of V views by a learned score; the global view is always kept.

    The choice itself has no gradient. So a kept view is multiplied by 1 + s - stop_gradient(s), which is exactly 1,
    where s = K softmax(score): scores of kept and of dropped views alike get a gradient (straight-through).
    """

    def __init__(self, feature_dim: int, keep_views: int) -> None:
        super().__init__()
        self.keep_views = keep_views
        hidden = max(feature_dim // 4, 1)
        self.scorer = nn.Sequential(nn.Linear(feature_dim, hidden), nn.GELU(), nn.Linear(hidden, 1, bias=False))

    def forward(self, views: Tensor, view_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Selects views.

        Args:
            views: `(B, V, D)`.
            view_mask: `(B, V)` valid views; a masked view is taken only when fewer than K are valid.

        Returns:
            Kept vectors `(B, K, D)`, their mask `(B, K)` and their indices `(B, K)` in ascending order.
        """
        scores = self.scorer(views).squeeze(-1).float().masked_fill(~view_mask, -torch.inf)
        indices = best_views(scores.detach(), view_mask, self.keep_views)
        kept = gather_views(views, indices)
        if self.training:
            soft = self.keep_views * scores.softmax(dim=1).gather(1, indices)
            kept = kept * (1 + (soft - soft.detach())).unsqueeze(-1).to(kept.dtype)
        return kept, view_mask.gather(1, indices), indices


def best_views(scores: Tensor, view_mask: Tensor, num_views: int) -> Tensor:
    """Chooses views by score, the global view always.

    Args:
        scores: `(B, V)`.
        view_mask: `(B, V)` valid views; a masked view is chosen only when too few are valid.
        num_views: K.

    Returns:
        Indices `(B, K)` in ascending order, index 0 among them; of equal scores the lower index is chosen.
    """
    ranking = scores.float().masked_fill(~view_mask, -torch.inf)
    ranking[:, 0].fill_(torch.inf)
    # A stable sort breaks ties by view index, which topk does not promise.
    return ranking.argsort(dim=1, descending=True, stable=True)[:, :num_views].sort(dim=1).values


def gather_views(views: Tensor, indices: Tensor) -> Tensor:
    """Takes `(B, K)` views out of `(B, V, ...)`; returns `(B, K, ...)`."""
    index = indices.reshape(*indices.shape, *[1] * (views.dim() - 2))
    return views.gather(1, index.expand(-1, -1, *views.shape[2:]))


def scatter_views(kept: Tensor, indices: Tensor, num_views: int) -> Tensor:
    """Puts `(B, K, ...)` views back in their places; returns `(B, V, ...)` with zeros (False) for the others."""
    index = indices.reshape(*indices.shape, *[1] * (kept.dim() - 2)).expand_as(kept)
    return kept.new_zeros(len(kept), num_views, *kept.shape[2:]).scatter(1, index, kept)

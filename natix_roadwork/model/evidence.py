"""Evidence pooling: a view's tokens become one vector.

One averaged vector a view hides a small cone. Here a scorer weighs the view's tokens (class token, mean, grid cells)
before they are summed. The vectors go to view pruning, the strength of each view's evidence to view fusion.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureStandardizer(nn.Module):
    """Shifts and scales frozen features by statistics of the training rows.

    Raw features of a frozen backbone have channels of very different scale. Three kinds of token have statistics of their own: first pooled, second pooled, cell.
    """

    def __init__(self, feature_dim: int, evidence_grid: int) -> None:
        super().__init__()
        self.num_cells = evidence_grid**2
        self.register_buffer("mean", torch.zeros(3, feature_dim))
        self.register_buffer("std", torch.ones(3, feature_dim))

    def token_kinds(self, num_tokens: int, device: torch.device) -> Tensor:
        """Kind of each of `num_tokens` tokens, `(T,)`: 0 and 1 pooled, 2 cells."""
        num_pooled = num_tokens - self.num_cells
        if num_pooled not in (1, 2):
            raise ValueError(
                f"view_features has {num_tokens} tokens a view; with evidence_grid cells = {self.num_cells} there "
                f"must be {self.num_cells + 1} or {self.num_cells + 2}."
            )
        kinds = torch.arange(num_tokens, device=device)
        return torch.where(kinds < num_pooled, kinds, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Standardises `(B, V, T, D)` in float32."""
        kinds = self.token_kinds(tokens.shape[2], tokens.device)
        return (tokens.float() - self.mean.float()[kinds]) / self.std.float()[kinds]

    def of_patches(self, grid: Tensor) -> Tensor:
        """Standardises a patch grid `(B, h, w, D)` in float32 as cells are; without an evidence grid it stays as it is."""
        return (grid.float() - self.mean[2].float()) / self.std[2].float()

    @torch.no_grad()
    def fit(self, view_features: Tensor, view_mask: Tensor | None = None, chunk: int = 64) -> None:
        """Sets the statistics from training rows.

        Args:
            view_features: `(N, V, T, D)` tokens, any float type.
            view_mask: `(N, V)` valid views; all when None.
            chunk: Rows summed at a time, which bounds the memory.

        Raises:
            ValueError: There is no valid view.
        """
        num_tokens = view_features.shape[2]
        kinds = self.token_kinds(num_tokens, torch.device("cpu"))
        total = torch.zeros(num_tokens, view_features.shape[-1], dtype=torch.float64)
        squares, count = total.clone(), 0
        for start in range(0, len(view_features), chunk):
            rows = view_features[start : start + chunk]
            mask = torch.ones(rows.shape[:2], dtype=torch.bool) if view_mask is None else view_mask[start:][:chunk]
            values = rows[mask.to(rows.device)].cpu().double()
            total += values.sum(dim=0)
            squares += values.square().sum(dim=0)
            count += len(values)
        if count == 0:
            raise ValueError(
                f"view_features of shape {tuple(view_features.shape)} holds no valid view to fit statistics on."
            )
        for kind in kinds.unique().tolist():
            rows_of_kind = count * int((kinds == kind).sum())
            mean = total[kinds == kind].sum(dim=0) / rows_of_kind
            variance = squares[kinds == kind].sum(dim=0) / rows_of_kind - mean.square()
            self.mean[kind] = mean.to(self.mean)
            # A channel that never varies would be divided by zero; it carries nothing, so it is left unscaled.
            varies = variance > 1e-12 * (1 + mean.square())
            self.std[kind] = torch.where(varies, variance.clamp_min(0).sqrt(), 1.0).to(self.std)


class EvidencePooling(nn.Module):
    """Pools `(B, V, T, D)` tokens into `(B, V, D)`.

    Each token goes through one hidden layer, where a unit can become a detector of one kind of evidence; Q learned
    queries weigh the tokens by gated attention (Ilse et al., https://arxiv.org/abs/1802.04712), each for its own slice
    of the hidden units, and the weighted sum returns to D. So a small token passes a non-linearity before it is averaged.
    In training a share of the tokens, `token_dropout`, is hidden at random, so that the queries cannot learn the training
    photos by a few tokens each (instance masking of https://arxiv.org/abs/2311.07125, there of the strongest tokens).
    """

    def __init__(self, feature_dim: int, hidden_size: int, num_queries: int, token_dropout: float) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.token_dropout = token_dropout
        self.hidden = nn.Linear(feature_dim, hidden_size)
        self.content = nn.Linear(hidden_size, hidden_size // 2)
        self.gate = nn.Linear(hidden_size, hidden_size // 2)
        self.scores = nn.Linear(hidden_size // 2, num_queries, bias=False)  # a softmax follows: it would cancel
        self.output = nn.Linear(hidden_size, feature_dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pools tokens.

        Returns:
            The vectors `(B, V, D)`; the token weights `(B, V, T)` averaged over the queries, summing to 1; and each
            view's strength `(B, V)`, the float32 log of its summed exponential scores, averaged over the queries.
        """
        hidden = F.gelu(self.hidden(tokens))  # (B, V, T, E)
        scores = self.scores(torch.tanh(self.content(hidden)) * torch.sigmoid(self.gate(hidden)))
        scores = scores.float()
        if self.training and self.token_dropout:
            dropped = torch.rand_like(scores[..., :1]) < self.token_dropout  # the same tokens for all queries
            # Not -inf: a view may lose all its tokens, which then weigh alike.
            scores = scores.masked_fill(dropped, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=2).to(hidden.dtype)  # (B, V, T, Q)
        slices = hidden.unflatten(-1, (self.num_queries, -1))  # (B, V, T, Q, E / Q)
        pooled = (weights.unsqueeze(-1) * slices).sum(dim=2).flatten(-2)
        return self.output(pooled), weights.mean(dim=-1), scores.logsumexp(dim=2).mean(dim=-1)

"""A small gated attention pool over all tokens of all views: the baseline a larger head must not lose to.

Standardised tokens go through one linear layer to 128 dimensions; a gated attention (Ilse et al., 2018,
https://arxiv.org/abs/1802.04712) weighs the tokens of all valid views of a photo jointly, and a linear layer decides.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from natix_roadwork.metrics import binary_metrics
from natix_roadwork.model.evidence import FeatureStandardizer
from natix_roadwork.training.token_features import Features


PREDICT_ROWS = 64


class AttentionPool(nn.Module):
    """Gated attention pool with its own standardisation of frozen tokens.

    Args:
        feature_dim: Width D of a token.
        evidence_grid: G of the patch grid; its G x G cells share their statistics.
        hidden_size: Width of the pool.
        dropout: Dropout on the pooled vector.
    """

    def __init__(self, feature_dim: int, evidence_grid: int, hidden_size: int = 128, dropout: float = 0.3) -> None:
        """Build the layers with fresh weights from torch's current random state."""
        super().__init__()
        self.standardizer = FeatureStandardizer(feature_dim, evidence_grid)
        self.project = nn.Linear(feature_dim, hidden_size)
        self.attend = nn.Linear(hidden_size, hidden_size)  # half of it the gate
        self.score = nn.Linear(hidden_size // 2, 1)
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden_size, 2)

    def forward(self, tokens: Tensor, view_mask: Tensor) -> Tensor:
        """Pool `tokens (B, V, T, D)` of the views in `view_mask (B, V)` into logits `(B, 2)`."""
        hidden = functional.gelu(self.project(self.standardizer(tokens)))  # (B, V, T, H)
        content, gate = self.attend(hidden).chunk(2, dim=-1)
        scores = self.score(torch.tanh(content) * torch.sigmoid(gate)).squeeze(-1)  # (B, V, T)
        scores = scores.masked_fill(~view_mask[..., None], float("-inf"))
        weights = torch.softmax(scores.flatten(1), dim=-1)  # (B, V * T)
        pooled = torch.einsum("bn,bnh->bh", weights, hidden.flatten(1, 2))
        return self.classify(self.dropout(self.norm(pooled)))


def fit_attention_pool(
    train: Features,
    dev: Features,
    seed: int = 0,
    num_epochs: int = 40,
    patience: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.03,
) -> AttentionPool:
    """Train the pool on `train` and return it as it was at its best epoch by dev AUC.

    Cross-entropy weighs both classes equally, so that 0.5 is a sensible cut whatever the prior. Equal AUCs are ordered
    by dev loss, and so are all epochs when dev holds one class only. The global random state is left as it was.

    Args:
        train: Rows to fit on.
        dev: Rows that choose the epoch.
        seed: Seed of the initial weights, the row order and dropout.
        num_epochs: Most passes over `train`.
        patience: Passes without a better dev score after which training ends.
        batch_size: Rows a step.
        learning_rate: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
    """
    class_weights = _class_weights(train.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = AttentionPool(train.view_features.shape[-1], train.evidence_grid)
        pool.standardizer.fit(torch.from_numpy(train.view_features), torch.from_numpy(train.view_mask))
        optimizer = torch.optim.AdamW(pool.parameters(), lr=learning_rate, weight_decay=weight_decay)
        order = torch.Generator().manual_seed(seed)
        best_score, best_state, best_epoch = None, None, 0
        for epoch in range(num_epochs):
            _train_epoch(
                pool, optimizer, train, class_weights, torch.randperm(len(train), generator=order), batch_size
            )
            score = _dev_score(pool, dev, class_weights)
            if best_score is None or score > best_score:
                best_score, best_state, best_epoch = score, copy.deepcopy(pool.state_dict()), epoch
            if epoch - best_epoch >= patience:
                break
    pool.load_state_dict(best_state)
    return pool.eval()


def predict_attention_pool(pool: AttentionPool, features: Features) -> NDArray[np.float64]:
    """Return `(N,)` probabilities of roadwork."""
    return torch.softmax(_logits(pool, features), dim=-1)[:, 1].numpy()


def _logits(pool: AttentionPool, features: Features) -> Tensor:
    pool.eval()
    with torch.no_grad():
        batches = torch.arange(len(features)).split(PREDICT_ROWS)
        return torch.cat([pool(*_batch(features, rows)) for rows in batches]).double()


def _train_epoch(
    pool: AttentionPool,
    optimizer: torch.optim.Optimizer,
    train: Features,
    class_weights: Tensor,
    order: Tensor,
    batch_size: int,
) -> None:
    pool.train()
    labels = torch.from_numpy(train.labels.astype(np.int64))
    for rows in order.split(batch_size):
        loss = functional.cross_entropy(pool(*_batch(train, rows)), labels[rows], weight=class_weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batch(features: Features, rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows.numpy()
    return torch.from_numpy(features.view_features[rows]), torch.from_numpy(features.view_mask[rows])


def _class_weights(labels: NDArray) -> Tensor:
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    return torch.from_numpy(len(labels) / (2.0 * counts)).float()


def _dev_score(pool: AttentionPool, dev: Features, class_weights: Tensor) -> tuple[float, float]:
    logits = _logits(pool, dev)
    labels = torch.from_numpy(dev.labels.astype(np.int64))
    loss = functional.cross_entropy(logits, labels, weight=class_weights.double()).item()
    auc = binary_metrics(dev.labels, torch.softmax(logits, dim=-1)[:, 1].numpy())["auc"]
    return (0.0 if auc is None else auc, -loss)

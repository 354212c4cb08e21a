"""Heads: the last layers for one output."""

from torch import Tensor, nn


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

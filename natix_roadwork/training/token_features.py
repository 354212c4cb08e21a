"""Backbone tokens of a split as arrays: what the baselines are fitted on and scored with."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Features:
    """Tokens, view masks, labels and groups of the rows of one split.

    Attributes:
        view_features: `(N, V, T, D)` float16 or float32 backbone tokens; the P pooled tokens of a view come first.
        view_mask: `(N, V)` boolean, False where a view is degenerate. View 0 (the global view) is always valid.
        labels: `(N,)` integers, 0 None and 1 Roadwork.
        groups: `(N,)` group of each row; rows of one group stay on one side of a split.
        num_pooled_tokens: P, how many tokens at the start of a view are pooled over the whole view (CLS, mean).

    Raises:
        ValueError: If shapes disagree, a label is neither 0 nor 1, or a row has no global view; the row is named.
    """

    view_features: NDArray
    view_mask: NDArray[np.bool_]
    labels: NDArray
    groups: NDArray
    num_pooled_tokens: int

    def __post_init__(self) -> None:
        """Check the shapes and labels."""
        shape = self.view_features.shape
        if len(shape) != 4 or not all(shape):
            raise ValueError(
                f"view_features has shape {shape}; it needs (rows, views, tokens, dimensions), none empty"
            )
        if self.view_mask.shape != shape[:2] or self.view_mask.dtype != bool:
            raise ValueError(f"view_mask is {self.view_mask.dtype} {self.view_mask.shape}; it needs bool {shape[:2]}")
        for name in ("labels", "groups"):
            if getattr(self, name).shape != shape[:1]:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; it needs {shape[:1]}")
        if not 1 <= self.num_pooled_tokens <= shape[2]:
            raise ValueError(
                f"num_pooled_tokens={self.num_pooled_tokens!r} is not between 1 and {shape[2]} tokens a view"
            )
        bad = np.flatnonzero(~np.isin(self.labels, (0, 1)))
        if len(bad):
            raise ValueError(f"labels[{bad[0]}]={self.labels[bad[0]]} is neither 0 nor 1")
        bad = np.flatnonzero(~self.view_mask[:, 0])
        if len(bad):
            raise ValueError(f"view_mask[{bad[0]}, 0] is False; view 0, the global view, must be valid in every row")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def subset(self, indices: NDArray) -> "Features":
        """Return the rows at `indices` (integers or a boolean mask), in that order.

        Raises:
            ValueError: If no row is left.
        """
        return Features(
            view_features=self.view_features[indices],
            view_mask=self.view_mask[indices],
            labels=self.labels[indices],
            groups=self.groups[indices],
            num_pooled_tokens=self.num_pooled_tokens,
        )

    def pooled_tokens(self) -> NDArray[np.float32]:
        """Return the pooled tokens of every view, concatenated: `(N, V, P * D)` float32."""
        num_rows, num_views, _, _ = self.view_features.shape
        pooled = self.view_features[:, :, : self.num_pooled_tokens]
        return pooled.reshape(num_rows, num_views, -1).astype(np.float32)

    @property
    def evidence_grid(self) -> int:
        """G of the G x G patch grid behind the pooled tokens; 0 = none.

        Raises:
            ValueError: If the cells form no square.
        """
        num_cells = self.view_features.shape[2] - self.num_pooled_tokens
        side = math.isqrt(num_cells)
        if side**2 != num_cells:
            raise ValueError(
                f"view_features has {self.view_features.shape[2]} tokens a view, {self.num_pooled_tokens} of them "
                f"pooled; the other {num_cells} are no square grid"
            )
        return side

"""Training on dark photos: which rows count as dark, how often the others are drawn, what the model says of both kinds.

In come the train rows, out go a limit of brightness and a weight for each row. `pretrain_inputs.py` and
`finetune_inputs.py` choose what is trained on by it; dev and the rows that choose the epoch stay whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray
from transformers.utils import logging

from natix_roadwork.data.brightness import brightness_of
from natix_roadwork.metrics import metrics_with_intervals


logger = logging.get_logger(__name__)

FEWEST_OF_A_CLASS = 5  # dark rows, below which there is nothing to learn from
# Mean grey level of 255 below which the error report calls a photo dark.
NIGHT_LEVEL = 65.0


@dataclass(kw_only=True)
class DarkArguments:
    """Which train rows a night specialist is trained on.

    Attributes:
        darkest_share: Share of the train rows, the darkest by the mean grey level of their photos, that count as dark;
            None = brightness plays no part. A share fits every data set, whatever its cameras; the grey level that it
            comes to is in `result.json`.
        bright_weight: How often another row is drawn for each time a dark one is; 0 = the others are left out, with which
            the model did worse on dark photos too, where those were few (`recipes/README.md`). Without `darkest_share` it
            plays no part.
    """

    darkest_share: float | None = field(default=None, metadata={"help": "Share of train rows that count as dark."})
    bright_weight: float = field(
        default=0.2, metadata={"help": "Draws of another row for one of a dark row; 0 = none."}
    )

    def check_dark(self) -> None:
        """Check both keys.

        Raises:
            ValueError: If a key is out of range; the message names it and its value.
        """
        if self.darkest_share is not None and not 0.0 < self.darkest_share < 1.0:
            raise ValueError(
                f"darkest_share={self.darkest_share!r} must lie between 0 and 1, or be null: brightness plays no part"
            )
        if not 0.0 <= self.bright_weight < 1.0:
            raise ValueError(f"bright_weight={self.bright_weight!r} must lie in [0, 1); 0 leaves bright rows out")


@dataclass(frozen=True)
class DarkRows:
    """Dark rows among those that a model is trained on.

    Attributes:
        limit: Grey level, 0 to 255, up to which a photo is dark.
        levels: `(N,)` grey levels of the train rows.
        labels: `(N,)` their labels.
        bright_weight: Weight of a row that is not dark; a dark row has 1.
    """

    limit: float
    levels: NDArray[np.float64]
    labels: NDArray[np.int64]
    bright_weight: float = 0.0

    @property
    def weights(self) -> NDArray[np.float64]:
        """`(N,)` weights by which the rows are drawn, 0 = left out."""
        return np.where(self.levels <= self.limit, 1.0, self.bright_weight)

    def kept(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some row numbers that are trained on.

        Raises:
            ValueError: If a class has too few dark rows among them.
        """
        dark = rows[self.levels[rows] <= self.limit]
        counts = np.bincount(self.labels[dark], minlength=2)
        if counts.min() < FEWEST_OF_A_CLASS:
            raise ValueError(
                f"of {len(rows)} rows to train on {len(dark)} are dark (grey level up to {self.limit:.0f}), {counts[1]} "
                f"with roadwork and {counts[0]} without; {FEWEST_OF_A_CLASS} of each are the least: raise darkest_share, "
                "or bring more photos"
            )
        return rows if self.bright_weight else dark

    def drawn(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return the sampling weights `(M,)` of rows that `kept` gave; None = each once an epoch."""
        return self.weights[rows] if self.bright_weight else None

    def combined(self, weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Multiply sampling weights `(N,)` of the same rows, None = all 1, by those of the brightness."""
        return self.weights if weights is None else self.weights * weights

    def counts(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, dict[str, int]]:
        """Count dark and other rows of each class among some row numbers."""
        return _counts(self.levels[rows] <= self.limit, self.labels[rows])

    def as_dict(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
        """Describe the choice among the rows that are trained on, and what they were chosen from, as JSON values."""
        return {
            "grey_level_limit": self.limit,
            "bright_weight": self.bright_weight,
            "below_night_level": int((self.levels < NIGHT_LEVEL).sum()),
            "night_level": NIGHT_LEVEL,
            "rows": self.counts(np.arange(len(self.levels))),
            "trained_on": self.counts(rows),
        }


def choose_dark_rows(rows: Dataset, arguments: DarkArguments) -> DarkRows | None:
    """Measure the brightness of the rows to train on and find the darkest; None where it plays no part.

    Args:
        rows: N rows of `load_rows`.
        arguments: Share and weight.

    Raises:
        ValueError: If a photo cannot be decoded, or a class has too few dark rows.
    """
    if arguments.darkest_share is None:
        return None
    levels = brightness_of(rows)
    count = max(1, round(arguments.darkest_share * len(levels)))
    limit = float(np.sort(levels)[count - 1])
    labels = np.asarray(rows["label"][:], dtype=np.int64)
    found = DarkRows(limit, levels, labels, arguments.bright_weight)
    found.kept(np.arange(len(levels)))  # too few rows are an error before anything is computed
    counts = found.counts(np.arange(len(levels)))
    others = f"drawn {arguments.bright_weight:g} times as often" if arguments.bright_weight else "left out"
    logger.info(
        f"{sum(counts['dark'].values())} of {len(levels)} rows are dark, with a grey level of up to {limit:.1f} "
        f"({counts['dark']}); the others ({counts['other']}) are {others}."
    )
    return found


def dark_figures(rows: Dataset, limit: float, probabilities: ArrayLike, seed: int) -> dict[str, dict[str, Any]]:
    """Score dark rows and the others apart.

    Args:
        rows: N rows of `load_rows`.
        limit: Grey level up to which a photo is dark.
        probabilities: `(N,)` of roadwork.
        seed: Of the intervals.

    Returns:
        For `dark` and `other` the rows by class and the metrics with intervals, None where there is no such row.
    """
    labels, dark = np.asarray(rows["label"][:], dtype=np.int64), brightness_of(rows) <= limit
    probabilities, names = np.asarray(probabilities), np.asarray(rows["group"][:])
    counts, found = _counts(dark, labels), {}
    for name, mask in (("dark", dark), ("other", ~dark)):
        metrics = None
        if mask.any():
            metrics = metrics_with_intervals(labels[mask], probabilities[mask], groups=names[mask], seed=seed)
        found[name] = {"rows": counts[name], "metrics": metrics}
    return found


def _counts(dark: NDArray[np.bool_], labels: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    found = {}
    for name, mask in (("dark", dark), ("other", ~dark)):
        none, roadwork = np.bincount(labels[mask], minlength=2).tolist()
        found[name] = {"None": none, "Roadwork": roadwork}
    return found

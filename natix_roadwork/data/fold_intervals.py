"""Intervals of out-of-fold scores, which are wider than those of as many independent rows.

In come metrics or a paired difference with the interval of a bootstrap over groups, and the folds of the rows; out goes
the same with wider intervals. Fold fine-tuning, the ablation and the ensemble use it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.metrics import PairedDifference


def fold_widening(folds: NDArray[np.int64]) -> float:
    """Return by how much an interval must be wider for scores out of K folds than for as many independent rows.

    Models of two folds share most of their training rows, so their errors go together; on labels that nothing can be
    learned from, the deviation is sqrt(2) of what a bootstrap of rows says, and a 95 % interval holds 0 in 83 % of draws.
    The correction is that of Nadeau and Bengio 2003 (https://doi.org/10.1023/A:1024068626366) for shares 1 / K held out and
    1 - 1 / K trained on: sqrt(1 + K / (K - 1)). It is generous where the members are far better than chance.

    Args:
        folds: `(N,)` fold of each row; -1 = of a split that taught nothing. Without folds the result is 1.
    """
    num_folds = len(np.unique(folds[folds >= 0]))
    return float(np.sqrt(1.0 + num_folds / (num_folds - 1))) if num_folds > 1 else 1.0


def widen_difference(difference: PairedDifference, factor: float) -> PairedDifference:
    """Widen the interval and the standard error of a difference by a factor."""
    low, high = _widened(difference.value, difference.low, difference.high, factor)
    return PairedDifference(difference.value, low, high, difference.standard_error * factor)


def widen_metrics(
    metrics: Mapping[str, Mapping[str, float | None]], factor: float
) -> dict[str, dict[str, float | None]]:
    """Widen the interval of each metric by a factor, within the metric's range; that of the prevalence stays."""
    widened = {name: dict(metric) for name, metric in metrics.items()}
    for name, metric in widened.items():
        if name != "prevalence" and metric["low"] is not None:  # which no model has a part in
            smallest = -1.0 if name.startswith("mcc") else 0.0
            ends = _widened(metric["value"], metric["low"], metric["high"], factor)
            metric["low"], metric["high"] = np.clip(ends, smallest, 1.0).tolist()
    return widened


def _widened(value: float, low: float, high: float, factor: float) -> tuple[float, float]:
    if factor == 1.0:  # exactly as it was, without rounding
        return low, high
    return value - factor * (value - low), value + factor * (high - value)

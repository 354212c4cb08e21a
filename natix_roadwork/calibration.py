"""Calibration of the probability of roadwork: one temperature that divides the logits.

Comes in: margins (logit of Roadwork minus logit of None) and labels of rows that nothing was trained on. Goes out: the
temperature, and the loss that is left after it; the dev metric `refined_loss` is that loss.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar


# Rows that a model separates fully would ask for temperature 0; the bound keeps the loss apart from 0 there, so that a
# wider margin still counts.
TEMPERATURES = (0.05, 20.0)


def log_loss(margins: ArrayLike, labels: ArrayLike) -> float:
    """Compute the mean cross-entropy of margins `(N,)`, without rounding at large ones.

    Args:
        margins: `(N,)` logit of Roadwork minus logit of None.
        labels: `(N,)` 0 or 1.
    """
    signs = np.where(np.asarray(labels) == 1, -1.0, 1.0)
    return float(np.logaddexp(0.0, signs * np.asarray(margins, dtype=np.float64)).mean())


def fit_temperature(margins: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature that the margins must be divided by for the smallest log loss.

    Temperature scaling (Guo et al., https://arxiv.org/abs/1706.04599); the loss is convex in 1 / temperature. The
    decisions at 0.5 stay as they are.

    Args:
        margins: `(N,)` logit of Roadwork minus logit of None, of rows that were not trained on.
        labels: `(N,)` 0 or 1.

    Returns:
        A temperature within `TEMPERATURES`.

    Raises:
        ValueError: Lengths differ, there is no row, or a margin is not finite; the row is named.
    """
    margins, labels = _check(margins, labels)
    low, high = (1.0 / TEMPERATURES[1], 1.0 / TEMPERATURES[0])
    found = minimize_scalar(
        lambda sharpness: log_loss(sharpness * margins, labels), bounds=(low, high), method="bounded"
    )
    # The bounded search stays inside of its bounds; where the loss still falls towards one, the bound is the answer.
    best = min((float(found.x), low, high), key=lambda sharpness: log_loss(sharpness * margins, labels))
    return 1.0 / best


def refined_loss(margins: ArrayLike, labels: ArrayLike) -> float:
    """Compute the log loss that is left at the best temperature: how well a model tells the classes apart.

    The plain loss of a growing model rises with its confidence long before it stops telling the classes apart better;
    a temperature undoes that part (Berta et al., "Rethinking Early Stopping: Refine, Then Calibrate",
    https://arxiv.org/abs/2501.19195). So it chooses an epoch well, without the coarse steps of MCC and the ties of AUC.

    Args:
        margins: `(N,)` logit of Roadwork minus logit of None.
        labels: `(N,)` 0 or 1.

    Raises:
        ValueError: As `fit_temperature`.
    """
    margins, labels = _check(margins, labels)
    return log_loss(margins / fit_temperature(margins, labels), labels)


def _check(margins: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray]:
    margins, labels = np.asarray(margins, dtype=np.float64), np.asarray(labels)
    if margins.ndim != 1 or not len(margins) or labels.shape != margins.shape:
        raise ValueError(
            f"margins have shape {margins.shape}, labels {labels.shape}; give one value a row and at least one row"
        )
    bad = np.flatnonzero(~np.isfinite(margins) | ~np.isin(labels, (0, 1)))
    if len(bad):
        raise ValueError(
            f"row {bad[0]} has margin {margins[bad[0]]} and label {labels[bad[0]]}; margins must be finite, labels 0 or "
            f"1 ({len(bad)} such rows)"
        )
    return margins, labels

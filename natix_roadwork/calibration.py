"""Calibration of the probability of roadwork: temperature, Platt's line, prior shift, and their way into the model.

Comes in: margins (logit of Roadwork minus logit of None) and labels of rows that nothing was trained on. Goes out: an
`AffineMap` z' = scale * z + offset of the margin, which `fold_into_classifier` writes into a model's last layer. The cut
that is best for MCC comes from `threshold.py`. The dev metric `refined_loss` is the loss left at the best temperature.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from torch import nn


# Rows that a model separates fully would ask for temperature 0; the bound keeps the loss apart from 0 there, so that a
# wider margin still counts.
TEMPERATURES = (0.05, 20.0)
_LARGEST_EXPONENT = 500.0  # its exponential is still finite

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class AffineMap:
    """A change of the margin that keeps the order of rows: z' = `scale` * z + `offset`.

    Raises:
        ValueError: If the scale is not positive, or a value is not finite.
    """

    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        if not (np.isfinite(self.scale) and self.scale > 0 and np.isfinite(self.offset)):
            raise ValueError(f"scale={self.scale!r}, offset={self.offset!r}; both must be finite, the scale positive")

    def __call__(self, margins: ArrayLike) -> FloatArray:
        """Map margins `(N,)`."""
        return self.scale * np.asarray(margins, dtype=np.float64) + self.offset

    def then(self, following: "AffineMap") -> "AffineMap":
        """Return the one map that does this one first and `following` after it."""
        return AffineMap(self.scale * following.scale, following.scale * self.offset + following.offset)


def log_loss(margins: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Compute the mean cross-entropy of margins `(N,)`, without rounding at large ones.

    Args:
        margins: `(N,)` logit of Roadwork minus logit of None.
        labels: `(N,)` 0 or 1.
        weights: `(N,)` weight of each row; None = equal.
    """
    signs = np.where(np.asarray(labels) == 1, -1.0, 1.0)
    return float(np.average(np.logaddexp(0.0, signs * np.asarray(margins, dtype=np.float64)), weights=weights))


def fit_temperature(margins: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Find the temperature that the margins must be divided by for the smallest log loss.

    Temperature scaling (Guo et al., https://arxiv.org/abs/1706.04599); the loss is convex in 1 / temperature. The
    decisions at 0.5 stay as they are.

    Args:
        margins: `(N,)` logit of Roadwork minus logit of None, of rows that were not trained on.
        labels: `(N,)` 0 or 1.
        weights: `(N,)` weight of each row; None = equal.

    Returns:
        A temperature within `TEMPERATURES`.

    Raises:
        ValueError: Lengths differ, there is no row, or a margin is not finite; the row is named.
    """
    margins, labels = check_margins(margins, labels)
    low, high = (1.0 / TEMPERATURES[1], 1.0 / TEMPERATURES[0])
    found = minimize_scalar(
        lambda sharpness: log_loss(sharpness * margins, labels, weights), bounds=(low, high), method="bounded"
    )
    # The bounded search stays inside of its bounds; where the loss still falls towards one, the bound is the answer.
    best = min((float(found.x), low, high), key=lambda sharpness: log_loss(sharpness * margins, labels, weights))
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
    margins, labels = check_margins(margins, labels)
    return log_loss(margins / fit_temperature(margins, labels), labels)


def fit_platt(margins: ArrayLike, labels: ArrayLike) -> AffineMap:
    """Fit scale and offset of the margins for the smallest log loss: probabilities at the prior of these rows.

    Targets are smoothed as in Platt 1999 (http://citeseerx.ist.psu.edu/viewdoc/summary?doi=10.1.1.41.1639), so that rows
    that are separated, or whose margins are all equal, give finite values. The scale stays within 1 / `TEMPERATURES`:
    margins that say the opposite of the labels are damped, not turned round.

    Args:
        margins: `(N,)` logit of Roadwork minus logit of None, of rows that were not trained on.
        labels: `(N,)` 0 or 1, of both classes.

    Raises:
        ValueError: As `fit_temperature`, or if there is one class only.
    """
    margins, labels = check_margins(margins, labels)
    require_both(labels, "Platt's line")
    positives = labels.sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    largest = np.abs(margins).max() or 1.0  # so that no square overflows
    centre, spread = margins.mean(), largest * (margins / largest).std() or 1.0
    inputs = np.stack([(margins - centre) / spread, np.ones(len(margins))])

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        mapped = parameters @ inputs
        gradient = inputs @ (0.5 * (1.0 + np.tanh(0.5 * mapped)) - targets)
        return float((np.logaddexp(0.0, mapped) - targets * mapped).mean()), gradient / len(targets)

    bounds = [(spread / TEMPERATURES[1], spread / TEMPERATURES[0]), (None, None)]
    start = [min(max(1.0, bounds[0][0]), bounds[0][1]), _logit(labels.mean())]
    scale, offset = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return AffineMap(float(scale / spread), float(offset - scale * centre / spread))


def shift_prior(source: float, target: float) -> AffineMap:
    """Return the map that takes calibrated margins from one share of roadwork to another.

    Args:
        source: Share of roadwork among the rows that the margins are calibrated on, in (0, 1).
        target: Share where they will be used, in (0, 1).

    Raises:
        ValueError: If a share is not between 0 and 1.
    """
    return AffineMap(1.0, _logit(check_prior("target", target)) - _logit(check_prior("source", source)))


def estimate_prior(margins: ArrayLike, source: float) -> float:
    """Estimate the share of roadwork among unlabelled rows from their calibrated margins.

    It is the share of the greatest likelihood, where the EM iteration of Saerens et al. 2002
    (https://doi.org/10.1162/089976602753284446) ends; the likelihood is concave, so its slope is solved for.

    Args:
        margins: `(N,)` margins calibrated at the share `source`.
        source: Share of roadwork of the rows they were calibrated on, in (0, 1).

    Returns:
        A share between 1 / (2N) and 1 - 1 / (2N); `source` where all rows are equally likely under both classes.

    Raises:
        ValueError: If there is no row, a margin is not finite, or the share is not between 0 and 1.
    """
    margins, _ = check_margins(margins, np.zeros(np.shape(margins), dtype=np.int64))
    exponents = margins - _logit(check_prior("source", source))
    ratios = np.exp(np.clip(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))  # p(x | Roadwork) / p(x | None)
    if np.ptp(ratios) == 0 and np.isclose(ratios[0], 1.0):
        return source

    def slope(share: float) -> float:
        return float(((ratios - 1.0) / (share * ratios + 1.0 - share)).mean())

    low, high = 0.5 / len(margins), 1.0 - 0.5 / len(margins)
    if slope(low) <= 0 or low >= high:
        return low
    return high if slope(high) >= 0 else float(brentq(slope, low, high))


@torch.no_grad()
def fold_into_classifier(model: nn.Module, scale: float, offset: float) -> None:
    """Change the last layer in place so that the margin of the logits becomes `scale` * margin + `offset`.

    View logits, which the same layer makes, change alike. A model is changed once, after its training: a loss on the
    new logits is not the loss it was trained with.

    Args:
        model: `RoadworkForImageClassification`, another model whose `classifier` ends in one linear layer of two
            outputs (None, Roadwork), or that `nn.Linear` itself.
        scale: Positive factor of the margin.
        offset: What is added to it.

    Raises:
        ValueError: If the model has no such layer or several, or a value is out of range.
    """
    mapping = AffineMap(scale, offset)
    head = getattr(model, "classifier", model)
    layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear) and layer.out_features == 2]
    if len(layers) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(layers)} linear layers of two outputs in its classifier; it needs exactly "
            "one (merge an adapter before)"
        )
    (layer,) = layers
    layer.weight.mul_(mapping.scale)
    shift = layer.weight.new_tensor([-0.5, 0.5]) * mapping.offset
    if layer.bias is None:
        layer.bias = nn.Parameter(shift)
    else:
        layer.bias.mul_(mapping.scale).add_(shift)


def check_margins(margins: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, NDArray]:
    """Return both as arrays of `(N,)`.

    Raises:
        ValueError: Lengths differ, there is no row, a margin is not finite or a label neither 0 nor 1; the row is named.
    """
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


def require_both(labels: NDArray, what: str) -> None:
    """Check that rows of both classes are there.

    Raises:
        ValueError: With what is fitted and the one class there is.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError(f"labels of all {len(labels)} rows are {labels[0]}; {what} needs rows of both classes")


def check_prior(name: str, value: float) -> float:
    """Return a share of roadwork.

    Raises:
        ValueError: If it is not between 0 and 1.
    """
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name}={value!r} is not a share of roadwork between 0 and 1")
    return value


def _logit(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))

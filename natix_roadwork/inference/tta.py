"""Test-time augmentation: one probability a photo out of the answers for its TTA transforms.

In come members' predictions with several transforms a photo, and the feature statistics of their train rows; out goes one
prediction a photo. `tta_acceptance.py` decides on held-out rows whether a mode is worth its cost. The modes:

    none      the photos as they are; with several members the mean of their answers
    mean      the mean over all transforms
    learned   one weight a transform, fitted by log loss (Shanmugam et al., https://arxiv.org/abs/2011.11156)
    foods     OOD-filtered: the originals and the variants nearest to the training features, 80 % in all, are kept; the
              nearer weigh more. No publication describes it
    knn       OOD-filtered as published: variants further than 95 % of the train rows are dropped, the others weigh
              inversely to their distance (Putzu et al., https://doi.org/10.3390/jimaging11090295)

Members and transforms go through one filter together: three members of 13 variants give 39, of which 31 are kept.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize
from scipy.special import softmax

from natix_roadwork.data.predictions import LEARNED_FROM, NOT_OUT_OF_FOLD, Predictions
from natix_roadwork.inference.feature_statistics import FeatureStatistics
from natix_roadwork.inference.tta_variants import Column, FloatArray, Variants, side_by_side


MODES = ("none", "mean", "learned", "foods", "knn")
FILTERED = ("foods", "knn")  # they need feature statistics
KEPT_SHARE = 0.8
# In units of the train rows' median distance: from the nearest variant alone to almost equal weights.
TAUS = np.logspace(-2, 2, 33)
# Strength of the pull towards equal weights, in rows' worth of log loss: it counts for less the more rows there are.
L2_ROWS = 1.0
_LEAST = 1e-7  # probability in a log loss
_NEAREST = 1e-3  # a photo of the training itself has distance 0; in units of the threshold


@dataclass(frozen=True)
class Aggregation:
    """A mode with what was fitted for it; its fields are JSON values.

    Attributes:
        mode: One of `MODES`.
        columns: Members and transforms that it expects, in order.
        tau: Of `foods`: how fast weights fall with the distance.
        weights: Of `learned`: one for each column.
        learned_from: Splits whose labels fitted tau or the weights.

    Raises:
        ValueError: If the mode is unknown or lacks what it needs.
    """

    mode: str
    columns: tuple[Column, ...]
    tau: float | None = None
    weights: tuple[float, ...] | None = None
    learned_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields; lists from JSON become tuples."""
        object.__setattr__(self, "columns", tuple((str(member), int(number)) for member, number in self.columns))
        object.__setattr__(self, "weights", None if self.weights is None else tuple(self.weights))
        object.__setattr__(self, "learned_from", tuple(self.learned_from))
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r} is unknown; choose one of {', '.join(MODES)}")
        if self.mode == "foods" and not (self.tau or 0) > 0:
            raise ValueError(f"tau={self.tau!r} of mode 'foods' must be above 0")
        if self.mode == "learned" and len(self.weights or ()) != len(self.columns):
            raise ValueError(f"mode 'learned' needs a weight for each of its {len(self.columns)} columns")


def aggregate(
    members: Sequence[Predictions],
    aggregation: Aggregation,
    statistics: Mapping[str, FeatureStatistics] | None = None,
    name: str = "tta",
) -> Predictions:
    """Put the answers for each photo's transforms together, over all members at once.

    Args:
        members: Predictions with several transforms a photo.
        aggregation: The mode, as `fit_aggregation` gives it.
        statistics: Of each member by its name; `foods` and `knn` need them.
        name: Name of the result as a member.

    Returns:
        One line a photo, in the order of the first member's originals, without embeddings.

    Raises:
        ValueError: As `side_by_side` and `variant_weights`.
    """
    variants = side_by_side(members, statistics)
    folds = np.full(len(variants), NOT_OUT_OF_FOLD) if aggregation.learned_from else variants.originals.folds
    return as_member(variants, combine(variants, aggregation), name, folds, aggregation.learned_from)


def modes_of(variants: Variants) -> tuple[str, ...]:
    """Return the modes that can be had: without statistics no filtered ones."""
    return tuple(mode for mode in MODES if mode not in FILTERED or variants.mahalanobis is not None)


def combine(variants: Variants, aggregation: Aggregation) -> FloatArray:
    """Weigh each photo's variants: probabilities of Roadwork `(N,)`."""
    # Weights sum to 1 but for rounding, which must not lift a probability above 1.
    return np.clip((variant_weights(variants, aggregation) * variants.probabilities).sum(axis=1), 0.0, 1.0)


def variant_weights(variants: Variants, aggregation: Aggregation) -> FloatArray:
    """Return what each variant counts for, `(N, T)`: not negative, 1 in all for a photo, 0 where it is dropped.

    Raises:
        ValueError: If the columns are not those of the fit, or a filtered mode lacks distances.
    """
    if variants.columns != aggregation.columns:
        other = sorted(set(variants.columns) ^ set(aggregation.columns))
        raise ValueError(
            f"the aggregation was fitted on other members or transforms ({other[:3] or 'in another order'} differ); "
            "predict with the same, or fit it again"
        )
    if aggregation.mode not in modes_of(variants):
        raise ValueError(f"mode={aggregation.mode!r} needs the statistics of each member's train features")
    if aggregation.mode == "foods":
        return _nearness_weights(variants.mahalanobis, variants.is_original, aggregation.tau)
    if aggregation.mode == "knn":
        kept = variants.is_original | (variants.neighbours <= 1.0)
        weights = kept / np.maximum(variants.neighbours, _NEAREST)
    else:
        by_column = {"none": variants.is_original, "mean": np.ones(len(variants.columns))}
        column = by_column.get(aggregation.mode, aggregation.weights)
        weights = np.broadcast_to(np.asarray(column, dtype=np.float64), variants.probabilities.shape)
    return weights / weights.sum(axis=1, keepdims=True)


def fit_aggregation(variants: Variants, mode: str) -> Aggregation:
    """Fit what a mode needs by the log loss of these rows: tau of `foods`, the weights of `learned`, else nothing."""
    labels, splits = variants.labels, tuple(sorted(set(variants.originals.splits.tolist())))
    if mode == "learned":
        weights = tuple(fit_weights(variants.probabilities, labels).tolist())
        return Aggregation(mode, variants.columns, weights=weights, learned_from=splits)
    if mode == "foods":
        # Of equally good ones the largest: nearest to equal weights.
        tries = [Aggregation(mode, variants.columns, tau=tau, learned_from=splits) for tau in TAUS[::-1].tolist()]
        return min(tries, key=lambda one: _log_loss(combine(variants, one), labels))
    return Aggregation(mode, variants.columns)


def fit_weights(probabilities: FloatArray, labels: NDArray[np.int64], l2_rows: float = L2_ROWS) -> FloatArray:
    """Find the weights of T variants, not negative and 1 in all, of the smallest log loss; a convex problem.

    A pull towards equal weights keeps few rows from choosing one transform by luck: `l2_rows / N` times T times the squared
    distance from 1 / T.

    Args:
        probabilities: `(N, T)` of Roadwork.
        labels: `(N,)` 0 or 1.
        l2_rows: Strength of the pull.

    Returns:
        `(T,)`.
    """
    rows, count = probabilities.shape
    likely = np.clip(np.where(labels[:, None] == 1, probabilities, 1.0 - probabilities), _LEAST, 1.0)
    pull = l2_rows / rows * count

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        mixed, apart = np.maximum(likely @ weights, _LEAST), weights - 1.0 / count
        slope = -(likely / mixed[:, None]).mean(axis=0) + 2.0 * pull * apart
        return float(-np.log(mixed).mean() + pull * apart @ apart), slope

    found = minimize(
        loss,
        np.full(count, 1.0 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints=LinearConstraint(np.ones(count), 1.0, 1.0),
        options={"maxiter": 500, "ftol": 1e-10},
    )
    weights = np.clip(found.x, 0.0, None)
    return weights / weights.sum()


def as_member(
    variants: Variants,
    probabilities: FloatArray,
    name: str,
    folds: NDArray[np.int64],
    learned_from: Sequence[str] = (),
) -> Predictions:
    """Make aggregated probabilities a member of its own, so that an ensemble or the error report can read it.

    Args:
        variants: What was aggregated.
        probabilities: `(N,)` of Roadwork.
        name: Name of the member.
        folds: `(N,)` the fold whose fit never saw the row; -1 = not out-of-fold.
        learned_from: Splits whose labels chose or fitted the aggregation, besides those the members learned from.
    """
    likely = np.clip(probabilities, _LEAST, 1.0 - _LEAST)
    half = 0.5 * (np.log(likely) - np.log1p(-likely))
    lines = variants.originals
    return dataclasses.replace(
        lines,
        member=name,
        logits=np.stack([-half, half], axis=1).astype(np.float32),
        embeddings=np.empty((len(lines), 0), dtype=np.float32),
        folds=folds,
        record=lines.record | {LEARNED_FROM: sorted({*lines.record[LEARNED_FROM], *learned_from})},
    )


def _nearness_weights(distances: FloatArray, is_original: NDArray[np.bool_], tau: float) -> FloatArray:
    """Keep the originals and the nearest others, and weigh them by softmax(-(d - smallest d) / tau)."""
    count = max(round(KEPT_SHARE * len(is_original)), int(is_original.sum()))
    order = np.argsort(np.where(is_original, -np.inf, distances), axis=1, kind="stable")
    logits = np.full(distances.shape, -np.inf)
    kept = order[:, :count]
    np.put_along_axis(logits, kept, -np.take_along_axis(distances, kept, axis=1) / tau, axis=1)
    return softmax(logits, axis=1)


def _log_loss(probabilities: FloatArray, labels: NDArray[np.int64]) -> float:
    likely = np.where(labels == 1, probabilities, 1.0 - probabilities)
    return float(-np.log(np.maximum(likely, _LEAST)).mean())

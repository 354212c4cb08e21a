"""Numbers that judge a roadwork classifier, with grouped bootstrap intervals.

In come labels, probabilities of roadwork and groups; out come plain floats. Exactly 0.5 is None, as on the subnet.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import matthews_corrcoef


CUT = 0.5
ECE_BINS = 15
METRICS = ("mcc", "accuracy", "fnr", "auc", "ece", "mcc_balanced", "prevalence")
_CHUNK_VALUES = 1_000_000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """One metric of a first model minus that of a second: on all rows, its interval and its bootstrap deviation."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Feasibility:
    """Whether an accuracy and a false-negative rate can hold together; `mcc` and its `prevalence` are None if not."""

    possible: bool
    mcc: float | None
    prevalence: float | None
    reason: str


def mcc(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Compute Matthews' correlation of 0/1 decisions; 0 when a row or column of the confusion matrix is empty.

    Args:
        labels: `(N,)` true classes, 0 or 1.
        predictions: `(N,)` decided classes, 0 or 1.

    Raises:
        ValueError: If lengths differ, there is no row, or a value is neither 0 nor 1.
    """
    labels = _check_classes("labels", labels)
    predictions = _check_classes("predictions", predictions)
    return float(matthews_corrcoef(labels, predictions))


def binary_metrics(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float | None]:
    """Compute every metric of `METRICS` at the cut 0.5.

    `fnr` is the share of roadwork rows decided as None. `ece` is the expected calibration error of the probability of
    roadwork over 15 adaptive bins (equal numbers of rows; equal probabilities stay in one bin). `mcc_balanced` is the
    MCC the same true-positive and true-negative rates would give with as many roadwork rows as others.

    Args:
        labels: `(N,)` true classes, 0 or 1.
        probabilities: `(N,)` probabilities of roadwork in [0, 1].

    Returns:
        The value by metric name. None where a metric is undefined: `auc` and `mcc_balanced` with one class only,
        `fnr` without a roadwork row.

    Raises:
        ValueError: If lengths differ, there is no row, or a value is out of range; the row is named.
    """
    labels, probabilities = _check_rows(labels, probabilities, "probabilities")
    values = _metrics_of_weights(labels, probabilities, np.ones((1, len(labels))))
    return {name: _or_none(values[name][0]) for name in METRICS}


def metrics_with_intervals(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: ArrayLike | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, float | None]]:
    """Compute every metric with a percentile bootstrap interval; rows of one group are drawn together.

    The interval of `ece` sits high: resampled rows look less calibrated than the rows themselves.

    Args:
        labels: `(N,)` true classes, 0 or 1.
        probabilities: `(N,)` probabilities of roadwork in [0, 1].
        groups: `(N,)` group of each row (video, place, near-duplicates); None makes every row its own group.
        num_samples: Number of bootstrap samples.
        seed: Seed of the draws.
        level: Share of the samples inside the interval.

    Returns:
        `{metric: {"value", "low", "high"}}`. A value is None where `binary_metrics` gives None; `low` and `high` are
        None too with a single group, which cannot be resampled.

    Raises:
        ValueError: If an argument is out of range or lengths differ; the row is named.
    """
    labels, probabilities = _check_rows(labels, probabilities, "probabilities")
    _check_bootstrap(num_samples, level)
    codes = group_codes(groups, len(labels))
    values = binary_metrics(labels, probabilities)
    samples = _bootstrap(labels, probabilities, codes, num_samples, seed)
    bounds = {name: _interval(samples[name], level) if codes.max() > 0 else (None, None) for name in METRICS}
    return {name: {"value": values[name], "low": bounds[name][0], "high": bounds[name][1]} for name in METRICS}


def paired_difference(
    labels: ArrayLike,
    probabilities_a: ArrayLike,
    probabilities_b: ArrayLike,
    groups: ArrayLike | None = None,
    metric: str = "mcc",
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Compare two models on the same rows: metric of `a` minus metric of `b`, with a paired grouped bootstrap.

    Args:
        labels: `(N,)` true classes, 0 or 1.
        probabilities_a: `(N,)` probabilities of roadwork of the first model.
        probabilities_b: `(N,)` those of the second.
        groups: `(N,)` group of each row; None makes every row its own group.
        metric: One of `METRICS`.
        num_samples: Number of bootstrap samples.
        seed: Seed of the draws, shared by both models.
        level: Share of the samples inside the interval.

    Raises:
        ValueError: If the metric is unknown or undefined on these rows, or there is only one group.
    """
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is unknown; choose one of {', '.join(METRICS)}")
    labels, first = _check_rows(labels, probabilities_a, "probabilities_a")
    _, second = _check_rows(labels, probabilities_b, "probabilities_b")
    _check_bootstrap(num_samples, level)
    codes = group_codes(groups, len(labels))
    if codes.max() == 0:
        raise ValueError("groups holds one group only; a paired interval needs at least two groups to resample")
    values = [binary_metrics(labels, probabilities)[metric] for probabilities in (first, second)]
    if values[0] is None or values[1] is None:
        raise ValueError(f"metric={metric!r} is undefined on these {len(labels)} rows; it needs both classes")
    samples = [_bootstrap(labels, p, codes, num_samples, seed)[metric] for p in (first, second)]
    differences = samples[0] - samples[1]
    low, high = _interval(differences, level)
    return PairedDifference(values[0] - values[1], low, high, float(np.nanstd(differences, ddof=1)))


def metric_feasible(accuracy: float, fnr: float, prevalence: float | None = None) -> Feasibility:
    """Say whether an accuracy and a false-negative rate can hold together, and which MCC they allow.

    Together with the prevalence they fix the confusion matrix, hence the MCC. Without a prevalence the largest MCC over
    all prevalences is given: a target above it is impossible whatever the data.

    Args:
        accuracy: Share of right decisions, in [0, 1].
        fnr: Share of positives that are missed, in [0, 1].
        prevalence: Share of positives, in (0, 1); None searches all of them.

    Raises:
        ValueError: If an argument is outside its range.
    """
    for name, value in (("accuracy", accuracy), ("fnr", fnr)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value!r} is not in [0, 1]")
    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise ValueError(f"prevalence={prevalence!r} is not in (0, 1); give None to search all prevalences")
    grid = np.linspace(0.0, 1.0, 200_001)[1:-1] if prevalence is None else np.array([prevalence])
    missed = fnr * grid
    false_alarms = 1.0 - accuracy - missed
    possible = (false_alarms >= -1e-12) & (false_alarms <= 1.0 - grid + 1e-12)
    where = f"accuracy {accuracy:g} with a false-negative rate of {fnr:g} at {prevalence or 'any'} prevalence"
    if not possible.any():
        return Feasibility(False, None, None, f"{where} is impossible: no confusion matrix has these values")
    grid, missed, false_alarms = grid[possible], missed[possible], np.clip(false_alarms[possible], 0.0, None)
    values = mcc_of_counts(grid - missed, false_alarms, 1.0 - grid - false_alarms, missed)
    best = int(values.argmax())
    return Feasibility(True, float(values[best]), float(grid[best]), f"{where} allows an MCC of {values[best]:.3f}")


def _metrics_of_weights(labels: NDArray, probabilities: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Compute all metrics for S row weightings at once; `weights (S, N)` -> `{metric: (S,)}`, NaN = undefined."""
    order = np.argsort(probabilities, kind="stable")
    values, starts = np.unique(probabilities[order], return_index=True)
    totals = np.add.reduceat(weights[:, order], starts, axis=1)  # (S, U) rows of each distinct probability
    positives = np.add.reduceat((weights * labels)[:, order], starts, axis=1)
    negatives = totals - positives
    decided = values > CUT
    tp, fp = positives[:, decided].sum(axis=1), negatives[:, decided].sum(axis=1)
    fn, tn = positives[:, ~decided].sum(axis=1), negatives[:, ~decided].sum(axis=1)
    total = tp + fp + fn + tn
    with np.errstate(divide="ignore", invalid="ignore"):
        tpr, tnr = tp / (tp + fn), tn / (tn + fp)
        below = np.cumsum(negatives, axis=1) - negatives
        auc = (positives * (below + 0.5 * negatives)).sum(axis=1) / ((tp + fn) * (tn + fp))
    balanced = mcc_of_counts(tpr, 1.0 - tnr, tnr, 1.0 - tpr)
    return {
        "mcc": mcc_of_counts(tp, fp, tn, fn),
        "accuracy": (tp + tn) / total,
        "fnr": 1.0 - tpr,
        "auc": auc,
        "ece": _calibration_error(values, positives, totals),
        "mcc_balanced": np.where(np.isnan(tpr) | np.isnan(tnr), np.nan, balanced),
        "prevalence": (tp + fn) / total,
    }


def mcc_of_counts(tp: FloatArray, fp: FloatArray, tn: FloatArray, fn: FloatArray) -> FloatArray:
    """Compute MCC from counts or shares; 0 where a margin is empty."""
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    defined = product > 0
    return np.where(defined, (tp * tn - fp * fn) / np.sqrt(np.where(defined, product, 1.0)), 0.0)


def _calibration_error(values: FloatArray, positives: FloatArray, totals: FloatArray) -> FloatArray:
    """Compute the adaptive-bin calibration error of S weightings over U distinct probabilities; `(S, U)` -> `(S,)`."""
    num_samples = len(totals)
    size = totals.sum(axis=1, keepdims=True)
    before = np.cumsum(totals, axis=1) - totals
    bins = np.minimum((ECE_BINS * before / size).astype(np.int64), ECE_BINS - 1)
    flat = (bins + ECE_BINS * np.arange(num_samples)[:, None]).ravel()
    gaps = np.bincount(flat, weights=(totals * values - positives).ravel(), minlength=num_samples * ECE_BINS)
    return np.abs(gaps.reshape(num_samples, ECE_BINS)).sum(axis=1) / size[:, 0]


def _bootstrap(
    labels: NDArray, probabilities: FloatArray, codes: NDArray, num_samples: int, seed: int
) -> dict[str, FloatArray]:
    draws = draw_weights(codes, num_samples, seed)
    parts = [_metrics_of_weights(labels, probabilities, weights) for weights in draws]
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def draw_weights(codes: NDArray, num_samples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each row is drawn, `(S, N)` at a time; the draws depend on the seed and the groups only."""
    generator = np.random.default_rng(seed)
    num_groups = int(codes.max()) + 1
    chunk = max(1, _CHUNK_VALUES // len(codes))
    for start in range(0, num_samples, chunk):
        size = min(chunk, num_samples - start)
        drawn = generator.integers(0, num_groups, size=(size, num_groups)) + num_groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield counts[:, codes].astype(np.float64)


def _interval(samples: FloatArray, level: float) -> tuple[float | None, float | None]:
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return None, None
    return tuple(np.quantile(samples, [(1.0 - level) / 2.0, (1.0 + level) / 2.0]).tolist())


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _check_rows(labels: ArrayLike, probabilities: ArrayLike, name: str) -> tuple[NDArray, FloatArray]:
    labels = _check_classes("labels", labels)
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != labels.shape:
        raise ValueError(f"{name} has shape {values.shape}, labels {labels.shape}; both need one value a row")
    bad = np.flatnonzero(~((values >= 0.0) & (values <= 1.0)))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}]={values[bad[0]]} is not in [0, 1] ({len(bad)} such rows)")
    return labels, values


def _check_classes(name: str, values: ArrayLike) -> NDArray:
    values = np.asarray(values)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name} has shape {values.shape}; give one value a row and at least one row")
    bad = np.flatnonzero(~np.isin(values, (0, 1)))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}]={values[bad[0]]} is neither 0 nor 1 ({len(bad)} such rows)")
    return values.astype(np.int64)


def _check_bootstrap(num_samples: int, level: float) -> None:
    if num_samples < 2 or not 0.0 < level < 1.0:
        raise ValueError(f"num_samples={num_samples!r}, level={level!r}; give 2 samples or more, a level in (0, 1)")


def group_codes(groups: ArrayLike | None, num_rows: int) -> NDArray:
    """Number the groups 0, 1, ... in order of their sorted names; `(N,)`."""
    if groups is None:
        return np.arange(num_rows)
    groups = np.asarray(groups)
    if groups.shape != (num_rows,):
        raise ValueError(f"groups has shape {groups.shape}; it needs one group for each of the {num_rows} rows")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)

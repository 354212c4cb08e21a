"""How a member does on each slice of the rows, and which slices it does worse on than chance explains.

In come labels, decisions, groups and the rows of each slice; out go scores with grouped intervals and one test a slice,
adjusted for the number of slices tested. `error_report.py` shows them, `suggestions.py` derives hypotheses from them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from natix_roadwork.inference.permutation import permutation_p_values


MIN_ROWS = 20
MIN_GROUPS = 5
NUM_SAMPLES = 1000
LEVEL = 0.95
CELLS = ("tp", "fp", "tn", "fn")
# An interval of a figure that is undefined in more than half of the bootstrap samples would speak of the other half.
MIN_DEFINED = 0.5

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """A named subset of the rows: which dimension it belongs to, its value, and `(N,)` whether a row is in it."""

    dimension: str
    value: str
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A figure with its grouped bootstrap interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SliceScore:
    """What is known of one slice.

    Attributes:
        dimension: What the rows are divided by, such as `weather`.
        value: Which part of them this is, such as `rainy`.
        num_rows: Rows in it.
        num_positives: Roadwork rows in it.
        num_groups: Groups with a row in it.
        mcc: Undefined where the slice has one label or one decision only.
        accuracy: Share of right decisions.
        fnr: Share of the roadwork rows that are missed.
        fpr: Share of the other rows that are called roadwork.
        excess: Error rate minus that of all other rows, compared label by label; see `score_slices`.
        p_value: Of the test that `excess` is 0; None where it was not tested.
        adjusted_p: The same for all slices tested together.
        too_few: Whether the slice has fewer than `MIN_ROWS` rows or `MIN_GROUPS` groups; then nothing else is given.
    """

    dimension: str
    value: str
    num_rows: int
    num_positives: int
    num_groups: int
    mcc: Estimate
    accuracy: Estimate
    fnr: Estimate
    fpr: Estimate
    excess: Estimate
    p_value: float | None = None
    adjusted_p: float | None = None
    too_few: bool = False


def score_slices(
    labels: NDArray[np.int64],
    decisions: NDArray[np.bool_],
    groups: NDArray[np.str_],
    slices: Sequence[Slice],
    seed: int = 0,
) -> list[SliceScore]:
    """Score each slice and test whether it holds more or fewer errors than the other rows.

    A slice with more roadwork rows has another error rate already where misses and false alarms differ. So error rates
    are compared label by label and averaged with the weights of
    [Mantel and Haenszel](https://doi.org/10.1093/jnci/22.4.719): `n_s n_r / n` for n_s rows of a label in the slice and
    n_r in the rest. Whole groups are resampled for the intervals and permuted for the test.

    Args:
        labels: `(N,)` 0 or 1.
        decisions: `(N,)` whether roadwork was decided.
        groups: `(N,)` group of each row.
        slices: Slices of these N rows.
        seed: Seed of samples and permutations.

    Returns:
        One score a slice, in order; `adjusted_p` is still None (`adjusted`).
    """
    codes = np.unique(groups, return_inverse=True)[1]
    cells = _cells(labels, decisions)
    counted = [_counts(codes, cells, slice_.mask) for slice_ in slices]
    samples = _sampled_counts(codes, cells, slices, seed)
    tested = [not few and bool((~slice_.mask).any()) for (_, _, few), slice_ in zip(counted, slices, strict=True)]
    masks = [slice_.mask for slice_, test in zip(slices, tested, strict=True) if test]
    found = iter(permutation_p_values(_residuals(cells), codes, masks, seed=seed))
    scores = []
    for number, (slice_, (counts, num_groups, few), test) in enumerate(zip(slices, counted, tested, strict=True)):
        figures = _figures(counts[None], cells.sum(axis=0)[None])
        drawn = _figures(samples[:, number], samples[:, -1])
        estimates = {
            name: Estimate(None, None, None) if few else estimate_of(figures[name][0], drawn[name]) for name in figures
        }
        p_value = next(found) if test else None
        if estimates["excess"].value is None:  # the slice is one label and the rest the other: nothing to compare
            p_value = None
        tp, _, _, fn = counts.astype(int).tolist()
        scores.append(
            SliceScore(
                dimension=slice_.dimension,
                value=slice_.value,
                num_rows=int(counts.sum()),
                num_positives=tp + fn,
                num_groups=num_groups,
                p_value=p_value,
                too_few=few,
                **estimates,
            )
        )
    return scores


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number by Benjamini and Hochberg; None stays None and is not counted.

    Calling everything at or below .05 then lets through, on average, one false alarm in twenty at most.
    """
    known = [p for p in p_values if p is not None]
    values = iter(false_discovery_control(known).tolist() if known else [])
    return [None if p is None else next(values) for p in p_values]


def with_adjusted(scores: Sequence[SliceScore], values: Sequence[float | None]) -> list[SliceScore]:
    """Return the scores with their adjusted p-values, one for each in order."""
    return [dataclasses.replace(score, adjusted_p=value) for score, value in zip(scores, values, strict=True)]


def _cells(labels: NDArray[np.int64], decisions: NDArray[np.bool_]) -> FloatArray:
    """Mark the cell of the confusion matrix of each row, `(N, 4)` in the order of `CELLS`."""
    positive, decided = labels == 1, np.asarray(decisions, dtype=bool)
    return np.stack([positive & decided, ~positive & decided, ~positive & ~decided, positive & ~decided], 1).astype(
        np.float64
    )


def _counts(codes: NDArray[np.int64], cells: FloatArray, mask: NDArray[np.bool_]) -> tuple[FloatArray, int, bool]:
    num_groups = len(np.unique(codes[mask]))
    return cells[mask].sum(axis=0), num_groups, bool(mask.sum() < MIN_ROWS or num_groups < MIN_GROUPS)


def _sampled_counts(
    codes: NDArray[np.int64], cells: FloatArray, slices: Sequence[Slice], seed: int
) -> NDArray[np.float64]:
    """Count the cells of each slice, and last of all rows, in each bootstrap sample of the groups; `(S, K + 1, 4)`."""
    masks = [*(slice_.mask for slice_ in slices), np.ones(len(codes), dtype=bool)]
    num_groups = int(codes.max()) + 1
    by_group = np.concatenate([group_sums(codes[mask], cells[mask], num_groups) for mask in masks], axis=1)
    return group_samples(by_group, seed).reshape(NUM_SAMPLES, len(masks), len(CELLS))


def group_sums(codes: NDArray[np.int64], values: FloatArray, num_groups: int) -> FloatArray:
    """Add up the values `(N, F)` of the rows of each group; `(G, F)`."""
    sums = np.zeros((num_groups, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums


def group_samples(by_group: FloatArray, seed: int) -> FloatArray:
    """Draw G of G groups with replacement, `NUM_SAMPLES` times, and add up their values `(G, F)`; `(S, F)`."""
    num_groups = len(by_group)
    generator = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // num_groups)
    parts = []
    for start in range(0, NUM_SAMPLES, chunk):
        size = min(chunk, NUM_SAMPLES - start)
        parts.append(generator.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=size) @ by_group)
    return np.concatenate(parts)


def _figures(counts: FloatArray, totals: FloatArray) -> dict[str, FloatArray]:
    """Compute the figures of a slice from its counts `(S, 4)` and those of all rows `(S, 4)`; NaN = undefined."""
    tp, fp, tn, fn = counts.T
    with np.errstate(divide="ignore", invalid="ignore"):
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return {
            "mcc": np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(product), np.nan),
            "accuracy": (tp + tn) / counts.sum(axis=1),
            "fnr": fn / (tp + fn),
            "fpr": fp / (tn + fp),
            "excess": _excess(counts, totals),
        }


def _excess(counts: FloatArray, totals: FloatArray) -> FloatArray:
    """Compute the Mantel-Haenszel difference of error rates between a slice and the rest."""
    difference, weight = np.zeros(len(counts)), np.zeros(len(counts))
    for wrong, right in ((3, 0), (1, 2)):  # of roadwork rows, of the others
        rows, rows_of_all = counts[:, wrong] + counts[:, right], totals[:, wrong] + totals[:, right]
        rest = rows_of_all - rows
        share = np.where((rows > 0) & (rest > 0), rows * rest / rows_of_all, 0.0)
        slice_rate, rest_rate = counts[:, wrong] / rows, (totals[:, wrong] - counts[:, wrong]) / rest
        difference += np.where(share > 0, share * (slice_rate - rest_rate), 0.0)
        weight += share
    return np.where(weight > 0, difference / weight, np.nan)


def _residuals(cells: FloatArray) -> FloatArray:
    """Subtract from each row's error (0 or 1) the share of errors among all rows of its label; `(N,)`."""
    tp, fp, _, fn = cells.T
    wrong, positive = fp + fn, tp + fn
    expected = np.zeros(len(cells))
    for label in (0, 1):
        if (positive == label).any():
            expected[positive == label] = wrong[positive == label].mean()
    return wrong - expected


def estimate_of(value: float, samples: FloatArray) -> Estimate:
    """Put a percentile interval of bootstrap samples `(S,)` beside a value; NaN = undefined."""
    if np.isnan(value):
        return Estimate(None, None, None)
    known = samples[~np.isnan(samples)]
    if len(known) < MIN_DEFINED * len(samples):
        return Estimate(float(value), None, None)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))

"""A test whether a slice differs from the rest that keeps groups whole.

In come one number a row, groups and slices; out goes one p-value a slice, not yet adjusted for their number.
`slice_scores.py` calls it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


NUM_PERMUTATIONS = 4999
_CHUNK_VALUES = 2_000_000

FloatArray = NDArray[np.float64]


def permutation_p_values(
    values: FloatArray,
    codes: NDArray[np.int64],
    masks: Sequence[NDArray[np.bool_]],
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> list[float]:
    """Test for each slice whether its mean differs from the mean of the rest, by permuting which groups are in it.

    The statistic is the difference divided by its standard error over groups, so that the test holds its level also where
    groups of the slice are larger or noisier than others
    ([Chung and Romano, 2013](https://doi.org/10.1214/13-AOS1090)). A group with rows on both sides counts as two, which
    makes the test of that slice careful rather than bold.

    Args:
        values: `(N,)` what is compared.
        codes: `(N,)` number of each row's group.
        masks: K masks `(N,)` of rows in a slice; neither none nor all.
        num_permutations: Random permutations; the smallest p-value is 1 / (this + 1).
        seed: Seed of the permutations.

    Returns:
        K two-sided p-values.
    """
    sums = [_unit_sums(values, codes, mask) for mask in masks]
    result = [1.0] * len(masks)
    for size in sorted({len(units) for units, _ in sums}):
        chosen = [number for number, (units, _) in enumerate(sums) if len(units) == size]
        exceeded = np.zeros(len(chosen), dtype=np.int64)
        observed = [
            _statistic(units[:count].sum(axis=0)[None], units)[0] for units, count in map(sums.__getitem__, chosen)
        ]
        generator = np.random.default_rng([seed, size])
        chunk = max(1, _CHUNK_VALUES // size)
        for start in range(0, num_permutations, chunk):
            rows = min(chunk, num_permutations - start)
            orders = generator.permuted(np.broadcast_to(np.arange(size), (rows, size)), axis=1)
            for place, number in enumerate(chosen):
                units, count = sums[number]
                drawn = _statistic(_permuted_sums(units, orders, count), units)
                # Equal up to rounding counts as exceeded: sums come in another order.
                exceeded[place] += np.count_nonzero(drawn >= observed[place] * (1 - 1e-9))
        for place, number in enumerate(chosen):
            result[number] = float((1 + exceeded[place]) / (num_permutations + 1))
    return result


def _unit_sums(values: FloatArray, codes: NDArray[np.int64], mask: NDArray[np.bool_]) -> tuple[FloatArray, int]:
    """Add up the rows of each unit, a group's part on one side; units of the slice first, and their number.

    Returns `(U, 5)`: sum of values s, rows n, and s s, s n, n n, of which all that is needed is linear.
    """
    _, units = np.unique(2 * codes + ~mask, return_inverse=True)
    sums = np.bincount(units, weights=values)
    rows = np.bincount(units).astype(np.float64)
    outside = np.bincount(units, weights=~mask) > 0
    order = np.argsort(outside, kind="stable")
    table = np.stack([sums, rows, sums * sums, sums * rows, rows * rows], axis=1)[order]
    return table, int((~outside).sum())


def _permuted_sums(units: FloatArray, orders: NDArray[np.int64], count: int) -> FloatArray:
    """Add up the first `count` units of each order; by way of the others where those are fewer."""
    if 2 * count <= len(units):
        return units[orders[:, :count]].sum(axis=1)
    return units.sum(axis=0) - units[orders[:, count:]].sum(axis=1)


def _statistic(inside: FloatArray, units: FloatArray) -> FloatArray:
    """Compute |difference of means| / its standard error over units from sums `(P, 5)`; 0 for no difference."""
    means, variances = [], []
    for part in (inside, units.sum(axis=0) - inside):
        total, rows, square, cross, size = part.T
        mean = total / rows
        means.append(mean)
        variances.append(np.maximum(square - 2 * mean * cross + mean**2 * size, 0.0) / rows**2)
    difference, variance = np.abs(means[0] - means[1]), variances[0] + variances[1]
    # Rounding leaves crumbs where all units are alike.
    scale = 1e-12 * (1.0 + np.abs(units[:, 0]).max())
    with np.errstate(divide="ignore", invalid="ignore"):
        found = difference / np.sqrt(np.where(variance > scale**2, variance, 0.0))
    return np.where(difference > scale, found, 0.0)

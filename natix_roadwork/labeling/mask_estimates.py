"""Shares and ratios over photos with grouped bootstrap intervals: rates, mean IoU, area shares.

In come what is counted and what it is counted out of, photo by photo; out come estimates for `mask_coverage.py` and
`mask_agreement.py`.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.inference.slice_scores import LEVEL, Estimate, estimate_of, group_samples, group_sums
from natix_roadwork.metrics import group_codes


def ratio_estimates(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], groups: NDArray[np.str_], seed: int
) -> list[Estimate]:
    """Divide sums over all photos, and over resamples of whole groups.

    Args:
        numerators: `(N, F)` what a photo adds to each of F figures.
        denominators: `(N, F)` what it is out of; photos with 0 do not speak of that figure.
        groups: `(N,)` group of each photo.
        seed: Seed of the resamples.

    Returns:
        F estimates: None where nothing is counted, without interval where one group holds everything.
    """
    codes = group_codes(groups, len(groups))
    num_groups, figures = int(codes.max()) + 1, numerators.shape[1]
    by_group = group_sums(codes, np.concatenate([numerators, denominators], axis=1), num_groups)
    samples = group_samples(by_group, seed)
    speaking = (by_group[:, figures:] > 0).sum(axis=0)
    estimates = []
    for number in range(figures):
        with np.errstate(divide="ignore", invalid="ignore"):
            value = by_group[:, number].sum() / by_group[:, figures + number].sum()
            drawn = samples[:, number] / samples[:, figures + number]
        found = estimate_of(value, drawn)
        estimates.append(found if speaking[number] > 1 else dataclasses.replace(found, low=None, high=None))
    return estimates


def rate_estimates(
    marked: NDArray[np.bool_], counted: NDArray[np.bool_], groups: NDArray[np.str_], seed: int
) -> list[Estimate]:
    """Compute shares of photos; where all photos agree, the interval is Clopper and Pearson's for as many groups.

    A resample of photos that are all alike is alike too, and its interval would be a point: 0 of 3 negatives is no proof
    of a rate of 0.

    Args:
        marked: `(N, F)` whether a photo shows each of F things.
        counted: `(N, F)` whether it counts at all.
        groups: `(N,)` group of each photo.
        seed: Seed of the resamples.
    """
    estimates = ratio_estimates((marked & counted).astype(float), counted.astype(float), groups, seed)
    for number, found in enumerate(estimates):
        if found.value not in (0.0, 1.0):
            continue
        spread = ((1 - LEVEL) / 2) ** (1 / len(set(groups[counted[:, number]].tolist())))
        estimates[number] = Estimate(0.0, 0.0, 1 - spread) if found.value == 0 else Estimate(1.0, spread, 1.0)
    return estimates

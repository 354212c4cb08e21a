"""What a weighting gives: exact expected shares and distances, and the planned check on them.

In come weights and distances, out go figures and the thresholds they miss. Next: `gps/gate.py` decides by them.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.gps.sampler import GPSWeightedSampler


REPORTED_KM = (50.0, 100.0, 200.0, 500.0)
NUM_BATCHES = 1_000
BATCH_SIZE = 32
ROUNDING = 1e-9  # a share that was solved for may miss itself by so much


@dataclass(frozen=True)
class ShareThresholds:
    """What the draws must reach.

    Attributes:
        within_50_km: Smallest share of draws at most 50 km from a target.
        within_100_km: Smallest share at most 100 km from one.
        mean_km: The mean distance must lie below this many kilometres.
    """

    within_50_km: float
    within_100_km: float
    mean_km: float = float("inf")


PLAN_THRESHOLDS = ShareThresholds(within_50_km=0.50, within_100_km=0.70, mean_km=150.0)
STRETCH_THRESHOLDS = ShareThresholds(within_50_km=0.70, within_100_km=0.85)


@dataclass(frozen=True)
class Shares:
    """Distances of draws to their nearest target; a draw without coordinates counts in `missing_share` alone.

    Attributes:
        within: Share of draws at most so many kilometres from a target, by distance.
        mean_km: Mean distance in kilometres.
        median_km: Median distance in kilometres.
        missing_share: Share of draws without coordinates.
    """

    within: dict[float, float]
    mean_km: float
    median_km: float
    missing_share: float

    def failures(self, thresholds: ShareThresholds) -> list[str]:
        """Name each threshold that is missed, with the figure."""
        found = []
        for km, wanted in ((50.0, thresholds.within_50_km), (100.0, thresholds.within_100_km)):
            if self.within[km] < wanted - ROUNDING:
                found.append(f"{self.within[km]:.1%} of the draws lie within {km:g} km, at least {wanted:.0%} must")
        if not self.mean_km < thresholds.mean_km:
            found.append(f"the mean distance is {self.mean_km:.0f} km, it must be below {thresholds.mean_km:.0f} km")
        return found

    def summary(self) -> str:
        """Describe the figures in one line."""
        shares = ", ".join(f"{share:.1%} <= {km:g} km" for km, share in self.within.items())
        return f"{shares}, mean {self.mean_km:.0f} km, median {self.median_km:.0f} km"

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        within = {f"within_{km:g}_km": share for km, share in self.within.items()}
        return within | {name: value for name, value in asdict(self).items() if name != "within"}


@dataclass(frozen=True)
class ShareCheck:
    """The planned check: exact figures, and the same from seeded draws.

    Attributes:
        expected: Exact figures of the weights.
        drawn: Figures of the draws.
        num_draws: Draws taken.
        effective_share: Effective sample size (sum w)^2 / sum w^2 as a share of the rows.
        seen_share: Expected share of the rows drawn at least once in an epoch of as many draws as rows.
        failures: Thresholds that the exact figures miss.
    """

    expected: Shares
    drawn: Shares
    num_draws: int
    effective_share: float
    seen_share: float
    failures: list[str]

    @property
    def passed(self) -> bool:
        """Whether no threshold is missed."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON-ready values."""
        figures = {name: value for name, value in vars(self).items() if not isinstance(value, Shares)}
        return figures | {"expected": self.expected.as_dict(), "drawn": self.drawn.as_dict(), "passed": self.passed}


def expected_shares(weights: NDArray[np.float64], km: NDArray[np.float64]) -> Shares:
    """Compute the figures exactly from weights `(N,)` and distances `(N,)` in kilometres, NaN = unknown.

    Raises:
        ValueError: If the lengths differ or no row that can be drawn has coordinates.
    """
    if len(weights) != len(km):
        raise ValueError(f"weights and km differ in length: {len(weights)} and {len(km)}")
    known = ~np.isnan(km)
    distances, known_weights = km[known], weights[known]
    total = float(known_weights.sum())
    if not total > 0:
        raise ValueError(f"none of the {len(km)} rows has both coordinates and a positive weight")
    order = np.argsort(distances)
    sums = np.cumsum(known_weights[order])
    return Shares(
        within={edge: float(known_weights[distances <= edge].sum() / total) for edge in REPORTED_KM},
        mean_km=float(distances @ known_weights / total),
        median_km=float(distances[order[np.searchsorted(sums, sums[-1] / 2)]]),
        missing_share=float(1 - total / weights.sum()),
    )


def effective_share(weights: NDArray[np.float64]) -> float:
    """Effective sample size (sum w)^2 / sum w^2 as a share of the N rows."""
    return float(weights.sum() ** 2 / (weights @ weights) / len(weights))


def check_shares(
    weights: NDArray[np.float64],
    km: NDArray[np.float64],
    thresholds: ShareThresholds = PLAN_THRESHOLDS,
    num_batches: int = NUM_BATCHES,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> ShareCheck:
    """Check what the draws reach, exactly and by drawing batches.

    Args:
        weights: `(N,)` sampling weights.
        km: `(N,)` distances in kilometres to the nearest target, NaN = unknown.
        thresholds: What must be reached.
        num_batches: Batches to draw.
        batch_size: Draws a batch.
        seed: Seed of the draws.

    Raises:
        ValueError: If the lengths differ, or nothing that can be drawn has coordinates.
    """
    expected = expected_shares(weights, km)
    num_draws = num_batches * batch_size
    drawn = km[GPSWeightedSampler(weights, num_draws, seed).draws(0, num_draws)]
    probabilities = weights / weights.sum()
    return ShareCheck(
        expected=expected,
        drawn=expected_shares(np.ones(num_draws), drawn),
        num_draws=num_draws,
        effective_share=effective_share(weights),
        seen_share=float(-np.expm1(len(weights) * np.log1p(-np.minimum(probabilities, 1 - 1e-16))).mean()),
        failures=expected.failures(thresholds),
    )

"""Decides how a run draws its train rows: settings and coordinates in, weights or none out, with the reasons.

`training/gps_inputs.py` asks it before training, `gps/report.py` describes what it decided.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.gps.coordinates import check_gps, located
from natix_roadwork.gps.distance import NearestTargets, nearest_targets
from natix_roadwork.gps.settings import GPSArguments
from natix_roadwork.gps.shares import (
    PLAN_THRESHOLDS,
    STRETCH_THRESHOLDS,
    ShareCheck,
    Shares,
    check_shares,
    expected_shares,
)
from natix_roadwork.gps.weights import InfeasibleShareError, solve_by_distance, weigh_by_brackets


# What the plan tries when its check fails: weights of the nearest bracket and beyond the last.
RETRIES = ((7.5, 0.2), (10.0, 0.1))
# Solved weights need not pull the mean below 150 km: a few rows across a continent decide it, see the median instead.
SOLVED_THRESHOLDS = replace(PLAN_THRESHOLDS, mean_km=float("inf"))


@dataclass(frozen=True)
class SamplingPlan:
    """How train rows are drawn.

    Attributes:
        settings: The keys it follows.
        train_gps: `(N, 2)` degrees of the train rows, NaN = missing.
        target_gps: `(M, 2)` degrees of the targets.
        targets: The nearest target of each train row.
        weights: `(N,)` sampling weights; None = every row once an epoch.
        check: The planned check of what is drawn.
        unweighted: Expected figures without weights.
        notes: What was decided, for a reader.
        warnings: What a reader of the scores must know.
        positive_share: Share of label 1 among the draws, None where the labels were not given.
    """

    settings: GPSArguments
    train_gps: NDArray[np.float64]
    target_gps: NDArray[np.float64]
    targets: NearestTargets
    weights: NDArray[np.float64] | None
    check: ShareCheck
    unweighted: Shares
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    positive_share: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what `result.json` keeps, without the rows."""
        settings = self.settings
        return {
            "sampling": settings.gps_sampling if self.weights is not None else "off",
            "asked_for": settings.gps_sampling,
            "target": settings.gps_target,
            "adapts_to_test": settings.gps_target != "dev",
            "train_rows": len(self.train_gps),
            "train_rows_without_gps": int(np.count_nonzero(~located(self.train_gps))),
            "targets": int(np.count_nonzero(located(self.target_gps))),
            "rows_near_an_edge": self.targets.num_near_edge,
            "rows_with_exact_distance": self.targets.num_exact,
            "check": self.check.as_dict(),
            "stretch_failures": self.check.expected.failures(STRETCH_THRESHOLDS),
            "unweighted": self.unweighted.as_dict(),
            "positive_share": self.positive_share,
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Say in a few lines what is expected of the draws, and what a reader must know."""
        check = self.check
        even = "" if self.weights is not None else ", every row once an epoch"
        return [
            f"GPS sampling {self.settings.gps_sampling}, targets {self.settings.gps_target}{even}",
            f"rows: {self.unweighted.summary()}",
            f"draws: {check.expected.summary()}",
            f"effective sample size {check.effective_share:.1%} of {len(self.train_gps)} rows",
            f"planned check: {'; '.join(check.failures) or 'passed'}",
            *self.notes,
            *(f"warning: {text}" for text in self.warnings),
        ]


def plan_sampling(
    train_gps: NDArray[np.float64],
    target_gps: NDArray[np.float64],
    settings: GPSArguments,
    labels: NDArray[np.int64] | None = None,
    seed: int = 0,
    threads: int = 1,
) -> SamplingPlan:
    """Weigh the train rows as the settings say, check what that gives, and refuse or warn where it is too little.

    Args:
        train_gps: `(N, 2)` degrees (latitude, longitude), NaN = missing.
        target_gps: `(M, 2)` degrees, NaN = missing.
        settings: Sampling, gate and thresholds.
        labels: `(N,)` train labels, for the share of positives among the draws.
        seed: Seed of the check's draws.
        threads: Threads of the search for the nearest target.

    Raises:
        ValueError: If coordinates cannot be used, or the gate refuses; the message names shares and thresholds.
    """
    bounds = settings.gps_bounds or None
    train, target = check_gps(train_gps, "train GPS", bounds), check_gps(target_gps, "target GPS", bounds)
    edges = {settings.gps_within_km, *(edge for edge, _ in settings.brackets)}
    targets = nearest_targets(train, target, sorted(edges), threads=threads)
    even = np.ones(len(train))
    weights, warnings = even, []
    if settings.gps_sampling == "brackets":
        weights = weigh_by_brackets(targets.km, settings.brackets, settings.gps_far_weight)
    elif settings.gps_sampling == "solved":
        weights, warnings = _solved(targets.km, settings)
    mild = settings.gps_sampling == "solved" and settings.gps_gate == "warn"
    thresholds = SOLVED_THRESHOLDS if mild else PLAN_THRESHOLDS
    check = check_shares(weights, targets.km, thresholds, seed=seed)
    if settings.gps_sampling != "off" and not check.passed:
        weights, check, warnings = _at_the_gate(weights, check, targets.km, settings, warnings, seed)
    notes = [targets.summary()]
    if bool((weights == weights[0]).all()):
        weights = None
        if settings.gps_sampling != "off" and not warnings:
            notes.append("enough rows are near already: no weights are needed, every row is seen once an epoch")
    drawn = even if weights is None else weights
    return SamplingPlan(
        settings=settings,
        train_gps=train,
        target_gps=target,
        targets=targets,
        weights=weights,
        check=check,
        unweighted=expected_shares(even, targets.km),
        notes=notes,
        warnings=warnings,
        positive_share=None if labels is None else float(drawn @ (labels == 1) / drawn.sum()),
    )


def _solved(km: NDArray[np.float64], settings: GPSArguments) -> tuple[NDArray[np.float64], list[str]]:
    """Solved weights, or none and the reason where the gate only warns."""
    wanted = (settings.gps_within_km, settings.gps_target_share, settings.gps_min_effective_share)
    try:
        return solve_by_distance(km, *wanted), []
    except InfeasibleShareError as error:
        if settings.gps_gate == "refuse":
            raise
        return np.ones(len(km)), [f"GPS sampling is off, {error}"]


def _at_the_gate(
    weights: NDArray[np.float64],
    check: ShareCheck,
    km: NDArray[np.float64],
    settings: GPSArguments,
    warnings: list[str],
    seed: int,
) -> tuple[NDArray[np.float64], ShareCheck, list[str]]:
    """Refuse, or warn with the expected figures and drop bracket weights where no weights can pass."""
    failed = "; ".join(check.failures)
    limit = _limit(km, settings)
    if settings.gps_gate == "refuse":
        tried = _retries(km, settings) if settings.gps_sampling == "brackets" else ""
        raise ValueError(
            f"gps_sampling={settings.gps_sampling} fails the check of {check.num_draws} draws, so nothing is trained: "
            f"{failed}. {tried}{limit or 'Solved weights can reach both shares (--gps_sampling solved).'} "
            "To train all the same: --gps_gate warn, or --gps_sampling off"
        )
    warnings = [*warnings, f"the draws miss the planned check: {failed}; expected: {check.expected.summary()}"]
    if settings.gps_sampling == "brackets" and limit and check.expected.failures(SOLVED_THRESHOLDS):
        even = np.ones(len(km))
        return even, check_shares(even, km, seed=seed), [*warnings, f"GPS sampling is off. {limit}"]
    return weights, check, warnings


def _limit(km: NDArray[np.float64], settings: GPSArguments) -> str:
    """Say what keeps all weights from the check's shares under the effective-sample-size floor; empty if nothing."""
    floor = settings.gps_min_effective_share
    for edge, share in ((50.0, PLAN_THRESHOLDS.within_50_km), (100.0, PLAN_THRESHOLDS.within_100_km)):
        try:
            solve_by_distance(km, edge, share, floor)
        except InfeasibleShareError as error:
            return (
                f"No weights with an effective sample size of {floor:.0%} of the rows can pass: {error.near_share:.1%} of "
                f"the rows lie within {edge:g} km, and at most {error.reachable_share:.1%} of the draws can."
            )
    return ""


def _retries(km: NDArray[np.float64], settings: GPSArguments) -> str:
    """What the plan's stronger weights would give."""
    lines = []
    for near, far in RETRIES:
        stronger = replace(settings, gps_near_weight=near, gps_far_weight=far)
        figures = expected_shares(weigh_by_brackets(km, stronger.brackets, far), km)
        verdict = "would fail too" if figures.failures(PLAN_THRESHOLDS) else "would pass"
        lines.append(f"--gps_near_weight {near:g} --gps_far_weight {far:g} {verdict} ({figures.summary()}).")
    return " ".join(lines) + " "

"""Settings of the ensemble recipe, and its scores as `result.json` and as a table for a reader.

In come the scores of `nested.py` and the fitted `Ensemble`; out go the parts of the run's record, and text.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from natix_roadwork.inference.combining import METHODS
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.member_table import MemberTable
from natix_roadwork.inference.nested import EnsembleScores, Score, idle_members
from natix_roadwork.metrics import PairedDifference
from natix_roadwork.runs import Metrics, interval_text


HELD_OUT = "held_out"
DEFAULT_METHODS = ("mean", "weighted", "greedy_log_loss", "stacking", "mlp")


@dataclass
class EnsembleArguments:
    """What to combine and how to score it.

    Attributes:
        predictions: Prediction files of the members, all of the same rows.
        methods: Ways of combining; the first is saved and asked what each member adds, so choose it before the scores.
        target_prior: Share of roadwork the cut shall be best for; None = as the data, 0.5 = the subnet.

    Raises:
        ValueError: If a method is unknown or named twice, or a number is out of range.
    """

    predictions: list[str] = field(metadata={"help": "Prediction files, one a member."})
    output_dir: str = field(default="runs/ensemble", metadata={"help": "Folder of ensemble.json and result.json."})
    methods: list[str] = field(default_factory=lambda: list(DEFAULT_METHODS), metadata={"help": "The first is saved."})
    num_folds: int = field(default=5, metadata={"help": "Parts that rows are cut into for nested cross-validation."})
    target_prior: float | None = field(
        default=None, metadata={"help": "Share of roadwork in use; null = as the data."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of parts, fits and intervals."})
    num_samples: int = field(default=1000, metadata={"help": "Bootstrap samples of each interval."})

    def __post_init__(self) -> None:
        """Check the values before any file is read."""
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={self.methods}; name one or more of {', '.join(METHODS)}, each once")
        if self.target_prior is not None and not 0.0 < self.target_prior < 1.0:
            raise ValueError(f"target_prior={self.target_prior} is not between 0 and 1; null takes the data's")
        if self.num_folds < 2 or self.num_samples < 2:
            raise ValueError(f"num_folds={self.num_folds}, num_samples={self.num_samples}; both must be at least 2")


def data_of(table: MemberTable) -> dict[str, Any]:
    """Return the facts about the rows for `result.json`; the fingerprint covers ids, labels and logits."""
    digest = hashlib.sha256()
    for array in (table.row_ids, table.labels, table.groups, table.logits, table.folds):
        digest.update("\n".join(map(str, array.ravel().tolist())).encode())
    counts = {HELD_OUT: len(table), "roadwork": int(table.labels.sum()), "groups": len(np.unique(table.groups))}
    names = list(table.names)
    return {
        "name": None,
        "source": "predictions",
        "fingerprint": digest.hexdigest(),
        "counts": counts,
        "members": names,
    }


def metrics_of(scores: EnsembleScores, method: str) -> tuple[Metrics, dict[str, Metrics]]:
    """Return the metrics of the saved method, and those of all else as baselines, for `result.json`."""
    named = _named(scores)
    return {HELD_OUT: named[method].metrics}, {
        name: {HELD_OUT: score.metrics} for name, score in named.items() if name != method
    }


def details_of(scores: EnsembleScores, gains: Mapping[str, PairedDifference], ensemble: Ensemble) -> dict[str, Any]:
    """Return what else was found out, for `result.json`."""
    named = _named(scores)
    return {
        "difference_to_best_member": {name: asdict(s.difference) for name, s in named.items() if s.difference},
        "ties_at_half": {name: score.ties for name, score in named.items()},
        "added_by_member": {name: asdict(gain) for name, gain in gains.items()},
        "idle_members": idle_members(gains),
        "disagreement": scores.disagreement,
        "error_correlation": scores.error_correlation,
        "ensemble": ensemble.as_dict(),
    }


def summary(
    table: MemberTable, scores: EnsembleScores, gains: Mapping[str, PairedDifference], ensemble: Ensemble
) -> str:
    """Describe rows, scores, members and the saved ensemble."""
    width = max(map(len, _named(scores)))
    lines = [
        *table.notes,
        f"{len(table)} rows held out for all of {len(table.names)} members, {table.labels.mean():.0%} roadwork, "
        f"{len(np.unique(table.groups))} groups. Nested cross-validation, 95 % intervals by group.",
        "",
        f"{'':{width}}  MCC                   MCC at 50/50          minus the best member",
        *(f"{name:{width}}  {_line(score)}" for name, score in _named(scores).items()),
        "",
        "Pairs of members, cuts tuned: share decided differently, correlation of errors",
        *(
            f"  {pair}: {share:.1%}, {scores.error_correlation[pair]:.2f}"
            for pair, share in scores.disagreement.items()
        ),
    ]
    if gains:
        lines += [
            "",
            f"What a member adds to {ensemble.method!r} (MCC with it minus without, one standard error; leave out one at a time)",
        ]
        lines += [f"  {name}: {_gain(gain)}" for name, gain in gains.items()]
    return "\n".join([*lines, "", *_ensemble_lines(ensemble, scores)])


def _ensemble_lines(ensemble: Ensemble, scores: EnsembleScores) -> list[str]:
    ties = _named(scores)[ensemble.method].ties
    weights = ensemble.combination.weights
    shares = [] if weights is None else [f"{name} {w:.3f}" for name, w in zip(ensemble.members, weights, strict=True)]
    cut, interval = ensemble.cut, ensemble.cut.interval
    spread = f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    return [
        f"Saved: {ensemble.method!r} fitted on all {ensemble.num_rows} rows, of {' and '.join(ensemble.fitted_on)}"
        + (f"; weights of the margins: {', '.join(shares)}" if shares else ""),
        f"Best cut of its margin {cut.threshold:.3f} (as good: {cut.low:.3f} to {cut.high:.3f}{spread}), moved to "
        f"probability 0.5; {ties} rows lie exactly there and count as None.",
    ]


def _named(scores: EnsembleScores) -> dict[str, Score]:
    """All scores by the name they have in the table."""
    own = {f"{name}, as it is": score for name, score in scores.members.items()}
    tuned = {f"{name}, tuned": score for name, score in scores.tuned_members.items()}
    return own | tuned | scores.methods


def _line(score: Score) -> str:
    mcc, balanced = (interval_text(score.metrics[name], "+") for name in ("mcc", "mcc_balanced"))
    gap = score.difference
    return f"{mcc}  {balanced}  {interval_text(asdict(gap), '+') if gap else '(itself)'}"


def _gain(gain: PairedDifference) -> str:
    less = "" if gain.value > gain.standard_error else " - no more than one standard error: it can go"
    return f"{gain.value:+.4f}, {gain.standard_error:.4f}{less}"

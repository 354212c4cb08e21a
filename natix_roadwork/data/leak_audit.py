"""The leak audit: which metadata gives the label away without a look at the photo.

In come loaded rows; out goes an `AuditResult` that names the fields a model may read and why it may not read others.
`resolve_metadata_fields` turns a recipe's `metadata_fields` into the list that reaches the model.
"""

import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.folds import stratified_group_folds
from natix_roadwork.data.leak_probes import (
    PROBES,
    SHORTCUTS,
    FieldFeatures,
    field_features,
    presence_probabilities,
    value_probabilities,
)
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.model.configuration_roadwork import METADATA_FIELDS


logger = logging.getLogger(__name__)

MAX_PRESENCE_MCC = 0.3
MAX_LOW_MCC = 0.1
NUM_FOLDS = 5
AUTO = "auto"


@dataclass(frozen=True)
class LeakScore:
    """How much of the label one probe reads from one field.

    Attributes:
        field: Name of the field.
        probe: `presence` (the NULL bit alone), or a model of `PROBES` on presence and values.
        mcc: Out-of-fold MCC.
        low: Lower bound of its grouped 95 % bootstrap interval.
        high: Upper bound.
    """

    field: str
    probe: str
    mcc: float
    low: float
    high: float


@dataclass(frozen=True)
class AuditResult:
    """What the audit found.

    Attributes:
        table: One score for each field and probe; fields that no row has are left out.
        present: For each field, the share of rows with a value among None rows and among Roadwork rows.
        flagged: Reason by field, for each field above a limit.
        absent: Fields that no row has.
        num_rows: Rows audited.
        num_groups: Their groups.
    """

    table: list[LeakScore]
    present: dict[str, tuple[float, float]]
    flagged: dict[str, str]
    absent: list[str]
    num_rows: int
    num_groups: int

    @property
    def allowed(self) -> list[str]:
        """Fields a model may read: they have values and stay below the limits."""
        return [name for name in METADATA_FIELDS if name not in self.flagged and name not in self.absent]

    @property
    def refused(self) -> dict[str, str]:
        """Fields a model may not read, with the reason."""
        reasons = self.flagged | dict.fromkeys(self.absent, "no row has a value")
        return {name: reasons[name] for name in METADATA_FIELDS if name in reasons}

    @property
    def shortcuts(self) -> dict[str, str]:
        """Flagged properties that are no input of the model, such as the photo's size: a photo may show them."""
        return {name: reason for name, reason in self.flagged.items() if name in SHORTCUTS}

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values."""
        derived = {"allowed": self.allowed, "refused": self.refused, "shortcuts": self.shortcuts}
        limits = {"max_presence_mcc": MAX_PRESENCE_MCC, "max_low_mcc": MAX_LOW_MCC}
        return asdict(self) | derived | {"limits": limits}

    def summary(self) -> str:
        """Describe the result as a table and a line for each field that is not allowed."""
        probes = ("presence", *PROBES)
        lines = [
            f"leak audit: {self.num_rows} rows in {self.num_groups} groups; MCC [95 % interval] out of fold",
            f"{'field':18}{'None / Roadwork':>17}" + "".join(f"{probe:>24}" for probe in probes),
        ]
        for field, (none, roadwork) in self.present.items():
            scores = {score.probe: score for score in self.table if score.field == field}
            cells = [f"{s.mcc:.2f} [{s.low:.2f}, {s.high:.2f}]" if (s := scores.get(p)) else "-" for p in probes]
            lines.append(f"{field:18}{f'{none:.0%} / {roadwork:.0%}':>17}" + "".join(f"{cell:>24}" for cell in cells))
        lines.append(f"a model may read: {', '.join(self.allowed) or 'no metadata'}")
        lines += [f"refused: {name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines + [f"shortcut: {name}: {reason}" for name, reason in self.shortcuts.items()])


def audited_fields(
    rows: Dataset, *, num_folds: int = NUM_FOLDS, num_samples: int = 1000, seed: int = 0
) -> AuditResult:
    """Measure how much of the label each field gives away, by grouped cross-validation on these rows.

    A field is flagged when its presence bit alone reaches an MCC above 0.3, or when the lower bound of the MCC of
    presence and values, by logistic regression or gradient boosting, lies above 0.1.

    Args:
        rows: Train and dev rows of `load_rows`, never a lockbox.
        num_folds: Folds of the cross-validation; as many as the rarer class has groups if those are fewer.
        num_samples: Bootstrap samples of each interval.
        seed: Seed of folds, boosting and bootstrap.

    Raises:
        ValueError: If there is one class only, or too few groups to cross-validate.
    """
    labels, groups = np.asarray(rows["label"][:]), np.asarray(rows["group"][:], dtype=str)
    return audit_features(
        field_features(rows), labels, groups, num_folds=num_folds, num_samples=num_samples, seed=seed
    )


def audit_features(
    fields: dict[str, FieldFeatures],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    *,
    num_folds: int = NUM_FOLDS,
    num_samples: int = 1000,
    seed: int = 0,
) -> AuditResult:
    """Audit features that are at hand; see `audited_fields`.

    Args:
        fields: Features by field name.
        labels: `(N,)` of 0 and 1.
        groups: `(N,)` group of each row.
        num_folds: Folds of the cross-validation.
        num_samples: Bootstrap samples of each interval.
        seed: Seed of folds, boosting and bootstrap.
    """
    num_folds = min(num_folds, *(len(set(groups[labels == label])) for label in (0, 1)))
    folds = stratified_group_folds(labels, groups, max(2, num_folds), seed)
    table: list[LeakScore] = []

    def add(name: str, probe: str, probabilities: NDArray[np.float64]) -> None:
        found = metrics_with_intervals(labels, probabilities, groups=groups, num_samples=num_samples, seed=seed)["mcc"]
        table.append(LeakScore(name, probe, found["value"], found["low"], found["high"]))

    absent = [name for name, field in fields.items() if not field.present.any()]
    for name, field in fields.items():
        if name in absent:
            continue
        if not field.present.all():
            add(name, "presence", presence_probabilities(field, labels, folds))
        for probe in PROBES:
            add(name, probe, value_probabilities(field, labels, folds, probe, seed))
    reasons = [(score.field, reason) for score in table if (reason := _reason(score))]
    flagged = {name: "; ".join(r for n, r in reasons if n == name) for name, _ in reasons}
    present = {name: tuple(float(field.present[labels == c].mean()) for c in (0, 1)) for name, field in fields.items()}
    return AuditResult(table, present, flagged, absent, len(labels), len(set(groups)))


def _reason(score: LeakScore) -> str:
    if score.probe == "presence":
        if score.mcc > MAX_PRESENCE_MCC:
            return f"whether it is there tells the label with MCC {score.mcc:.2f}, above {MAX_PRESENCE_MCC:g}"
        return ""
    if score.low > MAX_LOW_MCC:
        return (
            f"{score.probe} reads the label from it with MCC {score.mcc:.2f}, 95 % interval from {score.low:.2f}, "
            f"above {MAX_LOW_MCC:g}"
        )
    return ""


@dataclass(frozen=True)
class MetadataChoice:
    """The metadata fields of a run.

    Attributes:
        fields: Names that reach the model.
        record: For `result.json`: what was asked for, allowed, refused, overridden, and the audit's table. Empty when
            no metadata was asked for.
    """

    fields: list[str]
    record: dict[str, Any]


def resolve_metadata_fields(
    asked: str | Sequence[str],
    allow_leaking: Sequence[str],
    rows: Callable[[], Dataset],
    *,
    seed: int = 0,
    num_samples: int = 1000,
) -> MetadataChoice:
    """Decide which metadata fields a run reads.

    `auto` takes the fields that pass the audit, and those of `allow_leaking` that rows have. A list is taken as it is,
    but a field in it that the audit refuses must stand in `allow_leaking` too.

    Args:
        asked: `auto`, or names of `METADATA_FIELDS`; an empty list asks for no metadata and no audit.
        allow_leaking: Fields to take although the audit refuses them.
        rows: Gives the train and dev rows; called only if there is something to audit.
        seed: Seed of the audit.
        num_samples: Bootstrap samples of each interval.

    Raises:
        ValueError: If a name is unknown, or a named field is refused; the reason is given.
    """
    names = [asked] if isinstance(asked, str) else list(asked)
    automatic = names == [AUTO]
    _require_known("metadata_fields", [] if automatic else names)
    _require_known("allow_leaking_fields", allow_leaking)
    if not names:
        return MetadataChoice([], {})
    result = audited_fields(rows(), seed=seed, num_samples=num_samples)
    if automatic:
        names = [n for n in METADATA_FIELDS if n in result.allowed or (n in allow_leaking and n not in result.absent)]
    for name in names:
        if name in result.refused and name not in allow_leaking:
            raise ValueError(
                f"metadata_fields names {name!r}, which the leak audit refuses: {result.refused[name]}; leave it out, "
                f"use metadata_fields: auto, or accept the leak with allow_leaking_fields: [{name}]"
            )
    overridden = {name: result.refused[name] for name in names if name in result.refused}
    if overridden:
        logger.warning("metadata fields that give the label away are used: %s", overridden)
    if not names:
        logger.warning("metadata_fields=auto leaves no metadata: %s", result.refused)
    record = {"asked": AUTO if automatic else names, "fields": names, "overridden": overridden}
    return MetadataChoice(names, record | {"audit": result.as_dict()})


def _require_known(argument: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in METADATA_FIELDS:
            near = difflib.get_close_matches(name, METADATA_FIELDS, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(f"{argument}={list(names)}: {name!r} is none of {', '.join(METADATA_FIELDS)}{hint}")

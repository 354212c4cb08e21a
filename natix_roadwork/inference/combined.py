"""A saved ensemble on other rows: `ensemble.json` and its members' prediction files in, one prediction file out.

`recipes/combine.py` calls `run_combination`. The file is that of a member `ensemble`, so that the error report reads it; its
scores on a split that neither the members nor the ensemble have learned from are final ones.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.fold_intervals import fold_widening, widen_difference, widen_metrics
from natix_roadwork.data.predictions import (
    LEARNED_FROM,
    NOT_OUT_OF_FOLD,
    ORIGINAL,
    Predictions,
    aligned,
    read_predictions,
    write_predictions,
)
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.member import ALL_LEARNED
from natix_roadwork.metrics import metrics_with_intervals, paired_difference
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text


MEMBER = "ensemble"
FILE_NAME = f"{MEMBER}.arrow"
COMPARED = ("mcc", "mcc_balanced")


@dataclass
class CombineArguments:
    """Which ensemble is applied, to which predictions.

    Attributes:
        ensemble: `ensemble.json` of `recipes/ensemble.py`.
        predictions: One prediction file of each of its members, all of the same rows, other ones than it was fitted on.
        output_dir: Folder of `ensemble.arrow` and `result.json`.
    """

    ensemble: str = field(metadata={"help": "ensemble.json of recipes/ensemble.py."})
    predictions: list[str] = field(metadata={"help": "Prediction files, one a member, of the rows to combine."})
    output_dir: str = field(default="runs/combined", metadata={"help": "Folder of ensemble.arrow and result.json."})
    seed: int = field(default=42, metadata={"help": "Seed of the intervals."})
    num_samples: int = field(default=1000, metadata={"help": "Bootstrap samples of each interval."})

    def __post_init__(self) -> None:
        """Check the values before any file is read.

        Raises:
            ValueError: If there are too few samples, or a file of the members would be overwritten.
        """
        if self.num_samples < 2:
            raise ValueError(f"num_samples={self.num_samples} must be at least 2")
        written = (Path(self.output_dir) / FILE_NAME).resolve()
        if written in [Path(path).resolve() for path in self.predictions]:
            raise ValueError(f"output_dir={self.output_dir!r} holds {FILE_NAME} of a member; choose another")


def run_combination(arguments: CombineArguments) -> RunResult:
    """Combine the predictions, write the ensemble's file, and score it beside its members.

    Raises:
        ValueError: If the ensemble cannot be read, or the predictions are not those of its members on the same rows.
    """
    with RunRecorder(asdict(arguments), arguments.seed) as recorder:
        ensemble = Ensemble.load(arguments.ensemble)
        sha256 = hashlib.sha256(Path(arguments.ensemble).read_bytes()).hexdigest()
        members = [read_predictions(path) for path in arguments.predictions]
        combined = combine_members(ensemble, members, sha256)
        Path(arguments.output_dir).mkdir(parents=True, exist_ok=True)
        write_predictions(Path(arguments.output_dir) / FILE_NAME, combined)
        _record(recorder, combined, aligned([combined, *members])[1:], arguments.num_samples)
        recorder.details |= {"method": ensemble.method, "fitted_on": list(ensemble.fitted_on)}
        recorder.write(arguments.output_dir)
        return recorder.result()


def combine_members(ensemble: Ensemble, members: Sequence[Predictions], sha256: str) -> Predictions:
    """Apply an ensemble to its members' predictions.

    No line counts as out-of-fold, since whether the ensemble was fitted on a row cannot be told: a row is held out where
    its split taught no member, no fold of one, and not the ensemble.

    Args:
        ensemble: The ensemble.
        members: One file each, of the same rows, split alike.
        sha256: Hash of the ensemble's file, for the record.

    Returns:
        The predictions of a member `ensemble`: its margin as two half logits, embeddings of width 0.

    Raises:
        ValueError: If the ensemble does not say what it was fitted on, a member is missing or unknown, or rows, splits or
            groups differ; member and row are named.
    """
    if not ensemble.fitted_on:
        raise ValueError("the ensemble does not say which splits it was fitted on; fit it with recipes/ensemble.py")
    half = ensemble.combine(members) / 2
    members = aligned(members)
    first = members[0]
    for other in members[1:]:
        _require_same_rows(first, other)
    taught = {*ensemble.fitted_on}
    for member in members:
        taught |= {*member.record.get(LEARNED_FROM, ALL_LEARNED), *member.splits[member.folds >= 0].tolist()}
    record = {LEARNED_FROM: sorted(taught), "members": list(ensemble.members), "ensemble_sha256": sha256}
    return Predictions(
        member=MEMBER,
        row_ids=first.row_ids,
        labels=first.labels,
        groups=first.groups,
        splits=first.splits,
        logits=np.stack([-half, half], axis=1).astype(np.float32),
        embeddings=np.zeros((len(first), 0), dtype=np.float32),
        folds=np.full(len(first), NOT_OUT_OF_FOLD),
        transforms=np.full(len(first), ORIGINAL),
        record=record | {"data": {"fingerprint": _fingerprint(members)}},
    )


def combination_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a result: MCC of the ensemble and of each member by split, and what the ensemble brings over the member."""
    width = max(map(len, [MEMBER, *result.baselines]))
    lines = []
    for split, count in result.details["rows"].items():
        lines += [
            f"{split}, {count} rows",
            f"{'':{width}}  {'MCC [95 % interval]':24}{'MCC at 50/50':24}ensemble minus it, paired",
            f"{MEMBER:{width}}  {_scores(result.metrics[split])}",
        ]
        for name, metrics in result.baselines.items():
            gap = result.details["difference_to_member"][split][name]["mcc"]
            lines.append(f"{name:{width}}  {_scores(metrics[split])}{interval_text(gap, '+')}")
    lines += [
        f"{result.details['method']!r}, fitted on {' and '.join(result.details['fitted_on'])}",
        f"predictions of the ensemble: {Path(output_dir) / FILE_NAME}",
        f"every figure: {Path(output_dir) / RESULT_NAME}",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _require_same_rows(first: Predictions, other: Predictions) -> None:
    for what, ours, theirs in (("split", first.splits, other.splits), ("group", first.groups, other.groups)):
        differ = np.flatnonzero(ours != theirs)
        if len(differ):
            row = differ[0]
            raise ValueError(
                f"row {str(first.row_ids[row])!r} is of {what} {str(ours[row])!r} in member {first.member!r} and of "
                f"{str(theirs[row])!r} in {other.member!r} ({len(differ)} such rows); predict the same data, split alike, "
                "with both"
            )


def _fingerprint(members: Sequence[Predictions]) -> str | None:
    """Return the fingerprint of the members' data; None where they do not name one, or not the same."""
    found = {member.record.get("data", {}).get("fingerprint") for member in members}
    return found.pop() if len(found) == 1 else None


def _record(recorder: RunRecorder, combined: Predictions, members: Sequence[Predictions], num_samples: int) -> None:
    splits = list(dict.fromkeys(combined.splits.tolist()))
    counts = {split: int((combined.splits == split).sum()) for split in splits}
    recorder.data = {"name": None, "source": "predictions", "counts": counts, **combined.record["data"]}
    recorder.baselines = {member.member: {} for member in members}
    differences: dict[str, Any] = {split: {} for split in splits}
    settings = {"num_samples": num_samples, "seed": recorder.seed}
    for split in splits:
        here = combined.splits == split
        rows, parts = combined.select(here), [member.select(here) for member in members]
        # Values of several folds' models err together, and so does what is made of them.
        widest = max(fold_widening(part.folds) for part in parts)
        scores = metrics_with_intervals(rows.labels, rows.probabilities, rows.groups, **settings)
        recorder.metrics[split] = widen_metrics(scores, widest)
        for part in parts:
            scores = metrics_with_intervals(rows.labels, part.probabilities, rows.groups, **settings)
            recorder.baselines[part.member][split] = widen_metrics(scores, fold_widening(part.folds))
            differences[split][part.member] = _differences(rows, part.probabilities, settings, widest)
    taught = [split for split in splits if split in combined.record[LEARNED_FROM]]
    if taught:
        recorder.warnings.append(
            f"{' and '.join(taught)} counts as learned from: taught a member, chose its epoch or fitted the ensemble, or may "
            "have, being of other data; the metrics there are no final score"
        )
    recorder.details = {
        "member": MEMBER,
        "rows": counts,
        "difference_to_member": differences,
        "record": combined.record,
    }


def _differences(
    rows: Predictions, alone: NDArray[np.float64], settings: Mapping[str, int], widening: float
) -> dict[str, Any]:
    """Ensemble minus one member, paired; without values where the rows have one label or one group only."""
    if min(len(set(rows.labels.tolist())), len(set(rows.groups.tolist()))) < 2:
        return {metric: dict.fromkeys(("value", "low", "high", "standard_error")) for metric in COMPARED}
    pair = rows.labels, rows.probabilities, alone, rows.groups
    found = {metric: paired_difference(*pair, metric=metric, **settings) for metric in COMPARED}
    return {metric: asdict(widen_difference(difference, widening)) for metric, difference in found.items()}


def _scores(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    return "".join(f"{interval_text(metrics[name]):24}" for name in COMPARED)

"""The table of an ablation: what each component brings, with its interval.

In come the rows and their out-of-fold predictions; out go JSON-ready lines for `result.json` and a Markdown table.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.fold_intervals import fold_widening, widen_difference, widen_metrics
from natix_roadwork.data.predictions import Predictions
from natix_roadwork.metrics import PairedDifference, metrics_with_intervals, paired_difference
from natix_roadwork.runs import RunResult, interval_text, read_result
from natix_roadwork.training.ablation_rows import AblationRow


GAINS, WITHIN, LOSES = "gains more than one standard error", "within one standard error", "loses"
NOT_HERE = "not measured here"
BY_LOGITS = "measured by logits"
NORMAL_95 = 1.96
SPLITS = ("out_of_fold", "held_out", "dev", "test")  # of another recipe's metrics, the first that is there
COMMANDS = {
    "adapters": "recipes/finetune_folds.py",
    "ensemble": "recipes/ensemble.py",
    "tta": "recipes/tta.py",
}
# Where another recipe's `details` hold the MCC with its component minus that without.
DIFFERENCES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "adapters": lambda details: details["difference_to_base"]["mcc"],
    "ensemble": lambda details: details["difference_to_best_member"][details["ensemble"]["method"]],
}
Trainings = Sequence[Predictions]


def metrics_of(trainings: Trainings, seed: int = 0) -> dict[str, dict[str, float | None]]:
    """Compute metrics with intervals over all trainings of a row together.

    Args:
        trainings: Predictions of the same photos, one for each seed.
        seed: Seed of the bootstrap.
    """
    labels, groups, probabilities = _pooled(trainings)
    found = metrics_with_intervals(labels, probabilities, groups=groups, seed=seed)
    return widen_metrics(found, fold_widening(trainings[0].folds))


def difference_of(first: Trainings, second: Trainings, seed: int = 0, metric: str = "mcc") -> PairedDifference:
    """Compare two rows: a metric, MCC by default, of the first minus that of the second, over photos and trainings.

    The photos' part of the standard error is that of a paired bootstrap of whole groups, in which a photo's answers of all
    trainings are drawn together. The trainings' part is s / sqrt(S) with the deviation s of the S differences by seed. Their
    squares are added as if they were independent, and the interval grows on both sides as a normal one would. The
    bootstrap holds some of the seeds' noise already, so the sum errs to the wide side. With one training it is the
    photos' part alone, which is widened for the folds (`data/fold_intervals.py`).

    Args:
        first: Predictions of the same photos, one for each seed.
        second: The other row's, in the same order.
        seed: Seed of the bootstrap.
        metric: One of `metrics.METRICS`.
    """
    labels, groups, ours = _pooled(first)
    theirs = _pooled(second)[2]
    found = paired_difference(labels, ours, theirs, groups=groups, metric=metric, seed=seed)
    found = widen_difference(found, fold_widening(first[0].folds))
    if len(first) == 1:
        return found
    by_seed = [
        paired_difference(
            a.labels, a.probabilities, b.probabilities, groups=a.groups, metric=metric, num_samples=2
        ).value
        for a, b in zip(first, second, strict=True)
    ]
    error = float(np.hypot(found.standard_error, np.std(by_seed, ddof=1) / np.sqrt(len(by_seed))))
    wider = NORMAL_95 * (error - found.standard_error)
    return PairedDifference(found.value, found.low - wider, found.high + wider, error)


def _pooled(trainings: Trainings) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.float64]]:
    """Labels, groups and probabilities of all trainings, one after the other."""
    parts = [(found.labels, found.groups, found.probabilities) for found in trainings]
    labels, groups, probabilities = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return labels, groups, probabilities


def verdict_of(difference: PairedDifference | Mapping[str, float]) -> str:
    """Judge what a component brings by its standard error."""
    values = dataclasses.asdict(difference) if isinstance(difference, PairedDifference) else difference
    if values["value"] > values["standard_error"]:
        return GAINS
    return LOSES if values["value"] < -values["standard_error"] else WITHIN


def measured_line(
    row: AblationRow, against: str | None, found: Mapping[str, Trainings], note: str, seed: int = 0
) -> dict[str, Any]:
    """Describe a measured row.

    Args:
        row: The row.
        against: The row it is compared with; None = with none.
        found: Predictions by row name.
        note: What a reader must know.
        seed: Seed of the bootstraps.
    """
    line = _line(row) | {"against": against, "mcc": metrics_of(found[row.name], seed)["mcc"], "note": note}
    if against is None:
        return line
    pair = [row.name, against] if row.has_component else [against, row.name]
    difference = difference_of(*(found[name] for name in pair), seed=seed)
    return line | {
        "difference": dataclasses.asdict(difference),
        "difference_of": pair,
        "verdict": verdict_of(difference),
    }


def unmeasured_line(row: AblationRow, why: str) -> dict[str, Any]:
    """Describe a row that this run cannot measure."""
    return _line(row) | {"verdict": NOT_HERE, "note": why}


def attention_line(row: AblationRow, difference: float, device: str) -> dict[str, Any]:
    """Describe the row that compares logits."""
    text = f"largest difference of a logit: {difference:.2g} on {device}"
    return _line(row) | {"verdict": BY_LOGITS, "note": text, "largest_logit_difference": difference}


def elsewhere_line(row: AblationRow, path: str | None) -> dict[str, Any]:
    """Take a row from the result of the recipe that measures it.

    Its MCC is that of `metrics`. Its difference has `value`, `low` and `high` and stands where `DIFFERENCES` says, else in
    `details["difference"]`; a result need not hold one. Where it has no `standard_error`, that of a normal interval is
    taken.

    Raises:
        ValueError: If the file is no result.
    """
    if row.name == "report":
        return unmeasured_line(row, "a page for people, by recipes/report.py: it decides nothing, so there is no gain")
    if path is None:
        again = f"""--more_results '{{"{row.name}": "<its result.json>"}}'"""
        first = (
            f"run {COMMANDS[row.name]}"
            if row.name in COMMANDS
            else "no recipe measures it yet; train with and without"
        )
        return unmeasured_line(row, f"{first}, then this with {again}")
    result: RunResult = read_result(path)
    split = next((name for name in (*SPLITS, *result.metrics) if name in result.metrics), None)
    line = _line(row) | {"mcc": None if split is None else result.metrics[split].get("mcc"), "note": f"from {path}"}
    try:
        difference = DIFFERENCES.get(row.name, lambda details: details["difference"])(result.details)
    except KeyError:
        difference = None
    if difference is None:
        return line | {"verdict": NOT_HERE, "note": f"from {path}, which holds no difference"}
    error = (difference["high"] - difference["low"]) / (2 * NORMAL_95)
    difference = {"standard_error": error} | difference
    return line | {"difference": difference, "verdict": verdict_of(difference)}


def _line(row: AblationRow) -> dict[str, Any]:
    known = {"name": row.name, "component": row.component, "text": row.text, "against": row.against}
    return known | {"mcc": None, "difference": None, "difference_of": None, "verdict": "", "note": ""}


def markdown_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Write the table; a difference is what the component brings, whichever side the row is on."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "component": lambda line: line["component"],
        "row": lambda line: f"`{line['name']}`",
        "what it is": lambda line: line["text"],
        "MCC [95 %]": lambda line: interval_text(line["mcc"], digits=2) if line["mcc"] else "",
        "against": lambda line: f"`{line['against']}`" if line["against"] else "",
        "the component brings [95 %]": lambda line: (
            interval_text(line["difference"], digits=2) if line["difference"] else ""
        ),
        "standard error": lambda line: f"{line['difference']['standard_error']:.3f}" if line["difference"] else "",
        "verdict": lambda line: "; ".join(text for text in (line["verdict"], line["note"]) if text),
    }
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[write(line).replace("|", "\\|") for write in columns.values()] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"

"""Which predictions a report is about, and the rows that belong to them.

In come all lines of a predictions file and the loaded data set; out go the lines of one report with their rows, and what a
reader must know of the choice. `report_run.py` calls it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.predictions import ORIGINAL, Predictions
from natix_roadwork.inference.calibrating import CALIBRATED_FROM
from natix_roadwork.runs import RESULT_NAME, RunResult
from natix_roadwork.training.pretraining import warnings_about


_NAMED = 3  # row ids in an error message


def report_lines(
    predictions: Predictions, split: str | None = None, lockbox: bool = False
) -> tuple[Predictions, list[str]]:
    """Choose the lines a report is about: of the photos as they are, and where there are any, those held out.

    Args:
        predictions: All lines of a file.
        split: Only this split, held out or not; None = all held-out lines, or without any, all but those of train.
        lockbox: Whether the split `test` is a lockbox, which is left out.

    Returns:
        The lines, and what was left out, in words.

    Raises:
        ValueError: If no line is left.
    """
    names = sorted(set(predictions.splits.tolist()))
    if split is not None and split not in names:
        raise ValueError(f"split={split!r}: the predictions have the splits {names}")
    chosen = predictions.transforms == ORIGINAL
    notes = [f"{np.count_nonzero(~chosen)} lines of photos under a test-time transform"] if not chosen.all() else []
    in_lockbox = chosen & (predictions.splits == "test") & lockbox
    if in_lockbox.any():
        notes.append(f"{in_lockbox.sum()} rows of the lockbox, which is scored once per published model")
    chosen &= ~in_lockbox
    if split is not None:
        wanted = predictions.splits == split
    elif (chosen & predictions.held_out).any():
        wanted = predictions.held_out
    else:
        wanted = predictions.splits != "train" if (chosen & (predictions.splits != "train")).any() else chosen
    others = chosen & ~wanted
    if others.any():
        notes.append(f"{others.sum()} rows of {_listed(predictions.splits[others])} that are not reported on")
    chosen &= wanted
    if not chosen.any():
        raise ValueError(f"no line of the splits {names} is left to report on; left out: {'; '.join(notes)}")
    return predictions.select(chosen), [f"left out: {note}" for note in notes]


def matching_rows(predictions: Predictions, loaded: LoadedRows) -> Dataset:
    """Find the rows of the lines, in the order of the lines.

    Raises:
        ValueError: If a row is missing, or has another label or split; it is named.
    """
    rows = concatenate_datasets(list(loaded.splits.values()))
    place = {row_id: number for number, row_id in enumerate(rows["row_id"][:])}
    missing = [row_id for row_id in predictions.row_ids.tolist() if row_id not in place]
    where = f"{loaded.dataset_name!r}, loaded with the keys given here,"
    if missing:
        raise ValueError(
            f"{where} lacks {len(missing)} of the {len(predictions)} predicted rows, {missing[:_NAMED]} among them; load "
            "the data the predictions were made on, with the same keys"
        )
    found = rows.select([place[row_id] for row_id in predictions.row_ids.tolist()])
    for column, values in (("label", predictions.labels), ("split", predictions.splits)):
        for row_id, ours, theirs in zip(found["row_id"][:], values.tolist(), found[column][:], strict=True):
            if ours != theirs:
                raise ValueError(
                    f"row {row_id!r} has {column} {ours!r} in the predictions and {theirs!r} in {where} as for another "
                    "seed or dev_share; give the keys of the run that made the predictions"
                )
    return found


def run_warnings(predictions: Predictions, result: RunResult | None) -> list[str]:
    """Say what the record of the run and the lines themselves ask a reader to know."""
    found = list(result.warnings) if result else []
    if predictions.record.get("label"):
        found.append(f"{predictions.record['label']}: the member learned from labels of the set it is scored on")
    learned = ~predictions.held_out
    if learned.any():
        found.append(
            f"{learned.sum()} of {len(learned)} rows lie in splits whose labels trained this member or chose its epoch "
            f"({_listed(predictions.splits[learned])}), without being out-of-fold: every figure here is optimistic"
        )
    return found


def training_settings(result: RunResult | None) -> dict[str, Any] | None:
    """Return the settings of the training that a record speaks of; that of a calibrated copy keeps its model's."""
    if result is None:
        return None
    return result.details.get(CALIBRATED_FROM, {}).get(RESULT_NAME) or result.config


def data_warnings(result: RunResult | None, loaded: LoadedRows) -> list[str]:
    """Say what a reader must know of the data: drawn scenes, few rows, a record that speaks of other data."""
    found = warnings_about(loaded) if "dev" in loaded.splits else []
    fingerprint = None if result is None else result.data.get("fingerprint")
    if fingerprint not in (None, loaded.fingerprint):
        found.append("the run's record speaks of other data than these rows; its baselines may not be comparable")
    return found


def _listed(splits: Sequence[str]) -> str:
    return ", ".join(sorted(set(np.asarray(splits).tolist())))

"""What the full teacher says of the rows that a student learns from.

In come prediction files of one or more members and the student's rows; out come logits and an embedding for each row
whose label had no part in them. `distillation_views.py` puts them into the batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from natix_roadwork.data.predictions import LEARNED_FROM, ORIGINAL, Predictions, aligned, read_predictions


Combine = Callable[[Sequence[Predictions]], NDArray[np.float64]]

_NAMED = 3  # row ids in a message
_FEW_ROWS = 2  # below, a column has no deviation


@dataclass(frozen=True)
class TeacherValues:
    """The teacher's values for N rows, in their order.

    Attributes:
        logits: `(N, 2)` float32; 0 where there are none.
        embeddings: `(N, D)` float32, each column standardised over the usable rows; D is 0 where a file has none.
        usable: `(N,)` whether a row has values that it may learn from.
        record: JSON-ready facts for `result.json`.
        warnings: What a reader of the scores must know.
    """

    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    usable: NDArray[np.bool_]
    record: dict[str, Any]
    warnings: list[str]

    @property
    def width(self) -> int:
        """D."""
        return self.embeddings.shape[1]

    def select(self, rows: NDArray[np.int64]) -> "TeacherValues":
        """Return the values of some rows, by number."""
        return TeacherValues(self.logits[rows], self.embeddings[rows], self.usable[rows], self.record, self.warnings)

    def batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return `teacher_logits` `(B, 2)`, `teacher_embeddings` `(B, D)` and `teacher_mask` `(B,)` of some rows."""
        return {
            "teacher_logits": torch.from_numpy(self.logits[rows]),
            "teacher_embeddings": torch.from_numpy(self.embeddings[rows]),
            "teacher_mask": torch.from_numpy(self.usable[rows]),
        }


def read_teacher(files: Sequence[str | Path]) -> list[Predictions]:
    """Read the members of a teacher, their answers for the photos as they are, in one row order.

    Raises:
        ValueError: If there is no file, one cannot be read, or the members speak of different rows.
    """
    if not files:
        raise ValueError(
            "predictions is empty: a student learns from a teacher's answers; write them with recipes/predict.py or "
            "recipes/finetune_folds.py"
        )
    members = [read_predictions(path) for path in files]
    return aligned([member.select(member.transforms == ORIGINAL) for member in members])


def teacher_values(
    members: Sequence[Predictions],
    rows: Dataset,
    dev: Dataset,
    combine: Combine | None = None,
    allow_in_sample: bool = False,
) -> TeacherValues:
    """Match a teacher's answers to the rows a student trains on.

    A row's answer counts if it is out-of-fold, or of a split that taught no member. Others are refused: such a row is
    trained on by its label alone.

    Args:
        members: What `read_teacher` gives.
        rows: Train rows, with `row_id` and `label`.
        dev: The rows the student will be scored on, with `row_id`.
        combine: Makes one margin `(M,)` of the members, as `Ensemble.combine` does; None = the mean of their logits.
        allow_in_sample: Whether answers to rows that the teacher has learned from count too; a warning says so.

    Raises:
        ValueError: If a label differs from the row's, or no train row has an answer that counts; rows are named.
    """
    first = members[0]
    held_out = np.all([member.held_out for member in members], axis=0)
    places = {row_id: place for place, row_id in enumerate(first.row_ids.tolist())}
    row_ids = np.asarray(rows["row_id"][:], dtype=np.str_)
    found = np.array([places.get(row_id, -1) for row_id in row_ids.tolist()], dtype=np.int64)
    present = found >= 0
    _check_labels(first, found, row_ids, np.asarray(rows["label"][:]))
    honest = present & held_out[found]
    usable = present if allow_in_sample else honest
    messages = _messages(row_ids, present, honest, allow_in_sample)
    if not usable.any():
        raise ValueError(
            f"no train row has a teacher value it may learn from ({'; '.join(messages)}); predict them out of fold, or with "
            "a teacher that has not learned from them, or accept it with --allow_in_sample_teacher true"
        )
    logits = np.zeros((len(rows), 2), dtype=np.float32)
    logits[usable] = _logits(members, combine)[found[usable]]
    embeddings = np.zeros((len(rows), sum(member.embeddings.shape[1] for member in members)), dtype=np.float32)
    embeddings[usable] = _standardised(np.concatenate([m.embeddings for m in members], axis=1)[found[usable]])
    record = {
        "members": [member.member for member in members],
        "combined_by": "mean of the logits" if combine is None else "ensemble",
        "train_rows": len(rows),
        "usable_rows": int(usable.sum()),
        "refused_rows": int((present & ~usable).sum()),
        "in_sample_rows": int((usable & ~honest).sum()),
        "missing_rows": int((~present).sum()),
        "embedding_width": embeddings.shape[1],
    }
    return TeacherValues(logits, embeddings, usable, record, messages + _warnings_of_dev(members, dev))


def teacher_on(members: Sequence[Predictions], rows: Dataset, combine: Combine | None = None) -> Predictions | None:
    """Return the teacher's answers to rows that it has not learned from; None unless it has one for each of them."""
    first = members[0]
    held_out = np.all([member.held_out for member in members], axis=0)
    places = {row_id: place for place, row_id in enumerate(first.row_ids.tolist()) if held_out[place]}
    if not all(row_id in places for row_id in rows["row_id"][:]):
        return None
    logits = _logits(members, combine).astype(np.float32)
    chosen = first.select(np.array([places[row_id] for row_id in rows["row_id"][:]]))
    kept = logits[[places[row_id] for row_id in rows["row_id"][:]]]
    fields = {name: getattr(chosen, name) for name in ("row_ids", "labels", "groups", "splits", "embeddings", "folds")}
    return Predictions(member="teacher", logits=kept, transforms=chosen.transforms, record={}, **fields)


def _logits(members: Sequence[Predictions], combine: Combine | None) -> NDArray[np.float64]:
    if combine is None:
        return np.mean([member.logits.astype(np.float64) for member in members], axis=0)
    margins = combine(members)
    return np.stack([-0.5 * margins, 0.5 * margins], axis=1)


def _standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take the common part out of embeddings `(N, D)`: without it all cosines are near 1 and say little."""
    if len(values) < _FEW_ROWS:
        return values
    spread = values.std(axis=0)
    return ((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def _check_labels(
    teacher: Predictions, found: NDArray[np.int64], row_ids: NDArray[np.str_], labels: NDArray[np.int64]
) -> None:
    differ = np.flatnonzero((found >= 0) & (teacher.labels[found] != labels))
    if len(differ):
        row = differ[0]
        raise ValueError(
            f"row {str(row_ids[row])!r} has label {labels[row]} here and {teacher.labels[found[row]]} in the predictions of "
            f"{teacher.member!r} ({len(differ)} such rows); predict the same data"
        )


def _messages(
    row_ids: NDArray[np.str_], present: NDArray[np.bool_], honest: NDArray[np.bool_], allow_in_sample: bool
) -> list[str]:
    """Count and name the rows without an honest answer."""
    messages = []
    learned = np.flatnonzero(present & ~honest)
    if len(learned):
        fate = (
            "they are used because of allow_in_sample_teacher: such answers are surer than on new photos"
            if allow_in_sample
            else "refused, they are trained on by their label alone"
        )
        messages.append(
            f"the teacher has learned from {len(learned)} of {len(row_ids)} train rows, "
            f"{row_ids[learned[:_NAMED]].tolist()} among them; {fate}"
        )
    missing = np.flatnonzero(~present)
    if len(missing):
        messages.append(
            f"{len(missing)} of {len(row_ids)} train rows have no prediction, {row_ids[missing[:_NAMED]].tolist()} among "
            "them; they are trained on by their label alone"
        )
    return messages


def _warnings_of_dev(members: Sequence[Predictions], dev: Dataset) -> list[str]:
    """Say so where a teacher has met labels of the rows that its student is scored on."""
    ids = set(dev["row_id"][:])
    warnings = []
    for member in members:
        learned = [row_id for row_id in member.row_ids[~member.held_out].tolist() if row_id in ids]
        in_folds = [row_id for row_id in member.row_ids[member.folds >= 0].tolist() if row_id in ids]
        if learned:
            told = f"{len(learned)} dev rows, {learned[:_NAMED]} among them"
        elif in_folds:
            told = f"{len(in_folds)} dev rows in the folds of its train rows, {in_folds[:_NAMED]} among them"
        elif "dev" in member.record.get(LEARNED_FROM, ["train", "dev"]) and (member.splits == "train").any():
            told = "a dev split, as its file says"
        else:
            continue
        warnings.append(
            f"the teacher {member.member!r} has met the labels of {told}: what it teaches may carry them to the student, "
            "whose scores there are then optimistic"
        )
    return warnings

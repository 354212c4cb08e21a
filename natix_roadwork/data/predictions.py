"""Predictions of a member: one Arrow file of a row id, logits and an embedding a line.

Predicting and fold fine-tuning write them; the ensemble, calibration, test-time augmentation and the error report read
them. Columns: `row_id`, `label`, `group`, `logits` (2), `embedding` (H), `fold` (-1 = not out-of-fold), `split`, `member`,
`transform` (0 = the photo as it is). The file's own JSON record says which rows the member has learned from.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from natix_roadwork.data.feature_shards import write_whole


NOT_OUT_OF_FOLD = -1
ORIGINAL = 0
LEARNED_FROM = "learned_from"
BASE_LEARNED_FROM = "base_learned_from"
_RECORD_KEY = b"natix_roadwork"
_COLUMNS = ("row_id", "label", "group", "logits", "embedding", "fold", "split", "member", "transform")
_ARRAYS = ("row_ids", "labels", "groups", "splits", "logits", "embeddings", "folds", "transforms")
_NAMED = 3  # row ids in an error message


@dataclass(frozen=True)
class Predictions:
    """What one member says of N photos; with test-time augmentation, one line for each photo and transform.

    Attributes:
        member: Name of the member.
        row_ids: `(N,)` row ids.
        labels: `(N,)` 0 None, 1 Roadwork.
        groups: `(N,)` group names.
        splits: `(N,)` split names.
        logits: `(N, 2)` float32.
        embeddings: `(N, H)` float32 fused features; H may be 0.
        folds: `(N,)` the fold whose model, never trained on the row, said this; -1 = not out-of-fold.
        transforms: `(N,)` number of the test-time transform, 0 = the photo as it is.
        record: JSON-ready facts. `learned_from` lists the splits whose labels trained the member or chose its epoch;
            `base_learned_from` those that taught what all models of the folds started from.

    Raises:
        ValueError: Shapes differ, a label is neither 0 nor 1, a logit is not finite, or a photo occurs twice with one
            transform; the row is named.
    """

    member: str
    row_ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    splits: NDArray[np.str_]
    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    folds: NDArray[np.int64]
    transforms: NDArray[np.int64]
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes and values."""
        rows = len(self.row_ids)
        shapes = {name: getattr(self, name).shape for name in ("labels", "groups", "splits", "folds", "transforms")}
        wrong = {name: shape for name, shape in shapes.items() if shape != (rows,)}
        if (
            wrong
            or self.logits.shape != (rows, 2)
            or self.embeddings.shape[:1] != (rows,)
            or self.embeddings.ndim != 2
        ):
            raise ValueError(
                f"member {self.member!r}: {rows} row ids, but logits {self.logits.shape}, embeddings "
                f"{self.embeddings.shape}, {wrong or 'the rest fits'}"
            )
        bad = np.flatnonzero(~np.isfinite(self.logits).all(axis=1) | ~np.isin(self.labels, (0, 1)))
        if len(bad):
            row = bad[0]
            raise ValueError(
                f"member {self.member!r}: row {str(self.row_ids[row])!r} has logits {self.logits[row].tolist()} and label "
                f"{self.labels[row]}; logits must be finite, labels 0 or 1 ({len(bad)} such rows)"
            )
        keys = np.char.add(np.char.add(self.row_ids.astype(str), "\n"), self.transforms.astype(str))
        names, counts = np.unique(keys, return_counts=True)
        if (counts > 1).any():
            row_id, transform = str(names[counts > 1][0]).split("\n")
            raise ValueError(
                f"member {self.member!r}: row {row_id!r} occurs {counts.max()} times with transform {transform}; "
                f"{int((counts > 1).sum())} such rows"
            )

    def __len__(self) -> int:
        """Number of lines."""
        return len(self.row_ids)

    @property
    def margins(self) -> NDArray[np.float64]:
        """`(N,)` logit of Roadwork minus logit of None."""
        return np.diff(self.logits.astype(np.float64), axis=1)[:, 0]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """`(N,)` probabilities of Roadwork in [0, 1]."""
        return 0.5 * (1.0 + np.tanh(0.5 * self.margins))

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """`(N,)` whether the row's label had no part in the model that said this: out-of-fold, or of a split unseen."""
        out_of_fold = (self.folds >= 0) & ~np.isin(self.splits, self.record.get(BASE_LEARNED_FROM, []))
        return out_of_fold | ~np.isin(self.splits, self.record.get(LEARNED_FROM, ["train", "dev"]))

    def select(self, rows: ArrayLike) -> "Predictions":
        """Return the lines at `rows`, numbers or a boolean mask."""
        chosen = np.asarray(rows)
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in _ARRAYS})


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write the Arrow file, whole or not at all; the same predictions give the same bytes."""
    width = predictions.embeddings.shape[1]
    columns = {
        "row_id": pa.array(predictions.row_ids.tolist(), pa.string()),
        "label": pa.array(predictions.labels, pa.int8()),
        "group": pa.array(predictions.groups.tolist(), pa.string()),
        "logits": _vectors(predictions.logits, 2),
        "embedding": _vectors(predictions.embeddings, width),
        "fold": pa.array(predictions.folds, pa.int32()),
        "split": pa.array(predictions.splits.tolist(), pa.string()),
        "member": pa.array([predictions.member] * len(predictions), pa.string()),
        "transform": pa.array(predictions.transforms, pa.int32()),
    }
    record = json.dumps({"member": predictions.member, **predictions.record}, sort_keys=True).encode()
    table = pa.table(columns).replace_schema_metadata({_RECORD_KEY: record})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_whole(Path(path), sink.getvalue().to_pybytes())


def read_predictions(path: str | Path) -> Predictions:
    """Read a member's file.

    Raises:
        ValueError: If it is no predictions file, or holds several members; as `Predictions` for bad values.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{path} cannot be read as predictions ({error}); write it with recipes/predict.py"
        ) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    metadata = table.schema.metadata or {}
    if missing or _RECORD_KEY not in metadata:
        raise ValueError(f"{path} is no predictions file: it lacks {missing or 'its record'}")
    record = json.loads(metadata[_RECORD_KEY])
    member = record.pop("member")
    others = sorted(set(table["member"].to_pylist()) - {member})
    if others:
        raise ValueError(f"{path} holds rows of the members {others[:_NAMED]} besides {member!r}; one file a member")
    return Predictions(
        member=member,
        row_ids=np.array(table["row_id"].to_pylist(), dtype=np.str_),
        labels=table["label"].to_numpy().astype(np.int64),
        groups=np.array(table["group"].to_pylist(), dtype=np.str_),
        splits=np.array(table["split"].to_pylist(), dtype=np.str_),
        logits=_matrix(table["logits"]),
        embeddings=_matrix(table["embedding"]),
        folds=table["fold"].to_numpy().astype(np.int64),
        transforms=table["transform"].to_numpy().astype(np.int64),
        record=record,
    )


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Put lines of one member, such as those of several splits or transforms, one after the other.

    Raises:
        ValueError: If there is no part, or they are of several members or records.
    """
    if not parts or any((part.member, part.record) != (parts[0].member, parts[0].record) for part in parts):
        names = sorted({part.member for part in parts})
        raise ValueError(f"parts of the members {names} cannot be joined; give parts of one member with one record")
    return dataclasses.replace(
        parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    )


def aligned(members: Sequence[Predictions]) -> list[Predictions]:
    """Bring members to the row order of the first; all must speak of the same photos.

    Args:
        members: One line a photo each: choose a transform before.

    Raises:
        ValueError: If two members share a name, rows are missing from one or labels differ; member and rows are named.
    """
    names = [member.member for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two members are called {twice[0]!r}; give each its own name")
    if not members:
        return []
    first = members[0]
    result = [first]
    for member in members[1:]:
        for one, other in ((first, member), (member, first)):
            missing = np.setdiff1d(one.row_ids, other.row_ids)
            if len(missing):
                raise ValueError(
                    f"member {other.member!r} lacks {len(missing)} of the {len(one)} rows of member {one.member!r}, "
                    f"{missing[:_NAMED].tolist()} among them; predict the same rows with both"
                )
        order = np.argsort(member.row_ids)[np.searchsorted(np.sort(member.row_ids), first.row_ids)]
        moved = member.select(order)
        differ = np.flatnonzero(moved.labels != first.labels)
        if len(differ):
            row = differ[0]
            raise ValueError(
                f"row {str(first.row_ids[row])!r} has label {first.labels[row]} in member {first.member!r} and "
                f"{moved.labels[row]} in {member.member!r} ({len(differ)} such rows); predict the same data with both"
            )
        result.append(moved)
    return result


def _vectors(values: NDArray[np.float32], width: int) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    if width == 0:  # Arrow cannot tell the number of rows from no values
        return pa.array([[]] * len(values), pa.list_(pa.float32(), 0))
    return pa.FixedSizeListArray.from_arrays(flat, width)


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    width = column.type.list_size
    return column.combine_chunks().flatten().to_numpy().reshape(len(column), width).astype(np.float32)

"""Figures that another model found in the photos, as an input of ours: files of them, and their lookup by row id.

In comes an Arrow file with one line a row, which `labeling/detector_evidence.py` or anybody else writes; out goes
`extra_evidence` `(B, E, F)` for the batches, beside the metadata. The figures must come from the photo alone. A file whose
writer knew the label, such as one made of people's boxes or of the scenes' own masks, gives the label away.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.leak_audit import MAX_PRESENCE_MCC
from natix_roadwork.metrics import binary_metrics


FORMAT_VERSION = 1
_RECORD_KEY = b"natix_roadwork.extra_evidence"
# Providers of `labeling/` that know the label, or drew the photo with it.
LABEL_KNOWING = ("human", "scenes")
FEWEST = 5  # rows with and without evidence, below which presence says nothing
_NAMED = 3


@dataclass(frozen=True)
class ExtraEvidence:
    """Figures of N rows.

    The model reads them through one linear layer, as they are: whoever writes a file brings them to sizes of about 1, counts
    by `log1p` for example.

    Attributes:
        row_ids: `(N,)` rows that were looked at.
        values: `(N, E, F)` float32: E pieces of evidence a row, each NaN as a whole or not at all.
        names: What the F figures are.
        source: What made them, as JSON values.

    Raises:
        ValueError: If shapes do not fit, a row stands twice, or a value is infinite or half missing; the row is named.
    """

    row_ids: NDArray[np.str_]
    values: NDArray[np.float32]
    names: tuple[str, ...]
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what a batch would trip over."""
        shape = self.values.shape
        if len(shape) != 3 or shape[0] != len(self.row_ids) or shape[2] != len(self.names) or not all(shape[1:]):
            raise ValueError(
                f"extra evidence of shape {shape} for {len(self.row_ids)} rows and {len(self.names)} names; give (N, E, F)"
            )
        ids, counts = np.unique(self.row_ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"row {str(ids[counts > 1][0])!r} stands twice in the extra evidence; give each row once")
        missing = np.isnan(self.values).sum(axis=2)
        bad = np.isinf(self.values).any(axis=(1, 2)) | ((missing > 0) & (missing < shape[2])).any(axis=1)
        if bad.any():
            raise ValueError(
                f"row {str(self.row_ids[bad][0])!r}: an infinite or half missing piece of extra evidence; all of a piece's "
                "figures are numbers, or all NaN"
            )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {row_id: place for place, row_id in enumerate(self.row_ids.tolist())}

    def lookup(self, row_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return `(B, E, F)`; the row of an id that the file does not have is NaN."""
        found = np.full((len(row_ids), *self.values.shape[1:]), np.nan, np.float32)
        for number, row_id in enumerate(row_ids):
            place = self._places.get(row_id)
            if place is not None:
                found[number] = self.values[place]
        return found

    def coverage(self, row_ids: Sequence[str], labels: Sequence[int]) -> dict[str, Any]:
        """Count the rows with and without evidence by label, as JSON values.

        Args:
            row_ids: `(N,)` rows of a split.
            labels: `(N,)` their labels.

        Returns:
            `known` and `missing` by class; `missing_rows`, the first few; `presence_mcc`, how well the mere presence of
            evidence tells the label, None where (nearly) all rows have it or none.
        """
        known = ~np.isnan(self.lookup(row_ids)).any(axis=2).all(axis=1)
        labels_ = np.asarray(labels)
        counts = {
            name: dict(zip(("None", "Roadwork"), np.bincount(labels_[mask], minlength=2).tolist(), strict=True))
            for name, mask in (("known", known), ("missing", ~known))
        }
        absent = [row_id for row_id, there in zip(row_ids, known, strict=True) if not there]
        enough = min(len(absent), int(known.sum())) >= FEWEST
        told = binary_metrics(labels_, known.astype(float))["mcc"] if enough else None
        return counts | {"missing_rows": absent[:_NAMED], "presence_mcc": told}


def check_coverage(coverage: dict[str, Any], split: str, path: str) -> None:
    """Refuse a file whose mere presence tells the label.

    Args:
        coverage: Of `ExtraEvidence.coverage`.
        split: Named in the error.
        path: Likewise.

    Raises:
        ValueError: If no row of the split is in the file, or presence tells the label.
    """
    if not sum(coverage["known"].values()):
        raise ValueError(
            f"extra_evidence={path!r} has none of the rows of {split}, such as {coverage['missing_rows'][0]!r}; make it "
            "from the photos of this data set"
        )
    told = coverage["presence_mcc"]
    if told is not None and abs(told) >= MAX_PRESENCE_MCC:
        raise ValueError(
            f"extra_evidence={path!r} gives the label away in {split}: whether a row has evidence at all reaches an MCC of "
            f"{told:.2f} (rows with it {coverage['known']}, without {coverage['missing']}); make it for all photos"
        )


def check_provider(name: str) -> None:
    """Refuse a provider that knows the label.

    Raises:
        ValueError: If it does.
    """
    if name in LABEL_KNOWING:
        raise ValueError(
            f"provider={name!r} knows what the label knows, so its figures as an input would give the label away; take a "
            "model's, which sees the photo alone"
        )


def check_source(evidence: ExtraEvidence, path: str) -> None:
    """Refuse a file whose own record names a provider that knows the label, however the file was made.

    Args:
        evidence: As read from the file.
        path: Named in the error.

    Raises:
        ValueError: If it does.
    """
    named = evidence.source.get("provider")
    try:
        check_provider(named.get("name", "") if isinstance(named, dict) else str(named))
    except ValueError as error:
        raise ValueError(f"extra_evidence={path!r}: {error}") from error


def write_extra_evidence(path: str | Path, evidence: ExtraEvidence) -> None:
    """Write the file, whole or not at all; the same evidence gives the same bytes."""
    pieces, width = evidence.values.shape[1:]
    flat = pa.array(np.ascontiguousarray(evidence.values, np.float32).reshape(-1))
    columns = {
        "row_id": pa.array(evidence.row_ids.tolist(), pa.string()),
        "values": pa.FixedSizeListArray.from_arrays(flat, pieces * width),
    }
    record = {"format": FORMAT_VERSION, "names": evidence.names, "pieces": pieces, "source": evidence.source}
    table = pa.table(columns).replace_schema_metadata({_RECORD_KEY: json.dumps(record, sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_whole(Path(path), sink.getvalue().to_pybytes())


def read_extra_evidence(path: str | Path) -> ExtraEvidence:
    """Read a file of `write_extra_evidence`.

    Raises:
        ValueError: If it is no such file, or of another format version; as `ExtraEvidence` for bad values.
    """
    table, record = _open(path)
    pieces, names = record["pieces"], tuple(record["names"])
    column = table["values"].combine_chunks()
    values = (
        column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), pieces, len(names))
    )
    return ExtraEvidence(np.array(table["row_id"].to_pylist(), dtype=np.str_), values, names, record["source"])


def evidence_width(path: str | None) -> int:
    """Return F of a file, for the model's `extra_evidence_size`; 0 where there is none.

    Raises:
        ValueError: If it is no file of extra evidence.
    """
    return 0 if path is None else len(_open(path)[1]["names"])


def evidence_hash(path: str | None) -> str | None:
    """Hash a file, so that a record can say which one was read; None where there is none."""
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _open(path: str | Path) -> tuple[pa.Table, dict[str, Any]]:
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"extra_evidence: {path} cannot be read ({error}); recipes/detect.py writes it") from error
    metadata = table.schema.metadata or {}
    if _RECORD_KEY not in metadata or not {"row_id", "values"} <= set(table.column_names):
        raise ValueError(f"extra_evidence: {path} is no file of extra evidence; recipes/detect.py writes one")
    record = json.loads(metadata[_RECORD_KEY])
    if record["format"] != FORMAT_VERSION:
        raise ValueError(
            f"extra_evidence: {path} has format {record['format']}, this version reads {FORMAT_VERSION}; write it anew"
        )
    return table, record

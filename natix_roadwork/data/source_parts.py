"""The splits of a source while a data set is loaded: photos, values, groups, and the rows still kept.

In come the parts that `data/dataset.py` has read; groups are formed over all of them at once, so that a train row finds
its neighbours in the lockbox, and rows that share a group with a split that judges them are dropped and counted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from natix_roadwork.data.consistency import contradicting_rows
from natix_roadwork.data.folds import shared_with
from natix_roadwork.data.groups import group_names, pairs_of_file
from natix_roadwork.data.natix_columns import COLUMN_NAMES
from natix_roadwork.data.near_duplicates import near_duplicate_pairs, photo_prints
from natix_roadwork.data.row_report import RowReport, row_problem
from natix_roadwork.data.sources import SPLITS


# A group with a larger share of the rows than this is worth a look before anything is split.
LARGE_GROUP_SHARE = 0.2
# All that a run may read of a row but its pixels, which the number of bytes stands for, and its mask, a local path.
FINGERPRINT_COLUMNS = (
    *("row_id", "label", "width", "height", "num_bytes", "latitude", "longitude", "weather", "daytime", "scene"),
    *("travel_alteration", "text", "city", "video_id", "sequence_id"),
)


@dataclass
class SourcePart:
    """One split of a source.

    Attributes:
        images: Encoded photos of all its rows.
        values: Schema values of all its rows.
        columns: Source column of each schema field.
        kept: Numbers of the rows not dropped.
        groups: Group of each row; empty for rows dropped before groups were formed.
    """

    images: Dataset
    values: Dataset
    columns: dict[str, str]
    kept: NDArray[np.int64]
    groups: list[str] = field(default_factory=list)

    def column(self, name: str) -> list:
        """Read one schema column, dropped rows included."""
        return self.values[name][:]


def group_parts(
    parts: Mapping[str, SourcePart],
    report: RowReport,
    *,
    near_duplicates: bool,
    num_proc: int | None,
    groups_file: str | Path | None = None,
) -> list[tuple[str, str]]:
    """Give every kept row of every part its group, and note what was found.

    Args:
        parts: Parts by split; their `groups` are filled.
        report: Notes are added to it.
        near_duplicates: Whether photos of almost the same picture are looked for, which decodes each photo once.
        num_proc: Processes that decode.
        groups_file: CSV file of more groups, which are joined with those found here.

    Returns:
        Row ids of each pair of near-duplicates.
    """
    ordered = list(parts.values())
    names = ("row_id", "video_id", "sequence_id", "city", "group", "latitude", "longitude")
    kept: dict[str, list] = {name: [] for name in names}
    for part in ordered:
        chosen = part.values.select(part.kept)
        for name in names:
            kept[name] += chosen[name][:]
    gps = np.column_stack([np.array(kept[name], dtype=np.float64) for name in ("latitude", "longitude")])
    pairs = np.empty((0, 2), dtype=np.int64)
    if near_duplicates:
        photos = concatenate_datasets([part.images.select(part.kept) for part in ordered])
        pairs = near_duplicate_pairs(photo_prints(photos, num_proc))
        report.notes.append(f"near-duplicates: {len(pairs)} pairs of photos among {len(photos)}")
    links = pairs
    if groups_file is not None:
        links = np.concatenate([pairs, pairs_of_file(groups_file, kept["row_id"])])
    groups = group_names(*(kept[name] for name in names[:5]), gps=gps, duplicates=links)
    largest, size = Counter(groups).most_common(1)[0]
    if size > max(2, LARGE_GROUP_SHARE * len(groups)):
        report.notes.append(f"the largest group, {largest!r}, holds {size} of {len(groups)} rows")
    start = 0
    for part in ordered:
        part.groups = [""] * len(part.values)
        for row, group in zip(part.kept, groups[start : start + len(part.kept)], strict=True):
            part.groups[row] = group
        start += len(part.kept)
    return [(kept["row_id"][a], kept["row_id"][b]) for a, b in pairs.tolist()]


def drop_contradicting(split: str, part: SourcePart, report: RowReport) -> None:
    """Drop rows as validators do: those with a description and label 0, or with none and label 1.

    Raises:
        ValueError: If the split has no column of descriptions.
    """
    if "text" not in part.columns:
        names = " or ".join(COLUMN_NAMES["text"])
        raise ValueError(f"consistency_filter=True compares labels with descriptions; {split} has no column {names}")
    columns = [[values[row] for row in part.kept] for values in map(part.column, ("row_id", "label", "text"))]
    problems = contradicting_rows(*columns, part.columns["text"])
    dropped = {problem.row_id for problem in problems}
    report.problems += problems
    report.notes.append(f"consistency filter: {len(problems)} of {len(part.kept)} rows of {split} dropped")
    part.kept = part.kept[[row_id not in dropped for row_id in columns[0]]]


def drop_shared_groups(parts: Mapping[str, SourcePart], report: RowReport) -> None:
    """Drop rows whose group is also in a split that judges them: train against dev and test, dev against test."""
    judges: dict[str, set[str]] = {}
    for split in reversed(SPLITS):
        if split not in parts:
            continue
        part = parts[split]
        shared = shared_with([part.groups[row] for row in part.kept], judges)
        row_ids = part.column("row_id")
        for row, other in zip(part.kept, shared, strict=True):
            if other:
                reason = f"rows of this group are in {other}"
                report.problems.append(row_problem(row_ids[row], "group", part.groups[row], reason, dropped=True))
        part.kept = part.kept[[not other for other in shared]]
        judges[split] = {part.groups[row] for row in part.kept}


def rows_fingerprint(parts: Mapping[str, SourcePart], rows: Mapping[str, NDArray[np.int64]]) -> str:
    """Hash ids, labels, groups, splits, photo sizes and metadata values; equal on every machine.

    Args:
        parts: Parts by split.
        rows: Row numbers handed out by split.
    """
    digest = hashlib.sha256()
    for split in sorted(rows):
        part = parts[split]
        columns = [part.column(name) for name in FINGERPRINT_COLUMNS]
        for row in rows[split]:
            values = [split, part.groups[row], *(column[row] for column in columns)]
            digest.update(json.dumps(values).encode())
    return digest.hexdigest()

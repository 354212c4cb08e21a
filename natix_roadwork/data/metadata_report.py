"""How much of each metadata column is there, by label.

In come rows of the schema and the problems met while reading them; out goes a `MetadataReport`: a table for the log and
a JSON object for `result.json`. A column that is filled far more often at one label gives the label away, which
`data/leak_audit.py` measures.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.gps_text import SWAPPED_REASON, gps_warnings
from natix_roadwork.data.metadata import TAG_FIELDS
from natix_roadwork.data.natix_columns import COLUMN_NAMES, LABEL_NAMES
from natix_roadwork.data.row_report import RowProblem
from natix_roadwork.data.tags import tag_ids


FIELDS = ("gps", "weather", "daytime", "scene", "travel_alteration", "text", "city")
# Columns of the row schema that the report reads.
REPORT_COLUMNS = ("row_id", "label", "latitude", "longitude", *FIELDS[1:])
COUNTS = ("rows", "parsed", "missing", "refused", "swapped", "unknown")
MAX_UNKNOWN_TAGS = 20


@dataclass
class FieldCounts:
    """One metadata column at one label; `rows` = `parsed` + `missing` + `refused`.

    Attributes:
        rows: Rows with this label.
        parsed: Rows with a value.
        missing: Rows whose value is not given.
        refused: Rows whose value could not be read and is treated as missing.
        swapped: Parsed rows whose latitude and longitude were put in order.
        unknown: Parsed rows with a tag that the vocabulary lacks.
    """

    rows: int = 0
    parsed: int = 0
    missing: int = 0
    refused: int = 0
    swapped: int = 0
    unknown: int = 0


@dataclass
class MetadataReport:
    """What the metadata columns hold.

    Attributes:
        counts: By field, then by label name.
        unknown_tags: By field, how many rows have each tag that the vocabulary lacks; every one is counted.
        warnings: What is odd about a whole column.
    """

    counts: dict[str, dict[str, FieldCounts]]
    unknown_tags: dict[str, Counter] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Lay the counts out as text: fields with a value by label, the other fields' names, unknown tags, warnings."""
        lines = [f"{'metadata':18} {'label':9}" + "".join(f"{name:>9}" for name in COUNTS)]
        empty = [name for name, labels in self.counts.items() if all(c.missing == c.rows for c in labels.values())]
        for name, labels in self.counts.items():
            for label, counts in labels.items() if name not in empty else ():
                lines.append(f"{name:18} {label:9}" + "".join(f"{getattr(counts, each):>9}" for each in COUNTS))
        if empty:
            lines.append(f"missing in every row: {', '.join(empty)}")
        for name, tags in self.unknown_tags.items():
            shown = ", ".join(f"{tag!r} ({count})" for tag, count in tags.most_common(5))
            lines.append(f"{name}: {len(tags)} tags that the vocabulary lacks: {shown}" + ", ..." * (len(tags) > 5))
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; of each field's unknown tags the most frequent, and how many there are."""
        return {
            "counts": {
                name: {label: asdict(counts) for label, counts in labels.items()}
                for name, labels in self.counts.items()
            },
            "unknown_tags": {
                name: {"distinct": len(tags), "rows": dict(tags.most_common(MAX_UNKNOWN_TAGS))}
                for name, tags in self.unknown_tags.items()
            },
            "warnings": list(self.warnings),
        }


def metadata_report(
    rows: Mapping[str, Sequence[Any]],
    vocabularies: Mapping[str, Sequence[str]],
    problems: Iterable[RowProblem] = (),
) -> MetadataReport:
    """Count what was parsed, missing and refused, per column and per label.

    Args:
        rows: The columns `REPORT_COLUMNS` of the row schema; a `datasets.Dataset` will do.
        vocabularies: Known words of `weather`, `daytime` and `scene`.
        problems: What was met while reading, of these rows and others; `RowReport.problems`.
    """
    names = {column: name for name in FIELDS for column in COLUMN_NAMES[name]}
    names |= dict.fromkeys(COLUMN_NAMES["latitude"], "gps")
    refused: dict[str, set[str]] = {name: set() for name in FIELDS}
    swapped: set[str] = set()
    for problem in problems:
        if problem.column in names and not problem.dropped:
            row_ids = swapped if problem.reason == SWAPPED_REASON else refused[names[problem.column]]
            row_ids.add(problem.row_id)
    gps = np.stack([np.asarray(rows[name][:], np.float64) for name in ("latitude", "longitude")], -1)
    report = MetadataReport({}, warnings=gps_warnings(gps))
    row_ids, labels = rows["row_id"][:], np.asarray(rows["label"][:])
    for name in FIELDS:
        there = ~np.isnan(gps).any(1) if name == "gps" else np.array([bool(value) for value in rows[name][:]], bool)
        wrong = ~there & _is_in(row_ids, refused[name])
        kinds = {
            "rows": np.ones(len(there), bool),
            "parsed": there,
            "missing": ~there & ~wrong,
            "refused": wrong,
            "swapped": there & _is_in(row_ids, swapped if name == "gps" else set()),
            "unknown": _has_unknown(name, rows, vocabularies, report),
        }
        report.counts[name] = {
            text: FieldCounts(**{kind: int((mask & (labels == label)).sum()) for kind, mask in kinds.items()})
            for label, text in enumerate(LABEL_NAMES)
        }
    return report


def _is_in(row_ids: Sequence[str], chosen: set[str]) -> NDArray[np.bool_]:
    if not chosen:
        return np.zeros(len(row_ids), bool)
    return np.array([row_id in chosen for row_id in row_ids], bool)


def _has_unknown(
    name: str, rows: Mapping[str, Sequence[Any]], vocabularies: Mapping[str, Sequence[str]], report: MetadataReport
) -> NDArray[np.bool_]:
    """Count the tags that a vocabulary lacks; returns which rows have one."""
    found = np.zeros(len(rows["row_id"]), bool)
    if name not in TAG_FIELDS:
        return found
    tags: Counter = Counter()
    known: dict[str, bool] = {}
    for number, row in enumerate(rows[name][:]):
        for tag in dict.fromkeys(row):
            if tag not in known:
                known[tag] = len(vocabularies[name]) not in tag_ids(name, [tag], vocabularies[name])
            if not known[tag]:
                tags[tag] += 1
                found[number] = True
    if tags:
        report.unknown_tags[name] = tags
    return found

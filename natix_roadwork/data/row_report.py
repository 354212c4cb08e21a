"""What loading a data set read, kept and dropped, row by row: nothing leaves a data set in silence.

In come the problems that `data/dataset.py` meets; out goes a text for the log and a JSON object for `result.json`.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from natix_roadwork.data.metadata_report import MetadataReport


MAX_VALUE_LENGTH = 120


@dataclass(frozen=True)
class RowProblem:
    """One wrong value: which row and column it is in, and why it is wrong.

    Attributes:
        row_id: The row's global id, or `split/file:line` where a line could not become a row.
        column: Column as the source names it.
        value: The wrong value as text, shortened to 120 characters.
        reason: What is wrong with it.
        dropped: Whether the row was dropped; otherwise the value alone is treated as missing.
    """

    row_id: str
    column: str
    value: str
    reason: str
    dropped: bool


def row_problem(row_id: str, column: str, value: object, reason: str, *, dropped: bool) -> RowProblem:
    """Build a `RowProblem`, shortening the value's text and escaping what is not valid Unicode."""
    text = value if isinstance(value, str) else repr(value)
    row_id, text = (part.encode("utf-8", "backslashreplace").decode() for part in (row_id, text))
    if len(text) > MAX_VALUE_LENGTH:
        text = f"{text[:MAX_VALUE_LENGTH]}... ({len(text)} characters)"
    return RowProblem(row_id, column, text, reason, dropped)


@dataclass
class RowReport:
    """Counts and problems of one loaded data set.

    Attributes:
        dataset_name: The name that was loaded.
        source: Kind of source: `hub`, `parquet` or `imagefolder`.
        read: Rows read for each split of the source; lines and photos that could not become a row count as read.
        kept: For each split handed out, the number of rows of each class name.
        groups: For each split handed out, the number of groups.
        problems: Every wrong value met, in the order of the rows.
        missing_columns: Columns the source does not have; their values are missing in every row.
        unused_columns: Columns of the source that the row schema has no place for.
        metadata: What was parsed, missing and refused in each metadata column, by label.
        notes: Decisions a reader should know of, such as where the dev rows come from.
    """

    dataset_name: str
    source: str
    read: dict[str, int] = field(default_factory=dict)
    kept: dict[str, dict[str, int]] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    problems: list[RowProblem] = field(default_factory=list)
    missing_columns: list[str] = field(default_factory=list)
    unused_columns: list[str] = field(default_factory=list)
    metadata: "MetadataReport | None" = None
    notes: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> list[RowProblem]:
        """Problems that cost their row; one entry for each dropped row."""
        return [problem for problem in self.problems if problem.dropped]

    @property
    def needs_attention(self) -> bool:
        """Whether a value was wrong, or a whole column looks odd."""
        return bool(self.problems) or (self.metadata is not None and bool(self.metadata.warnings))

    @property
    def num_read(self) -> int:
        """Rows read over all splits."""
        return sum(self.read.values())

    @property
    def num_kept(self) -> int:
        """Rows handed out over all splits."""
        return sum(sum(labels.values()) for labels in self.kept.values())

    def summary(self, max_examples: int = 5) -> str:
        """Describe the load in a few lines: counts, then the problems by column with examples.

        Args:
            max_examples: Rows named for each kind of problem; the counts always cover all of them.
        """
        lines = [
            f"{self.dataset_name} ({self.source}): {self.num_read} rows read, {self.num_kept} kept, "
            f"{len(self.dropped)} dropped"
        ]
        for split, labels in self.kept.items():
            classes = ", ".join(f"{count} {name}" for name, count in labels.items())
            lines.append(f"  {split}: {sum(labels.values())} rows ({classes}) in {self.groups.get(split, 0)} groups")
        for dropped, title in (
            (True, "dropped"),
            (False, "kept, value treated as missing, measured anew or put right"),
        ):
            lines += self._problem_lines(dropped, title, max_examples)
        if self.missing_columns:
            lines.append(f"  columns not there: {', '.join(self.missing_columns)}")
        if self.unused_columns:
            lines.append(f"  columns not used: {', '.join(self.unused_columns)}")
        if self.metadata is not None:
            lines += [f"  {line}" for line in self.metadata.table().splitlines()]
        return "\n".join(lines + [f"  {note}" for note in self.notes])

    def _problem_lines(self, dropped: bool, title: str, max_examples: int) -> list[str]:
        by_column: dict[str, list[RowProblem]] = {}
        for problem in self.problems:
            if problem.dropped == dropped:
                by_column.setdefault(problem.column, []).append(problem)
        lines = []
        for column, problems in by_column.items():
            lines.append(f"  {title}: {len(problems)} by column {column!r}")
            lines += [f"    {p.row_id}: {p.value!r}: {p.reason}" for p in problems[:max_examples]]
            if len(problems) > max_examples:
                lines.append(f"    ... and {len(problems) - max_examples} more")
        return lines

    def as_dict(self, max_problems: int = 1000) -> dict[str, Any]:
        """Return the report as JSON-ready values for `result.json`.

        Args:
            max_problems: Problems listed one by one; `problem_counts` and `problems_not_listed` cover the rest.
        """
        counts = Counter(f"{'dropped' if p.dropped else 'kept'}: {p.column}" for p in self.problems)
        return {
            "dataset_name": self.dataset_name,
            "source": self.source,
            "read": dict(self.read),
            "kept": {split: dict(labels) for split, labels in self.kept.items()},
            "groups": dict(self.groups),
            "num_dropped": len(self.dropped),
            "problem_counts": dict(counts),
            "problems": [asdict(problem) for problem in self.problems[:max_problems]],
            "problems_not_listed": max(0, len(self.problems) - max_problems),
            "missing_columns": list(self.missing_columns),
            "unused_columns": list(self.unused_columns),
            "metadata": None if self.metadata is None else self.metadata.as_dict(),
            "notes": list(self.notes),
        }

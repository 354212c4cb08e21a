"""Rows whose description contradicts their label, which NATIX's validators skip.

In come the columns of one split; out goes a problem for each contradicting row, with which `data/dataset.py` drops it.
"""

from collections.abc import Sequence

from natix_roadwork.data.row_report import RowProblem, row_problem


# By label: why a row contradicts its description.
REASONS = ("label 0 (None) with a description", "label 1 (Roadwork) without a description")


def contradicting_rows(
    row_ids: Sequence[str], labels: Sequence[int], texts: Sequence[str], column: str
) -> list[RowProblem]:
    """Name the rows that have a description and label 0, or none and label 1.

    Args:
        row_ids: Named in each problem.
        labels: 0 or 1.
        texts: Descriptions as `natix_columns.parse_text` reads them: None, NaN, blank and "No Description" are "".
        column: The descriptions' column in the source.
    """
    return [
        row_problem(row_id, column, text, REASONS[label], dropped=True)
        for row_id, label, text in zip(row_ids, labels, texts, strict=True)
        if bool(text) != (label == 1)
    ]

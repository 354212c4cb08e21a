"""The members of an ensemble side by side, honest rows only, and the splits on which fitting can be scored honestly.

In come the `Predictions` of several members; out goes a `MemberTable` and pairs of rows to fit on and to score.
`inference/combining.py` fits on it, `inference/nested.py` scores.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_roadwork.data.folds import Fold, require_both_classes, stratified_group_folds
from natix_roadwork.data.predictions import NOT_OUT_OF_FOLD, ORIGINAL, Predictions, aligned


_NAMED = 3  # row ids in a message


@dataclass(frozen=True)
class MemberTable:
    """What M members say of N rows that none of them has learned from.

    Attributes:
        names: Names of the members.
        row_ids: `(N,)` row ids.
        labels: `(N,)` 0 None, 1 Roadwork.
        groups: `(N,)` group names.
        logits: `(N, M, 2)` None, Roadwork.
        folds: `(N, M)` fold whose model, never trained on the row, said this; -1 = the row's split taught nothing.
        notes: Sentences that count and name the rows left out, those a member has learned from and those of `test`, and
            that name members whose scores are not comparable.
    """

    names: tuple[str, ...]
    row_ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    logits: NDArray[np.float64]
    folds: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def margins(self) -> NDArray[np.float64]:
        """`(N, M)` logit of Roadwork minus logit of None."""
        return self.logits[:, :, 1] - self.logits[:, :, 0]

    def take(self, rows: ArrayLike) -> "MemberTable":
        """Return the rows with these numbers, or of a mask."""
        arrays = ("row_ids", "labels", "groups", "logits", "folds")
        return dataclasses.replace(self, **{name: getattr(self, name)[np.asarray(rows)] for name in arrays})

    def pick(self, members: Sequence[int]) -> "MemberTable":
        """Return the members with these numbers, in this order."""
        chosen = list(members)
        return dataclasses.replace(
            self,
            names=tuple(self.names[member] for member in chosen),
            logits=self.logits[:, chosen],
            folds=self.folds[:, chosen],
        )


def member_table(members: Sequence[Predictions]) -> MemberTable:
    """Bring members side by side on the rows that no member has learned from, the split `test` kept back.

    Args:
        members: At least two, of the same rows, one line a photo.

    Raises:
        ValueError: If rows, labels, groups or folds of two members differ, a member holds several transforms a photo, a
            group lies in two folds, or no honest rows of both classes are left; member and row are named.
    """
    if len(members) < 2:
        raise ValueError(f"members holds {len(members)} prediction files; an ensemble needs at least two")
    for member in members:
        require_originals(member)
    members = aligned(members)
    first = members[0]
    for member in members[1:]:
        differ = np.flatnonzero(member.groups != first.groups)
        if len(differ):
            row = differ[0]
            raise ValueError(
                f"row {str(first.row_ids[row])!r} is of group {str(first.groups[row])!r} in member {first.member!r} and of "
                f"{str(member.groups[row])!r} in {member.member!r} ({len(differ)} such rows); predict the same data with both"
            )
    honest, refused = honest_rows(members)
    if not honest.any():
        raise ValueError(f"no row to fit on: {'; '.join(refused)}. Predict a split that no member has learned from")
    labels = [
        f"member {member.member!r}: {member.record['label']}" for member in members if member.record.get("label")
    ]
    table = MemberTable(
        names=tuple(member.member for member in members),
        row_ids=first.row_ids[honest],
        labels=first.labels[honest],
        groups=first.groups[honest],
        logits=np.stack([member.logits[honest].astype(np.float64) for member in members], axis=1),
        folds=np.stack([member.folds[honest] for member in members], axis=1),
        notes=(*refused, *labels),
    )
    require_both_classes(table.labels, "held-out rows of all members")
    _check_folds(table)
    return table


def honest_rows(members: Sequence[Predictions]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Find the rows that no member has learned from, the split `test` kept back.

    Args:
        members: Of the same rows in the same order.

    Returns:
        `(N,)` mask, and sentences that count and name the rows left out.
    """
    honest = np.all([member.held_out for member in members], axis=0)
    refused = [_refusal(member) for member in members if not member.held_out.all()]
    final = np.any([(member.splits == "test") & (member.folds == NOT_OUT_OF_FOLD) for member in members], axis=0)
    if final.any():
        refused.append(
            f"{int(final.sum())} rows of the split 'test' are left for the final score of what is fitted here"
        )
    return honest & ~final, tuple(refused)


def require_originals(member: Predictions) -> None:
    """Check that a member holds one line a photo.

    Raises:
        ValueError: With a row that has another transform than the photo as it is.
    """
    other = np.flatnonzero(member.transforms != ORIGINAL)
    if len(other):
        raise ValueError(
            f"member {member.member!r}: row {str(member.row_ids[other[0]])!r} has transform {member.transforms[other[0]]} "
            f"({len(other)} such lines); an ensemble takes one line a photo, so reduce the transforms before"
        )


def honest_splits(table: MemberTable, num_folds: int, seed: int = 0) -> list[Fold]:
    """Split rows into those to fit on and those to score, so that nothing fitted has met a scored label.

    An out-of-fold value has met the labels of all other folds: a combination fitted on fold 1 and scored on fold 2 has
    seen, through fold 1's values, how well each member does on fold 2, and scores above 0 on shuffled labels. So rows of
    a fold are scored by what is fitted on other rows of the *same* fold, whose values come from the same models; rows
    of a split that taught no member may be scored by what is fitted anywhere. No group is on both sides.

    Args:
        table: Rows of all members.
        num_folds: Parts that the rows of one fold, or those of a split that taught nothing, are cut into.
        seed: Decides the parts.

    Returns:
        For each part, the row numbers to fit on and those to score; each row is scored once.

    Raises:
        ValueError: If a part would lack a class; the fold and its counts are named.
    """
    kinds, codes = np.unique(table.folds, axis=0, return_inverse=True)
    splits = []
    for code, kind in enumerate(kinds):
        block = np.flatnonzero(codes.reshape(-1) == code)
        name = ", ".join(map(str, sorted(set(kind.tolist()) - {NOT_OUT_OF_FOLD})))
        try:
            parts = stratified_group_folds(table.labels[block], table.groups[block], num_folds, seed)
        except ValueError as error:
            where = f"rows of fold {name}" if name else "rows of a split that taught no member"
            raise ValueError(f"the {len(block)} {where} cannot be cut into {num_folds} parts: {error}") from error
        blind = ((kind == NOT_OUT_OF_FOLD) | (table.folds == kind)).all(axis=1)
        for _, part in parts:
            scored = block[part]
            splits.append((np.flatnonzero(blind & ~np.isin(table.groups, table.groups[scored])), scored))
    return splits


def _refusal(member: Predictions) -> str:
    """Count and name the rows that a member has learned from."""
    learned = np.flatnonzero(~member.held_out)
    rows = member.row_ids[learned[:_NAMED]].tolist()
    return f"member {member.member!r} has learned from {len(learned)} of its {len(member)} rows, {rows} among them"


def _check_folds(table: MemberTable) -> None:
    """Check that members with folds have the same ones, and that no group lies in two."""
    for number, name in enumerate(table.names):
        pairs = np.unique(np.stack([table.groups, table.folds[:, number].astype(str)], axis=1), axis=0)
        groups, counts = np.unique(pairs[:, 0], return_counts=True)
        if (counts > 1).any():
            group = str(groups[counts > 1][0])
            raise ValueError(
                f"member {name!r}: group {group!r} lies in the folds {pairs[pairs[:, 0] == group, 1].tolist()} (-1 = none), "
                f"{int((counts > 1).sum())} such groups; its values have met labels of their own group, fold by groups"
            )
        for other in range(number):
            one, two = table.folds[:, other], table.folds[:, number]
            differ = np.flatnonzero((one >= 0) & (two >= 0) & (one != two))
            if len(differ):
                raise ValueError(
                    f"row {str(table.row_ids[differ[0]])!r} is in fold {one[differ[0]]} of member {table.names[other]!r} and in "
                    f"{two[differ[0]]} of {name!r} ({len(differ)} such rows); use one manifest of folds for all members"
                )

"""Members' answers for the TTA transforms of photos, side by side in one table.

In come members' predictions with several transforms a photo, and the feature statistics of their train rows; out goes a
table of probabilities and distances, which `tta.py` aggregates.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_roadwork.data.predictions import LEARNED_FROM, NOT_OUT_OF_FOLD, ORIGINAL, Predictions, aligned
from natix_roadwork.inference.feature_statistics import FeatureStatistics


MODEL = "model_sha256"

FloatArray = NDArray[np.float64]
Column = tuple[str, int]


@dataclass(frozen=True)
class Variants:
    """What all members say of all TTA transforms of N photos, side by side in T columns.

    Attributes:
        originals: `(N,)` lines of the first member for the photos as they are: ids, labels, groups, splits. Their record
            lists what any member has learned from.
        columns: T pairs of member and transform.
        folds: `(N, M)` the members' folds, -1 = not out-of-fold.
        probabilities: `(N, T)` of Roadwork.
        mahalanobis: `(N, T)` distance to the class means of the member's train rows; None without statistics.
        neighbours: `(N, T)` distance to the nearest of its train rows, 1 = the threshold; None without statistics.
    """

    originals: Predictions
    columns: tuple[Column, ...]
    folds: NDArray[np.int64]
    probabilities: FloatArray
    mahalanobis: FloatArray | None = None
    neighbours: FloatArray | None = None

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.originals)

    @property
    def labels(self) -> NDArray[np.int64]:
        """`(N,)` 0 or 1."""
        return self.originals.labels

    @property
    def groups(self) -> NDArray[np.str_]:
        """`(N,)` group names."""
        return self.originals.groups

    @property
    def is_original(self) -> NDArray[np.bool_]:
        """`(T,)` which columns are photos as they are."""
        return np.array([transform == ORIGINAL for _, transform in self.columns])

    def select(self, rows: ArrayLike) -> "Variants":
        """Return the photos at `rows`, numbers or a boolean mask."""
        chosen = np.asarray(rows)
        names = ("folds", "probabilities", "mahalanobis", "neighbours")
        arrays = {name: None if getattr(self, name) is None else getattr(self, name)[chosen] for name in names}
        return dataclasses.replace(self, originals=self.originals.select(chosen), **arrays)


def side_by_side(
    members: Sequence[Predictions], statistics: Mapping[str, FeatureStatistics] | None = None
) -> Variants:
    """Bring members' transforms to one row order, with their distances to the training features.

    Raises:
        ValueError: If members speak of different photos, a photo lacks a transform, or the statistics are missing for a
            member, are another model's, or its features come from several models.
    """
    if not members:
        raise ValueError("members is empty; give at least one member's predictions")
    originals = aligned([member.select(member.transforms == ORIGINAL) for member in members])
    if not len(originals[0]):
        raise ValueError(f"member {members[0].member!r} has no line of transform {ORIGINAL}, the photo as it is")
    tables = [
        (member, number, _column(member, number, originals[0].row_ids))
        for member in members
        for number in sorted(set(member.transforms.tolist()))
    ]
    distances = [None, None]
    if statistics is not None:
        found = {member.member: _statistics_of(member, statistics) for member in members}
        features = [(found[member.member], member.embeddings[lines]) for member, _, lines in tables]
        distances[0] = np.stack([of.mahalanobis(values) for of, values in features], axis=1)
        distances[1] = np.stack([of.neighbour_distance(values) for of, values in features], axis=1)
    held_out = np.all([member.held_out for member in originals], axis=0)
    # A row counts as out-of-fold where it is held out from every member.
    own_folds = np.stack([member.folds for member in originals], axis=1)
    folds = np.where(held_out, own_folds.max(axis=1), NOT_OUT_OF_FOLD)
    taught = {split for member in originals for split in member.record.get(LEARNED_FROM, ["train", "dev"])}
    record = {LEARNED_FROM: sorted(taught), "members": [member.member for member in originals]}
    return Variants(
        originals=dataclasses.replace(originals[0], folds=folds, record=record),
        columns=tuple((member.member, number) for member, number, _ in tables),
        folds=own_folds,
        probabilities=np.stack([member.probabilities[lines] for member, _, lines in tables], axis=1),
        mahalanobis=distances[0],
        neighbours=distances[1],
    )


def _column(member: Predictions, number: int, row_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Lines of one transform in the order of the rows."""
    lines = np.flatnonzero(member.transforms == number)
    lacking = np.setdiff1d(row_ids, member.row_ids[lines])
    further = np.setdiff1d(member.row_ids[lines], row_ids)
    if len(lacking) or len(further):
        row_id, what = (lacking[0], "lacks") if len(lacking) else (further[0], f"lacks transform {ORIGINAL} beside")
        raise ValueError(
            f"member {member.member!r}: row {str(row_id)!r} {what} transform {number} ({len(lacking) + len(further)} such "
            "rows); predict all photos with the same --tta"
        )
    order = lines[np.argsort(member.row_ids[lines])]
    return order[np.searchsorted(member.row_ids[order], row_ids)]


def _statistics_of(member: Predictions, statistics: Mapping[str, FeatureStatistics]) -> FeatureStatistics:
    if member.member not in statistics:
        raise ValueError(f"statistics: none of member {member.member!r}, only of {sorted(statistics)}; fit them too")
    if (member.folds != NOT_OUT_OF_FOLD).any():
        raise ValueError(
            f"member {member.member!r}: its rows' features come from one model a fold, whose distances cannot be compared; "
            "leave the statistics out and take none, mean or learned"
        )
    found = statistics[member.member]
    made_by = found.record.get(MODEL)
    if member.record.get(MODEL) != made_by:
        raise ValueError(
            f"member {member.member!r}: its features are of the model {str(member.record.get(MODEL))[:12]}, its "
            f"statistics of {str(made_by)[:12]}; predict the train rows with the same model"
        )
    return found

"""An ensemble: named members, how their margins become one, and the cut of that margin, in one JSON file.

In comes a `MemberTable` of held-out rows to fit on; out goes an `Ensemble`, which combines new `Predictions` of the same
members. `inference/nested.py` scores it; `recipes/ensemble.py` fits, scores and saves.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.calibration import AffineMap
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.predictions import Predictions, aligned
from natix_roadwork.inference.combining import Combination, fit_combination
from natix_roadwork.inference.member_table import MemberTable, require_originals
from natix_roadwork.threshold import MccCut, cut_at_half, fit_mcc_cut, with_interval


ENSEMBLE_NAME = "ensemble.json"
FORMAT_VERSION = 2

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Ensemble:
    """A combination of members and the calibration of its margin.

    Attributes:
        method: How it was fitted, one of `combining.METHODS`.
        members: Names of the members, in the order of the combination's inputs.
        combination: Makes one margin of the members' logits.
        calibration: Brings the best cut of that margin to probability 0.5.
        cut: The cut before the calibration, with its interval where one was asked for.
        target_prior: Share of roadwork the cut is best for; None = that of the rows it was fitted on.
        num_rows: Rows it was fitted on.
        fitted_on: Splits these rows lie in; their labels had a part in the ensemble.
    """

    method: str
    members: tuple[str, ...]
    combination: Combination
    calibration: AffineMap
    cut: MccCut
    target_prior: float | None
    num_rows: int
    fitted_on: tuple[str, ...]

    def margins(self, logits: FloatArray) -> FloatArray:
        """Map logits `(N, M, 2)`, members in the order of `members`, to calibrated margins `(N,)`."""
        return self.calibration(self.combination(logits))

    def combine(self, members: Sequence[Predictions]) -> FloatArray:
        """Combine new predictions, matched by the member's name.

        Args:
            members: One line a photo each, of the same photos; any order of members.

        Returns:
            `(N,)` calibrated margins in the row order of the first of `members`; above 0 is Roadwork.

        Raises:
            ValueError: If a member is missing or unknown, or rows do not fit; member and rows are named.
        """
        given = [member.member for member in members]
        for what, names in (
            ("lacks", [name for name in self.members if name not in given]),
            ("does not know", [name for name in given if name not in self.members]),
        ):
            if names:
                raise ValueError(
                    f"the ensemble of {list(self.members)} {what} the member(s) {names}; give each of its own"
                )
        for member in members:
            require_originals(member)
        logits = {member.member: member.logits.astype(np.float64) for member in aligned(members)}
        return self.margins(np.stack([logits[name] for name in self.members], axis=1))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            "format_version": FORMAT_VERSION,
            "method": self.method,
            "members": list(self.members),
            "combination": self.combination.as_dict(),
            "calibration": asdict(self.calibration),
            "cut": asdict(self.cut),
            "target_prior": self.target_prior,
            "num_rows": self.num_rows,
            "fitted_on": list(self.fitted_on),
        }

    def save(self, path: str | Path) -> None:
        """Write the JSON file, whole or not at all; its folder is made where it is missing."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_whole(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | Path) -> "Ensemble":
        """Read what `save` wrote: numbers and names only, nothing is executed.

        Raises:
            ValueError: If the file is no such JSON, of another format version, or its numbers do not fit together.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values.pop("format_version") != FORMAT_VERSION:
                raise ValueError(f"its format_version is not {FORMAT_VERSION}, so fit it anew")
            values["members"], values["fitted_on"] = tuple(values["members"]), tuple(values["fitted_on"])
            values["combination"] = Combination.from_dict(values["combination"], len(values["members"]))
            values["calibration"] = AffineMap(**values["calibration"])
            interval = values["cut"].pop("interval")
            values["cut"] = MccCut(**values["cut"], interval=tuple(interval) if interval else None)
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} cannot be read as an ensemble: {error}; write it with recipes/ensemble.py"
            ) from error


def fit_ensemble(
    table: MemberTable,
    method: str,
    target_prior: float | None = None,
    seed: int = 0,
    with_bootstrap: bool = False,
    fitted_on: Sequence[str] = (),
) -> Ensemble:
    """Fit combination and cut on the same held-out rows.

    Args:
        table: Rows that no member has learned from, of both classes.
        method: One of `combining.METHODS`.
        target_prior: Share of roadwork the cut shall be best for; None = that of the rows.
        seed: Seed of inner folds, networks and bootstrap samples.
        with_bootstrap: Also draw the threshold's interval.
        fitted_on: Splits of the rows, see `splits_of`; an ensemble that is kept must know them.

    Raises:
        ValueError: If the method is unknown or there is one class only.
    """
    combination = fit_combination(table, method, seed)
    rows = (combination(table.logits), table.labels)
    cut = fit_mcc_cut(*rows, table.groups, target_prior, seed=seed)
    if with_bootstrap:
        cut = with_interval(cut, *rows, table.groups, target_prior, seed=seed)
    calibration = cut_at_half(*rows, cut, target_prior)
    return Ensemble(method, table.names, combination, calibration, cut, target_prior, len(table), tuple(fitted_on))


def splits_of(table: MemberTable, members: Sequence[Predictions]) -> tuple[str, ...]:
    """Name the splits in which the rows of a table lie, in any member's file."""
    found = {name for member in members for name in member.splits[np.isin(member.row_ids, table.row_ids)].tolist()}
    return tuple(sorted(found))

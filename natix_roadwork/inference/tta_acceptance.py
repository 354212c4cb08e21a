"""Whether a way of aggregating TTA transforms is worth its cost, decided and scored on different rows.

In come the variants of held-out photos; out go out-of-fold probabilities of every mode and of the whole choice.
`tta_run.py` writes them down. Nothing is fitted or chosen on a row that it is scored on: tau and weights come from the
other folds, and the choice of the mode from folds within those. Out-of-fold rows of members are scored by what is fitted on
rows of the same fold of the members (`member_table.honest_splits`): values of other folds have met the scored labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from natix_roadwork.data.folds import Fold
from natix_roadwork.inference.member_table import honest_splits
from natix_roadwork.inference.tta import combine, fit_aggregation, modes_of
from natix_roadwork.inference.tta_variants import FloatArray, Variants
from natix_roadwork.metrics import PairedDifference, paired_difference


NONE = "none"


@dataclass(frozen=True)
class ModeScore:
    """One mode on rows that its fit has not seen.

    Attributes:
        probabilities: `(N,)` of Roadwork.
        over_none: MCC minus that of the photos as they are, with its paired grouped interval.
    """

    probabilities: FloatArray
    over_none: PairedDifference

    @property
    def accepted(self) -> bool:
        """Whether the interval lies above 0."""
        return self.over_none.low > 0


@dataclass(frozen=True)
class Selection:
    """What choosing a mode, and then using it, gives on rows that had no part in the choice.

    Attributes:
        probabilities: `(N,)` of Roadwork.
        folds: `(N,)` number of the fold whose rows were left out of the choice.
        modes: The mode that each fold's choice came to.
    """

    probabilities: FloatArray
    folds: np.ndarray
    modes: list[str]


def compare_modes(variants: Variants, num_folds: int, seed: int, num_samples: int = 1000) -> dict[str, ModeScore]:
    """Score every mode out of fold, each against the photos as they are.

    Args:
        variants: Of held-out rows.
        num_folds: Folds of whole groups; what a mode needs is fitted on the others.
        seed: Decides folds and bootstrap draws.
        num_samples: Bootstrap samples of each interval.

    Raises:
        ValueError: If the rows cannot be split, see `member_table.honest_splits`.
    """
    folds = honest_splits(variants, num_folds, seed)
    found = {mode: _out_of_fold(variants, mode, folds) for mode in modes_of(variants)}
    return {
        mode: ModeScore(
            likely,
            paired_difference(
                variants.labels, likely, found[NONE], groups=variants.groups, num_samples=num_samples, seed=seed
            ),
        )
        for mode, likely in found.items()
    }


def choose_mode(scores: dict[str, ModeScore]) -> str:
    """Return the accepted mode with the largest gain, or `none` where no interval lies above 0."""
    accepted = [mode for mode, score in scores.items() if score.accepted]
    return max(accepted, key=lambda mode: scores[mode].over_none.value, default=NONE)


def select_out_of_fold(variants: Variants, num_folds: int, seed: int, num_samples: int = 1000) -> Selection:
    """Choose, fit and use a mode for each fold from the other folds alone: nested cross-validation.

    Args:
        variants: Of held-out rows.
        num_folds: Outer folds; the choice inside has one fold less, so that few groups are enough.
        seed: Decides folds and bootstrap draws.
        num_samples: Bootstrap samples of each interval that a choice looks at.

    Raises:
        ValueError: If the rows cannot be split; the fold is named.
    """
    outer = honest_splits(variants, num_folds, seed)
    probabilities, folds, modes = np.empty(len(variants)), np.empty(len(variants), dtype=np.int64), []
    for number, (fit, held_out) in enumerate(outer):
        others = variants.select(fit)
        try:
            mode = choose_mode(compare_modes(others, max(2, num_folds - 1), seed + 1 + number, num_samples))
        except ValueError as error:
            raise ValueError(
                f"the rows outside fold {number} of {len(outer)} are too few to choose a mode: {error}"
            ) from error
        probabilities[held_out] = combine(variants.select(held_out), fit_aggregation(others, mode))
        folds[held_out] = number
        modes.append(mode)
    return Selection(probabilities, folds, modes)


def _out_of_fold(variants: Variants, mode: str, folds: Sequence[Fold]) -> FloatArray:
    probabilities = np.empty(len(variants))
    for fit, held_out in folds:
        aggregation = fit_aggregation(variants.select(fit), mode)
        probabilities[held_out] = combine(variants.select(held_out), aggregation)
    return probabilities

"""A TTA mode is fitted and chosen on other rows than it is scored on, and accepted only with an interval above 0."""

import dataclasses

import numpy as np
import pytest

from natix_roadwork.inference import tta_acceptance
from natix_roadwork.inference.tta import MODES, Aggregation, combine, fit_aggregation
from natix_roadwork.inference.tta_acceptance import ModeScore, choose_mode, compare_modes, select_out_of_fold
from natix_roadwork.inference.tta_variants import Variants, side_by_side
from natix_roadwork.metrics import PairedDifference
from tests.tta_members import drawn_member, drawn_statistics


def drawn(signal: float, noise: float, rows: int = 160) -> Variants:
    return side_by_side([drawn_member(rows=rows, signal=signal, noise=noise)], {"one": drawn_statistics()})


def test_a_mode_that_helps_is_chosen_everywhere() -> None:
    variants = drawn(signal=1.0, noise=2.0)  # independent noise in sixteen answers: their mean is far better
    scores = compare_modes(variants, 4, seed=0)
    assert tuple(scores) == MODES and not scores["none"].accepted
    assert scores["mean"].accepted and scores["mean"].over_none.value > 0.3
    selection = select_out_of_fold(variants, 4, seed=0, num_samples=200)
    assert choose_mode(scores) in ("mean", "learned", "foods", "knn") and "none" not in selection.modes
    assert sorted(set(selection.folds.tolist())) == [0, 1, 2, 3]


def test_a_mode_that_changes_nothing_is_not_accepted() -> None:
    variants = drawn(signal=1.0, noise=0.0)
    scores = compare_modes(variants, 4, seed=0, num_samples=100)
    assert choose_mode(scores) == "none"
    assert select_out_of_fold(variants, 4, seed=0, num_samples=100).modes == ["none"] * 4


def test_only_intervals_above_0_are_accepted_and_the_largest_gain_wins() -> None:
    def score(value: float, low: float) -> ModeScore:
        return ModeScore(np.zeros(1), PairedDifference(value, low, 2 * value, 0.1))

    assert choose_mode({"none": score(0, 0), "mean": score(0.5, 0.0), "knn": score(0.4, -0.1)}) == "none"
    assert choose_mode({"none": score(0, 0), "mean": score(0.1, 0.05), "knn": score(0.2, 0.01)}) == "knn"


@pytest.mark.parametrize("mode", ["learned", "foods"])
def test_no_row_s_own_label_has_a_part_in_its_score(mode: str) -> None:
    variants = drawn(signal=0.5, noise=1.0)
    before = compare_modes(variants, 4, seed=0, num_samples=10)[mode].probabilities
    selection = select_out_of_fold(variants, 4, seed=0, num_samples=10)
    for number in range(4):
        rows = selection.folds == number
        fitted = fit_aggregation(variants.select(~rows), mode)
        assert np.array_equal(combine(variants.select(rows), fitted), before[rows])


def test_turning_the_labels_of_a_fold_leaves_its_own_answers() -> None:
    variants = drawn(signal=0.7, noise=1.0)
    first = select_out_of_fold(variants, 4, seed=0, num_samples=50)
    rows = first.folds == 2
    labels = np.where(rows, 1 - variants.originals.labels, variants.originals.labels)
    turned = dataclasses.replace(variants, originals=dataclasses.replace(variants.originals, labels=labels))
    fitted = fit_aggregation(turned.select(~rows), first.modes[2])
    assert np.array_equal(combine(turned.select(rows), fitted), first.probabilities[rows])


def test_out_of_fold_rows_are_scored_by_fits_within_their_own_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    member, fitted = drawn_member(rows=320), []
    folds = np.arange(len(member)) // (16 * 160)  # two folds of whole groups
    variants = side_by_side([dataclasses.replace(member, folds=folds)])
    fit = tta_acceptance.fit_aggregation

    def heard(rows: Variants, mode: str) -> Aggregation:
        fitted.append(set(rows.folds[:, 0].tolist()))
        return fit(rows, mode)

    monkeypatch.setattr(tta_acceptance, "fit_aggregation", heard)
    selection = select_out_of_fold(variants, 3, seed=0, num_samples=20)
    assert sorted(set(selection.folds.tolist())) == list(range(6)) and len(selection.modes) == 6
    assert all(len(seen) == 1 for seen in fitted) and len(fitted) > 6


def test_the_same_seed_gives_the_same_choice() -> None:
    variants = drawn(signal=0.7, noise=1.0)
    first, second = (select_out_of_fold(variants, 3, seed=4, num_samples=50) for _ in range(2))
    assert np.array_equal(first.probabilities, second.probabilities) and first.modes == second.modes


def test_too_few_groups_are_named_with_their_fold() -> None:
    with pytest.raises(ValueError, match=r"outside fold 0 of 2 are too few .* in 1 group"):
        select_out_of_fold(drawn(1.0, 1.0, rows=16), 2, seed=0)
    with pytest.raises(ValueError, match="num_folds=9"):
        compare_modes(drawn(1.0, 1.0, rows=32), 9, seed=0)

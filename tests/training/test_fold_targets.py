"""Which rows become folds, and which are refused."""

import dataclasses
from pathlib import Path

import pytest
from datasets import Dataset

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.training.fold_targets import FoldTarget, choose_target, cut_folds


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([1] * 8, "abcdefgh", r"num_folds=2: split 'all rows' has 8 Roadwork \(1\) and 0 None \(0\) rows"),
        ([0, 0, 1, 1, 1, 1], "aabcde", r"num_folds=2: the None rows lie in 1 group\(s\), fewer than num_folds=2"),
        ([0, 0, 1, 1, 1, 1], "abcdef", r"fold 0: no part of its 3 rows can choose the epoch \(selection_share=0.3\)"),
    ],
)
def test_rows_of_one_class_are_named(labels: list[int], groups: str, message: str) -> None:
    names = [f"row{number}" for number in range(len(labels))]
    rows = Dataset.from_dict({"label": labels, "group": list(groups), "row_id": names})
    with pytest.raises(ValueError, match=message):
        cut_folds(FoldTarget("dev", rows, transductive=False), 2, 0.3, seed=0)


def test_lockbox_is_cut_only_if_asked_for(fold_base: Path) -> None:
    rows = load_rows(str(fold_base.parent / "photos"), near_duplicates=False)
    sealed = dataclasses.replace(rows, lockbox=True)
    with pytest.raises(ValueError, match=r"fold_target='test' is a lockbox.*--use_lockbox true"):
        choose_target(sealed, "test", use_lockbox=False)
    assert choose_target(sealed, "test", use_lockbox=True).transductive
    assert set(choose_target(sealed, "elsewhere", use_lockbox=False).rows["split"]) == {"train", "dev"}

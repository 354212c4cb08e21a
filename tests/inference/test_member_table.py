import numpy as np
import pytest

from natix_roadwork.inference.member_table import honest_splits, member_table
from tests.inference.member_rows import changed, fold_numbers, members, prediction


def test_members_stand_side_by_side_in_the_first_ones_order() -> None:
    first, second = members([1.0, 2.0])
    table = member_table([first, second.select(np.arange(len(second))[::-1])])
    assert table.names == ("a", "b") and not table.notes
    np.testing.assert_allclose(table.margins, np.stack([first.margins, second.margins], axis=1))
    np.testing.assert_array_equal(table.pick([1]).margins[:, 0], table.margins[:, 1])
    assert table.take([3, 1]).row_ids.tolist() == first.row_ids[[3, 1]].tolist()


def test_rows_a_member_has_learned_from_are_left_out_counted_and_named() -> None:
    first, second = members([1.0, 2.0], rows=40)
    splits = np.where(np.arange(40) < 12, "train", "dev")
    table = member_table([first, changed(second, splits=splits)])
    assert len(table) == 28 and table.row_ids[0] == "dev/0012.jpg"
    (sentence,) = table.notes
    assert sentence.startswith("member 'b' has learned from 12 of its 40 rows, ['dev/0000.jpg',")


def test_no_honest_row_is_an_error() -> None:
    first, second = members([1.0, 2.0], rows=40)
    learned = changed(second, record={"learned_from": ["train", "dev"]})
    with pytest.raises(ValueError, match="no row to fit on: member 'b' has learned from 40 of its 40"):
        member_table([first, learned])


def test_rows_of_the_test_split_are_left_for_the_final_score() -> None:
    splits = np.where(np.arange(40) < 12, "test", "dev")
    table = member_table([changed(member, splits=splits) for member in members([1.0, 2.0], rows=40)])
    assert len(table) == 28 and table.row_ids[0] == "dev/0012.jpg"
    assert table.notes == ("12 rows of the split 'test' are left for the final score of what is fitted here",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"groups": np.array(["other"] * 40)},
            "row 'dev/0000.jpg' is of group 'g000' in member 'a' and of 'other' in 'b'",
        ),
        ({"transforms": np.arange(40)}, r"member 'b': row 'dev/0001.jpg' has transform 1 \(39 such lines\)"),
        ({"row_ids": np.array([f"test/{row}.jpg" for row in range(40)])}, "member 'b' lacks 40 of the 40 rows"),
        ({"labels": np.ones(40, dtype=np.int64)}, "has label 0 in member 'a' and 1 in 'b'"),
    ],
)
def test_members_that_do_not_fit_are_named(values: dict, message: str) -> None:
    first, second = members([1.0, 2.0], rows=40)
    with pytest.raises(ValueError, match=message):
        member_table([first, changed(second, **values)])


def test_one_member_or_one_class_is_no_ensemble() -> None:
    first, second = members([1.0, 2.0], rows=40)
    with pytest.raises(ValueError, match="members holds 1 prediction files"):
        member_table([first])
    ones = np.ones(40, dtype=np.int64)
    with pytest.raises(ValueError, match="split 'held-out rows of all members' has 40 Roadwork"):
        member_table([changed(first, labels=ones), changed(second, labels=ones)])


def test_folds_that_differ_or_cut_a_group_are_named() -> None:
    first, second = members([1.0, 2.0], rows=80, num_folds=4)
    with pytest.raises(ValueError, match=r"row 'train/0000\.jpg' is in fold 2 of member 'a' and in 0 of 'b'"):
        member_table(
            [
                changed(first, folds=(first.folds - first.folds[0] + 2) % 4),
                changed(second, folds=(second.folds - second.folds[0]) % 4),
            ]
        )
    cut = np.arange(80) % 4
    with pytest.raises(ValueError, match=r"member 'a': group 'g000' lies in the folds \['0', '1', '2', '3'\]"):
        member_table([changed(first, folds=cut), changed(second, folds=cut)])


def _check(table: object, splits: list) -> None:
    """Each row is scored once and no group is on both sides."""
    assert sorted(np.concatenate([scored for _, scored in splits]).tolist()) == list(range(len(table)))
    for fit, scored in splits:
        assert not set(table.groups[fit]) & set(table.groups[scored])
        assert len(set(table.labels[fit])) == len(set(table.labels[scored])) == 2


def test_rows_that_taught_no_member_are_split_as_usual() -> None:
    table = member_table(members([1.0, 2.0]))
    splits = honest_splits(table, 5, seed=0)
    _check(table, splits)
    assert [len(fit) + len(scored) for fit, scored in splits] == [240] * 5


def test_out_of_fold_rows_are_scored_by_fits_on_their_own_fold() -> None:
    table = member_table(members([1.0, 2.0], num_folds=4))
    splits = honest_splits(table, 3, seed=0)
    _check(table, splits)
    assert len(splits) == 12
    for fit, scored in splits:
        assert len(np.unique(table.folds[np.concatenate([fit, scored])], axis=0)) == 1


def test_rows_that_taught_nothing_are_scored_by_fits_on_all_rows() -> None:
    """A base model that never saw dev, beside one fine-tuned in folds on part of dev."""
    first, second = members([1.0, 2.0])
    folds = np.where(np.arange(240) < 120, -1, fold_numbers(first.labels, 3))
    table = member_table([first, changed(second, folds=folds)])
    splits = honest_splits(table, 2, seed=0)
    _check(table, splits)
    for fit, scored in splits:
        fold = table.folds[scored[0], 1]
        assert (table.folds[scored, 1] == fold).all()
        expected = table.folds[:, 1] == fold if fold >= 0 else np.ones(240, dtype=bool)
        assert set(fit) == set(np.flatnonzero(expected)) - set(scored)


def test_a_part_without_a_class_names_the_fold() -> None:
    labels = np.repeat(np.arange(20) % 2, 4)
    folds = np.repeat(np.arange(20) // 10, 4)
    labels[folds == 1] = 1
    made = [prediction(name, labels, labels, folds) for name in "ab"]
    with pytest.raises(
        ValueError, match="the 40 rows of fold 1 cannot be cut into 3 parts: split 'all rows' has 40 Roadwork"
    ):
        honest_splits(member_table(made), 3)

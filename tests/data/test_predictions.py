import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from natix_roadwork.data.predictions import Predictions, aligned, read_predictions, write_predictions


def member(name: str = "one", rows: int = 6, width: int = 4, **changes: object) -> Predictions:
    rng = np.random.default_rng(0)
    made = Predictions(
        member=name,
        row_ids=np.array([f"dev/{row}.jpg" for row in range(rows)]),
        labels=np.arange(rows) % 2,
        groups=np.array([f"g{row // 2}" for row in range(rows)]),
        splits=np.array(["dev"] * rows),
        logits=rng.normal(size=(rows, 2)).astype(np.float32),
        embeddings=rng.normal(size=(rows, width)).astype(np.float32),
        folds=np.full(rows, -1),
        transforms=np.zeros(rows, dtype=np.int64),
        record={"learned_from": ["train"]},
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("width", [0, 4])
def test_a_file_gives_back_what_was_written_to_the_bit(tmp_path: Path, width: int) -> None:
    made = member(width=width)
    write_predictions(tmp_path / "a.arrow", made)
    write_predictions(tmp_path / "b.arrow", made)
    found = read_predictions(tmp_path / "a.arrow")
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(made, field.name))
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    logits = np.array([[0.0, 0.0], [-400.0, 400.0], [1.0, -1.0]], dtype=np.float32)
    found = member(rows=3, logits=logits).probabilities
    np.testing.assert_allclose(found, [0.5, 1.0, 1 / (1 + np.exp(2.0))], rtol=1e-12)


def test_rows_are_held_out_when_out_of_fold_or_of_a_split_that_taught_nothing() -> None:
    splits, folds = np.array(["train", "train", "dev", "test"]), np.array([-1, 2, -1, -1])
    made = member(rows=4, splits=splits, folds=folds)
    assert made.held_out.tolist() == [False, True, True, True]
    chosen_on_dev = dataclasses.replace(made, record={"learned_from": ["train", "dev"]})
    assert chosen_on_dev.held_out.tolist() == [False, True, False, True]
    assert dataclasses.replace(made, record={}).held_out.tolist() == [False, True, False, True]


def test_members_are_brought_to_one_order() -> None:
    first = member()
    second = dataclasses.replace(first.select(np.array([3, 0, 5, 1, 4, 2])), member="two")
    moved = aligned([first, second])[1]
    np.testing.assert_array_equal(moved.row_ids, first.row_ids)
    np.testing.assert_array_equal(moved.logits, first.logits)


def test_members_that_do_not_fit_are_named() -> None:
    first, second = member(), member("two")
    with pytest.raises(ValueError, match=r"member 'two' lacks 2 of the 6 rows of member 'one', \['dev/0.jpg'"):
        aligned([first, second.select(np.arange(2, 6))])
    with pytest.raises(ValueError, match=r"row 'dev/0.jpg' has label 0 in member 'one' and 1 in 'two'"):
        aligned([first, dataclasses.replace(second, labels=1 - second.labels)])
    with pytest.raises(ValueError, match="two members are called 'one'"):
        aligned([first, first])


def test_bad_values_name_member_and_row() -> None:
    logits = np.zeros((6, 2), dtype=np.float32)
    logits[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"member 'one': row 'dev/4.jpg' has logits \[0.0, nan\]"):
        member(logits=logits)
    with pytest.raises(ValueError, match="row 'a' occurs 6 times with transform 0"):
        member(row_ids=np.array(["a"] * 6))
    with pytest.raises(ValueError, match="6 row ids, but logits"):
        member(logits=np.zeros((5, 2), dtype=np.float32))


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.arrow").write_text("no")
    with pytest.raises(ValueError, match=r"text.arrow cannot be read as predictions"):
        read_predictions(tmp_path / "text.arrow")
    table = pa.table({"row_id": ["a"]})
    with pa.OSFile(str(tmp_path / "other.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=r"other.arrow is no predictions file: it lacks \['label'"):
        read_predictions(tmp_path / "other.arrow")

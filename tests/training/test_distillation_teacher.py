"""Which of a teacher's answers may teach: out of fold, matched by row id, refused by name."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from natix_roadwork.data.predictions import write_predictions
from natix_roadwork.training.distillation_teacher import read_teacher, teacher_on, teacher_values
from tests.student_runs import ROWS, teacher


def rows(split: str, order: list[int] | None = None) -> Dataset:
    numbers = list(range(ROWS[split])) if order is None else order
    return Dataset.from_dict(
        {"row_id": [f"{split}/{row}.png" for row in numbers], "label": [row % 2 for row in numbers]}
    )


def test_answers_are_matched_by_row_id() -> None:
    made, order = teacher(), [7, 3, 20]
    found = teacher_values([made], rows("train", order), rows("dev"))
    np.testing.assert_array_equal(found.logits, made.logits[order])
    assert found.usable.all() and not found.warnings and found.width == 4
    assert abs(found.embeddings.mean(axis=0)).max() < 1e-5


def test_members_are_averaged() -> None:
    first, second = teacher(), teacher(name="other", seed=5)
    found = teacher_values([first, second], rows("train"), rows("dev"))
    np.testing.assert_allclose(found.logits, (first.logits[:32] + second.logits[:32]) / 2, rtol=1e-5)
    assert found.width == 8 and found.record["members"] == ["teacher", "other"]


def test_an_ensemble_may_combine_them() -> None:
    found = teacher_values([teacher()], rows("train"), rows("dev"), combine=lambda members: 2 * members[0].margins)
    np.testing.assert_allclose(np.diff(found.logits)[:, 0], 2 * teacher().margins[:32], rtol=1e-5)


def test_answers_to_learned_rows_are_refused_by_name() -> None:
    folds = teacher().folds.copy()
    folds[:5] = -1
    made = teacher(folds=folds)
    found = teacher_values([made], rows("train"), rows("dev"))
    assert found.usable.sum() == 27 and not found.usable[:5].any() and not found.logits[:5].any()
    assert "5 of 32 train rows, ['train/0.png'" in found.warnings[0] and found.record["refused_rows"] == 5
    allowed = teacher_values([made], rows("train"), rows("dev"), allow_in_sample=True)
    assert allowed.usable.all() and allowed.record["in_sample_rows"] == 5 and "allow_in_sample" in allowed.warnings[0]


def test_a_teacher_that_has_learned_everything_is_an_error() -> None:
    made = teacher(folds=np.full(44, -1))
    with pytest.raises(ValueError, match=r"learned from 32 of 32 train rows.*allow_in_sample_teacher"):
        teacher_values([made], rows("train"), rows("dev"))


def test_rows_without_an_answer_are_counted() -> None:
    found = teacher_values([teacher({"train": 20})], rows("train"), rows("dev"))
    assert found.record["missing_rows"] == 12 and "12 of 32 train rows have no prediction" in found.warnings[0]


def test_other_labels_are_an_error() -> None:
    labels = teacher().labels.copy()
    labels[4] = 1
    with pytest.raises(ValueError, match=r"'train/4.png' has label 0 here and 1"):
        teacher_values([teacher(labels=labels)], rows("train"), rows("dev"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"record": {"learned_from": ["train", "dev"]}}, "12 dev rows, .'dev/0.png'"),
        ({"folds": np.zeros(44, dtype=np.int64)}, "12 dev rows in the folds"),
    ],
)
def test_a_teacher_that_has_met_dev_labels_is_told(values: dict, told: str) -> None:
    found = teacher_values([teacher(**values)], rows("train"), rows("dev"))
    assert any(told.replace(".'", "['") in text and "optimistic" in text for text in found.warnings)


def test_teacher_is_scored_on_dev_only_where_it_is_honest() -> None:
    made = teacher()
    np.testing.assert_array_equal(teacher_on([made], rows("dev")).logits, made.logits[32:])
    assert teacher_on([teacher(record={"learned_from": ["train", "dev"]})], rows("dev")) is None
    assert teacher_on([teacher({"train": 32})], rows("dev")) is None


def test_tta_lines_are_left_out(tmp_path: Path) -> None:
    made = teacher({"train": 4}, transforms=np.array([0, 0, 1, 1]))
    write_predictions(tmp_path / "tta.arrow", made)
    assert read_teacher([tmp_path / "tta.arrow"])[0].row_ids.tolist() == ["train/0.png", "train/1.png"]


def test_no_file_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"predictions is empty.*recipes/predict\.py"):
        read_teacher([])

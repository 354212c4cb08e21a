"""Teachers of a student: train rows predicted out of fold, in one space of embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import ortho_group
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.cross_fitting import CrossFold
from natix_roadwork.training.distillation_teacher import read_teacher, teacher_on, teacher_values
from natix_roadwork.training.teacher_folds import FoldAnswers, TeacherFoldsArguments, out_of_fold
from natix_roadwork.training.yaml_args import parse_recipe
from tests.recipe_photos import write_photos
from tests.student_runs import ROOT, recipe


KINDS = (TeacherFoldsArguments, RoadworkTrainingArguments)


def command(folder: Path, **settings: object) -> list[str]:
    own = {
        "dataset_name": folder / "photos",
        "backbone_id": folder / "backbone",
        "output_dir": folder / "teacher",
        "feature_cache": folder / "tokens",
        "view_size": 32,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_attention_layers": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 3,
        "learning_rate": 3e-3,
        "selection_share": 0.3,
        "num_folds": 2,
        "gps_sampling": "off",
        "use_cpu": "true",
        "disable_tqdm": "true",
    }
    pairs = [f"--{key}={value}" for key, value in (own | settings).items()]
    return ["--config", str(ROOT / "recipes" / "pretrain" / "model_1_baseline.yaml"), *pairs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("teacher")
    write_photos(made / "photos", {"train": 20, "dev": 8})
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    DINOv3ViTModel(DINOv3ViTConfig(patch_size=16, image_size=32, **sizes)).save_pretrained(made / "backbone")
    recipe("teacher_folds").main(command(made))
    return made


def test_every_train_row_is_out_of_fold_and_dev_is_unseen(folder: Path) -> None:
    found = read_predictions(folder / "teacher" / "teacher.arrow")
    train = found.splits == "train"
    assert train.sum() == 20 and set(found.folds[train]) == {0, 1} and (found.folds[~train] == -1).all()
    assert found.held_out.all() and found.embeddings.shape == (28, 16)
    assert found.record["learned_from"] == ["train"]


def test_a_student_can_learn_from_it_without_a_warning(folder: Path) -> None:
    members = read_teacher([folder / "teacher" / "teacher.arrow"])
    train, dev = (
        Dataset.from_dict({"row_id": part.row_ids.tolist(), "label": part.labels.tolist()})
        for part in (members[0].select(members[0].splits == name) for name in ("train", "dev"))
    )
    values = teacher_values(members, train, dev)
    assert values.usable.all() and not values.warnings and teacher_on(members, dev) is not None


def test_result_has_both_splits(folder: Path) -> None:
    result = json.loads((folder / "teacher" / "result.json").read_text())
    assert set(result["metrics"]) == {"train", "dev"} and result["metrics"]["dev"]["mcc"]["value"] is not None


def test_an_earlier_run_or_a_model_is_not_overwritten(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher\.arrow of an earlier run"):
        recipe("teacher_folds").main(command(folder))
    with pytest.raises(ValueError, match="holds a model"):
        recipe("teacher_folds").main(command(folder, output_dir=folder / "backbone", existing_run="overwrite"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metadata_fields": "weather"}, "the student sees the photo alone"),
        ({"selection_share": 0}, "each fold needs"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(command(tmp_path, **settings), KINDS)


def test_embeddings_of_all_folds_are_turned_into_one_space() -> None:
    """Two heads with the same embedding but for a rotation and a shift give one embedding."""
    draw = np.random.default_rng(0)
    train, dev = draw.normal(size=(40, 6)), draw.normal(size=(10, 6))
    turn, logits = ortho_group.rvs(6, random_state=0), np.zeros((40, 2))
    answers = [
        FoldAnswers(logits, train @ turned + shift, logits[:10], dev @ turned + shift)
        for turned, shift in ((np.eye(6), 0.0), (turn, 3.0))
    ]
    rows = np.arange(40)
    folds = [CrossFold(str(part), rows, rows[:0], rows[rows % 2 == part]) for part in (0, 1)]
    splits = {
        name: Dataset.from_dict(
            {column: [f"{name}{row}" for row in range(count)] for column in ("row_id", "group")}
            | {"label": [row % 2 for row in range(count)], "split": [name] * count}
        )
        for name, count in (("train", 40), ("dev", 10))
    }
    found = out_of_fold(answers, folds, splits, "teacher", "0")
    np.testing.assert_allclose(found.embeddings[:40], train - train.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.embeddings[40:], dev - train.mean(axis=0), atol=1e-5)

"""A night specialist and a model that reads a detector's figures, from training to the ensemble."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.extra_evidence import ExtraEvidence, write_extra_evidence
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.ensemble import fit_ensemble
from natix_roadwork.inference.member_table import member_table
from natix_roadwork.inference.predict import predict
from natix_roadwork.runs import read_result
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetune_inputs import FinetuneInputs, data_settings, load_base, prepare_folds
from natix_roadwork.training.pretraining import pretrain
from natix_roadwork.training.yaml_args import parse_recipe
from tests.dark_photos import write_dark_photos
from tests.fold_runs import COMMON, fold_command, pairs, run_folds, train_base
from tests.recipe_photos import write_photos


ROOT = Path(__file__).parents[2]


def write_rows(folder: Path, num_rows: object) -> Path:
    return write_dark_photos(folder, {"train": 60, "dev": 72, "test": 6})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train_base(tmp_path_factory.mktemp("night_base"), write_rows)


def train(base: Path, output: Path, recipe: str = "night.yaml", **keys: object) -> dict:
    """A tiny run of a recipe on the base's photos and backbone."""
    own = {"dataset_name": base.parent / "photos", "backbone_id": base.parent / "backbone", "output_dir": output}
    own |= {"view_size": 32, "hidden_size": 16, "num_attention_heads": 2, "num_attention_layers": 1, "max_steps": 3}
    own |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "baselines": "false", "bf16": "false"}
    own |= {"gps_sampling": "off", "feature_cache": output.parent / "tokens", "darkest_share": 0.4}
    command = ["--config", str(ROOT / "recipes" / "pretrain" / recipe), *pairs(COMMON | own | keys)]
    return pretrain(*parse_recipe(command, (PretrainArguments, RoadworkTrainingArguments))).details


def predicted(base: Path, model: Path, **keys: object) -> Path:
    """Predictions of all dev rows."""
    settings = PredictArguments(
        model=str(model), dataset_name=str(base.parent / "photos"), use_cpu=True, near_duplicates=True,
        output_dir=str(model.parent / f"{model.name}_dev"), seed=42, existing_run="overwrite", **keys,
    )  # fmt: skip
    predict(settings)
    return settings.path


def test_the_recipe_s_specialist_is_a_member_of_an_ensemble(base: Path, tmp_path: Path) -> None:
    details = train(base, tmp_path / "night", selection_share=0.2, feature_draws=1)
    assert details["brightness"]["bright_weight"] == 0.2 and details["learned_from"] == ["train"]
    figures = details["brightness"]["dev"]
    assert sum(sum(part["rows"].values()) for part in figures.values()) == 72
    assert figures["dark"]["metrics"]["mcc"]["low"] is not None
    files = [predicted(base, base), predicted(base, tmp_path / "night")]
    members = [read_predictions(path) for path in files]
    assert [len(member) for member in members] == [72, 72] and members[1].member == "night"
    ensemble = fit_ensemble(member_table(members), "mean", fitted_on=("dev",))
    assert list(ensemble.members) == ["base", "night"]


def test_fold_adapters_learn_from_dark_rows_and_answer_all(base: Path, tmp_path: Path) -> None:
    keys = {
        "darkest_share": 0.5,
        "selection_share": 0.2,
        "feature_draws": 0,
        "augmentation": "none",
        "fold_target": "dev",
    }
    result = run_folds(base, tmp_path / "folds", min_weight_change=0, bright_weight=0, **keys)
    found = result.details["brightness"]
    assert sum(found["rows"]["dark"].values()) == 36 and sum(found["trained_on"]["other"].values()) == 0
    assert {sum(part["rows"].values()) for part in found["out_of_fold"].values()} == {36}
    assert found["base"]["dark"]["metrics"]["auc"]["low"] is not None
    assert len(read_predictions(tmp_path / "folds" / "oof.arrow")) == 72
    dark = [fold["rows"]["fit"] for fold in result.details["folds"]]
    assert all(count < 36 for count in dark)


def evidence_file(base: Path, path: Path, names: tuple[str, ...] = ("seen", "score")) -> str:
    """Figures of all rows but one: in the first stands the label."""
    splits = load_rows(str(base.parent / "photos"), near_duplicates=False).splits
    ids = np.concatenate([np.array(split["row_id"][:]) for split in splits.values()])
    labels = np.concatenate([np.array(split["label"][:]) for split in splits.values()])
    values = np.stack([labels] + [np.ones_like(labels)] * (len(names) - 1), axis=1)[:, None].astype(np.float32)
    write_extra_evidence(path, ExtraEvidence(ids[1:], values[1:], names))
    return str(path)


def test_a_model_reads_a_detector_s_figures(base: Path, tmp_path: Path) -> None:
    file = evidence_file(base, tmp_path / "evidence.arrow")
    keys = {"extra_evidence": file, "darkest_share": "null", "augmentation": "none", "feature_draws": 0}
    keys |= {
        "max_steps": 60,
        "early_stopping_patience": 0,
        "learning_rate": 1e-2,
        "whole_metadata_dropout": 0.0,
        "selection_share": 0.2,
    }
    details = train(base, tmp_path / "reader", **keys)
    found = details["extra_evidence"]
    assert found["names"] == ["seen", "score"] and sum(found["coverage"]["train"]["missing"].values()) == 1
    model = RoadworkForImageClassification.from_pretrained(tmp_path / "reader")
    assert model.config.extra_evidence_size == 2
    told = read_predictions(predicted(base, tmp_path / "reader", extra_evidence=file))
    assert roc_auc_score(told.labels, told.probabilities) == 1.0, "the figures are the label"
    alone = read_predictions(predicted(base, tmp_path / "reader"))
    assert roc_auc_score(alone.labels, alone.probabilities) < 1.0
    record = read_result(tmp_path / "reader_dev" / "result.json")
    assert any("reads extra evidence, and got none" in warning for warning in record.warnings)
    told = read_result(tmp_path / "reader" / "result.json").warnings
    assert any("photos with figures of detectors, where they have it; a bare photo" in text for text in told)


def test_figures_of_another_detector_are_refused(base: Path, tmp_path: Path) -> None:
    other = evidence_file(base, tmp_path / "other.arrow", names=("a", "b", "c"))
    with pytest.raises(ValueError, match="has 3 figures a piece, the model reads 0"):
        predicted(base, base, extra_evidence=other)


def folds_of(model: Path, output: Path, **keys: object) -> FinetuneInputs:
    command = fold_command(model, output, feature_cache="off", feature_draws=0, **keys)
    return prepare_folds(*parse_recipe(command, (FinetuneArguments, RoadworkTrainingArguments)))


def test_a_target_set_of_its_own_does_not_read_the_base_s_figures(base: Path, tmp_path: Path) -> None:
    file = evidence_file(base, tmp_path / "evidence.arrow")
    keys = {"darkest_share": "null", "augmentation": "none", "feature_draws": 0, "selection_share": 0.2}
    train(base, tmp_path / "reader", extra_evidence=file, **keys)
    other = write_photos(tmp_path / "other", {"train": 20, "dev": 8})
    ids = np.array([f"train/{row}.png" for row in range(20)])
    own = str(tmp_path / "own.arrow")
    write_extra_evidence(own, ExtraEvidence(ids, np.full((20, 1, 2), 7, np.float32), ("seen", "score")))
    model, target = tmp_path / "reader", {"fold_target": other}
    assert folds_of(model, tmp_path / "dev").rows.read([1])["extra_evidence"].shape == (1, 1, 2)
    assert "extra_evidence" not in folds_of(model, tmp_path / "none", **target).rows.read([0])
    told = folds_of(model, tmp_path / "folds", extra_evidence=own, bad_masks="ignore", **target).rows.read([0])
    assert (told["extra_evidence"] == 7).all()
    wide = evidence_file(base, tmp_path / "wide.arrow", names=("a", "b", "c"))
    with pytest.raises(ValueError, match="has 3 figures a piece, the model reads 2"):
        folds_of(model, tmp_path / "wide", extra_evidence=wide)


def test_bad_masks_are_the_base_s_unless_named(base: Path) -> None:
    settings = FinetuneArguments(base_model=str(base))
    assert data_settings(settings, load_base(settings)).bad_masks == "refuse"
    settings.bad_masks = "ignore"
    assert data_settings(settings, load_base(settings)).bad_masks == "ignore"

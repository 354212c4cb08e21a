"""The prediction recipe as a user starts it."""

import importlib.util
from pathlib import Path

import pytest
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.predictions import read_predictions
from tests.saved_member import member_and_photos, result_of


ROOT = Path(__file__).parents[1]


def test_recipe_predicts_and_prints_a_table(
    tmp_path: Path, tiny_model: RoadworkForImageClassification, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    asked = member_and_photos(tmp_path, tiny_model, member="quickstart")
    spec = importlib.util.spec_from_file_location("predict_recipe", ROOT / "recipes" / "predict.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    names = ("model", "dataset_name", "output_dir", "near_duplicates")
    pairs = [f"--{name}={getattr(asked, name)}" for name in names]
    config = ["--config", str(ROOT / "recipes" / "predict" / "quickstart.yaml")]
    recipe.main([*config, *pairs, "--feature_cache", str(tmp_path / "tokens"), "--splits", "dev", "test"])
    printed = capsys.readouterr().out
    assert "MCC [95 % interval]" in printed and str(asked.path) in printed and "warning: " in printed
    assert read_predictions(asked.path).splits.tolist() == ["dev"] * 8 + ["test"] * 8
    assert result_of(asked)["config"]["splits"] == ["dev", "test"]

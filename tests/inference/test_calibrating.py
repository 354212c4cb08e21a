"""`recipes/calibrate.py`: a saved model whose best cut lies at 0.5, and the score of doing so."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.predictions import write_predictions
from natix_roadwork.inference.calibrating import CalibrateArguments, fit_map
from natix_roadwork.inference.member import load_member
from natix_roadwork.training.yaml_args import parse_recipe
from tests.inference.member_rows import changed, group_labels, prediction
from tests.saved_member import save_member


ROOT = Path(__file__).parents[2]
ROWS, CUT = 400, 5.0


@pytest.fixture
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibrate_recipe", ROOT / "recipes" / "calibrate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tmp_path: Path, tiny_model: RoadworkForImageClassification) -> Path:
    return save_member(tmp_path / "model", tiny_model)


def write(path: Path, model: Path, share: float = 0.6, seed: int = 0, **values: object) -> str:
    """Margins of which 5 is the best cut, four times too sure."""
    rng = np.random.default_rng(seed)
    labels = group_labels(ROWS, share, rng)
    margins = CUT + 4.0 * ((2.0 * labels - 1.0) + rng.normal(size=ROWS))
    record = {"learned_from": ["train"], "model_sha256": load_member(str(model)).sha256}
    write_predictions(path, changed(prediction("m", margins, labels), **{"record": record, **values}))
    return str(path)


def run(recipe: ModuleType, folder: Path, model: Path, predictions: str, *words: str) -> dict:
    recipe.main(["--model", str(model), "--predictions", predictions, "--output_dir", str(folder / "out"), *words])
    return json.loads((folder / "out" / "result.json").read_text())


@pytest.mark.parametrize("method", ["cut", "platt", "temperature"])
def test_the_saved_model_has_the_map_in_its_last_layer(
    recipe: ModuleType, model: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write(tmp_path / "dev.arrow", model)
    result = run(recipe, tmp_path, model, predictions, "--method", method)
    views = torch.randn(3, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (
            RoadworkForImageClassification.from_pretrained(folder).eval()(views).logits.diff(dim=1)
            for folder in (model, tmp_path / "out")
        )
    mapping = result["details"]["map"]
    torch.testing.assert_close(after, mapping["scale"] * before + mapping["offset"], rtol=1e-4, atol=1e-5)
    assert RoadworkImageProcessor.from_pretrained(tmp_path / "out").do_normalize
    assert result["metrics"]["held_out"]["ece"]["value"] < result["baselines"]["as it was"]["held_out"]["ece"]["value"]
    assert "as it was" in capsys.readouterr().out


def test_the_best_cut_lies_at_half_on_rows_that_were_not_fitted(
    recipe: ModuleType, model: Path, tmp_path: Path
) -> None:
    result = run(recipe, tmp_path, model, write(tmp_path / "dev.arrow", model))
    mapping = result["details"]["map"]
    assert -mapping["offset"] / mapping["scale"] == pytest.approx(CUT, abs=1.5)
    assert result["details"]["difference"]["mcc"]["low"] > 0
    assert result["details"]["learned_from"] == ["dev", "train"]


def test_the_share_of_roadwork_in_use_is_estimated_without_labels(
    recipe: ModuleType, model: Path, tmp_path: Path
) -> None:
    dev = write(tmp_path / "dev.arrow", model, share=0.8)
    target = write(tmp_path / "target.arrow", model, share=0.5, seed=1)
    result = run(recipe, tmp_path, model, dev, "--target_predictions", target, "--method", "platt")
    assert result["details"]["target_prior"] == pytest.approx(0.5, abs=0.08)
    shares = [
        (1 / (1 + np.exp(-fit_map(m, labels, labels.astype(str), "platt", prior)(m)))).mean()
        for prior in (0.8, 0.5)
        for m, labels in [(4.0 * np.array([-1.0, 1, 1, 1, 1]), np.array([0, 1, 1, 1, 1]))]
    ]
    assert shares[0] > shares[1]


def test_rows_that_taught_the_model_and_test_rows_are_left_out(
    recipe: ModuleType, model: Path, tmp_path: Path
) -> None:
    splits = np.repeat(["train", "test", "dev"], [100, 100, 200])
    result = run(recipe, tmp_path, model, write(tmp_path / "all.arrow", model, splits=splits))
    assert result["details"]["rows"] == 200
    assert [text.split(":")[0] for text in result["warnings"]] == ["100 rows left out"] * 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"record": {"learned_from": ["train"], "model_sha256": "0" * 64}}, "are of the model 000000000000"),
        ({"splits": np.array(["train"] * ROWS)}, "no row to calibrate on; 400 rows left out: the model has learned"),
        ({"labels": np.ones(ROWS, np.int64)}, "split 'held-out rows' has 400 Roadwork"),
    ],
)
def test_predictions_that_do_not_serve_are_refused(
    recipe: ModuleType, model: Path, tmp_path: Path, values: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(recipe, tmp_path, model, write(tmp_path / "dev.arrow", model, **values))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target_prior", "1.0"], r"target_prior=1\.0 is not a share"),
        (["--target_prior", "0.5", "--target_predictions", "x"], "give one"),
        (["--num_folds", "1"], "num_folds=1"),
        (["--output_dir", "m"], "the model's own folder"),
    ],
)
def test_bad_settings_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(["--model", "m", "--predictions", "p", *words], [CalibrateArguments])


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "calibrate").glob("*.yaml")), ids=lambda path: path.stem)
def test_variants_parse(path: Path) -> None:
    (arguments,) = parse_recipe(["--config", str(path)], [CalibrateArguments])
    assert arguments.model.startswith("runs/")

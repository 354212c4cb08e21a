"""`recipes/ensemble.py` from prediction files to its table, its JSON file and its record."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from natix_roadwork.data.predictions import read_predictions, write_predictions
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.ensemble_report import EnsembleArguments
from natix_roadwork.runs import compare_results, read_result
from natix_roadwork.training.members import parse_members
from natix_roadwork.training.yaml_args import parse_recipe
from tests.inference.member_rows import changed, members


ROOT = Path(__file__).parents[2]
FAST = ["--num_folds", "3", "--num_samples", "50", "--methods", "stacking", "mean"]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ensemble_recipe", ROOT / "recipes" / "ensemble.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three members; the second has learned from 40 of the 240 rows."""
    folder = tmp_path_factory.mktemp("predictions")
    first, second, third = members([0.8, 1.0, 0.6])
    second = changed(second, splits=np.where(np.arange(240) < 40, "train", "dev"))
    paths = []
    for member in (first, second, third):
        write_predictions(folder / f"{member.member}.arrow", member)
        paths.append(str(folder / f"{member.member}.arrow"))
    return paths


def test_recipe_scores_saves_and_prints(
    recipe: ModuleType, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for run in ("one", "two"):
        recipe.main(["--predictions", *files, "--output_dir", str(tmp_path / run), "--target_prior", "0.5", *FAST])
    printed = capsys.readouterr().out
    for text in (
        "member 'b' has learned from 40 of its 240 rows",
        "200 rows held out",
        "a, as it is",
        "stacking ",
        "a | b",
    ):
        assert text in printed
    results = [read_result(tmp_path / run / "result.json") for run in ("one", "two")]
    assert compare_results(*results) == []
    assert set(results[0].metrics["held_out"]["mcc"]) == {"value", "low", "high"}
    assert {"mean", "best_member", "a, as it is", "a, tuned"} <= set(results[0].baselines)
    assert set(results[0].details["added_by_member"]) == {"a", "b", "c"}
    assert results[0].warnings == [
        "member 'b' has learned from 40 of its 240 rows, ['dev/0000.jpg', 'dev/0001.jpg', 'dev/0002.jpg'] among them"
    ]
    ensemble = Ensemble.load(tmp_path / "one" / "ensemble.json")
    assert (ensemble.method, ensemble.target_prior, ensemble.num_rows) == ("stacking", 0.5, 200)
    assert ensemble.fitted_on == ("dev",)
    assert len(ensemble.combine([read_predictions(path) for path in files])) == 240
    assert json.loads((tmp_path / "one" / "ensemble.json").read_text()) == results[0].details["ensemble"]


RECIPES = sorted((ROOT / "recipes" / "ensemble").glob("*.yaml"))
LISTS = [path for path in RECIPES if path.stem.endswith("members")]


@pytest.mark.parametrize("path", sorted(set(RECIPES) - set(LISTS)), ids=lambda path: path.stem)
def test_variants_parse(path: Path) -> None:
    (arguments,) = parse_recipe(["--config", str(path)], [EnsembleArguments])
    members = 7 if path.stem == "night" else 6
    assert len(arguments.predictions) == members and arguments.output_dir.startswith("runs/")


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_lists_of_members_parse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ensemble's files are named by the members of the list beside it."""
    monkeypatch.chdir(ROOT)
    _, members = parse_members(["--config", str(path), "--use_cpu", "true"])
    combined = path.with_name({"members": "natix.yaml", "quickstart_members": "quickstart.yaml"}[path.stem])
    (arguments,) = parse_recipe(["--config", str(combined)], [EnsembleArguments])
    assert [member.name for member in members] == [Path(name).stem for name in arguments.predictions]
    assert all(member.settings["selection_share"] > 0 for member in members)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "mean", "median"], r"methods=\['mean', 'median'\]; name one or more of mean, weighted"),
        (["--methods", "mean", "mean"], "each once"),
        (["--target_prior", "1.5"], r"target_prior=1\.5 is not between 0 and 1"),
        (["--num_folds", "1"], "num_folds=1"),
        (["--num_folds", "60"], "the 200 rows of a split that taught no member cannot be cut into 60 parts"),
    ],
)
def test_bad_settings_are_named(
    recipe: ModuleType, files: list[str], tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.main(["--predictions", *files, "--output_dir", str(tmp_path), *words])
    assert not list(tmp_path.iterdir())

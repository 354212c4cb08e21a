"""`recipes/simulate_rewards.py` from prediction files or a model's folder to its table and its record."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.predictions import read_predictions, write_predictions
from natix_roadwork.inference.challenge_answers import FolderAnswers
from natix_roadwork.inference.ensemble import fit_ensemble
from natix_roadwork.inference.member_table import member_table
from natix_roadwork.inference.simulation_arguments import SimulateArguments
from natix_roadwork.runs import RunResult, compare_results, read_result
from natix_roadwork.subnet import challenge
from natix_roadwork.training.yaml_args import parse_recipe
from tests.inference.member_rows import changed, members
from tests.recipe_photos import write_photos
from tests.saved_member import record_training, save_member
from tests.stock_folders import save_brightness_model, save_stock


ROOT = Path(__file__).parents[2]
FAST = ["--num_challenges", "200", "--num_sequences", "60", "--num_samples", "20"]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate_recipe", ROOT / "recipes" / "simulate_rewards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two members; the second has learned from 40 of the 240 rows, 20 of which are of `test`."""
    folder = tmp_path_factory.mktemp("predictions")
    first, second = members([2.5, 1.5])
    second = changed(second, splits=np.where(np.arange(240) < 40, "train", "dev"))
    first = changed(first, splits=np.where(np.arange(240) < 20, "test", "dev"))
    for member in (first, second):
        write_predictions(folder / f"{member.member}.arrow", member)
    return [str(folder / f"{name}.arrow") for name in "ab"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_brightness_model(tmp_path_factory.mktemp("bright"))


def _run(recipe: ModuleType, out: Path, *words: object) -> RunResult:
    recipe.main([*map(str, words), "--output_dir", str(out), *FAST])
    return read_result(out / "result.json")


def _model(recipe: ModuleType, out: Path, model: Path, photos: Path, *words: object) -> RunResult:
    rows = ("--dataset_name", photos, "--near_duplicates", "false", "--use_cpu", "true", "--seed", "0")
    return _run(recipe, out, "--model", model, *rows, *words)


def test_members_are_simulated_apart_on_held_out_rows(
    recipe: ModuleType, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _run(recipe, tmp_path / "one", "--predictions", *files)
    printed = capsys.readouterr().out
    assert result.data["counts"] == {"a": 220, "b": 200}
    assert result.metrics["a"]["mean_reward"]["value"] > result.metrics["b"]["mean_reward"]["value"] > 0
    assert set(result.metrics["a"]) >= {"mcc", "accuracy", "mcc_balanced", "ema_score", "ema_score_one_miner"}
    for text in (
        "20 rows of the split 'test' are left",
        "member 'b' has learned from 40 of its 240 rows, ['dev/0000.jpg'",
        "of the photos as they are",
        "over rows (bootstrap of whole groups)",
    ):
        assert text in printed
    assert compare_results(result, _run(recipe, tmp_path / "two", "--predictions", *files)) == []


def test_an_ensemble_is_one_member(recipe: ModuleType, files: list[str], tmp_path: Path) -> None:
    made = [read_predictions(path) for path in files]
    fit_ensemble(member_table(made), "mean").save(tmp_path / "ensemble.json")
    words = ("--predictions", *reversed(files), "--ensemble", tmp_path / "ensemble.json")
    result = _run(recipe, tmp_path / "run", *words)
    assert set(result.metrics) == {"ensemble"} and result.data["counts"] == {"ensemble": 200}
    assert any("the ensemble was fitted on 200 held-out rows, perhaps these 200" in text for text in result.warnings)
    with pytest.raises(ValueError, match=r"is of \['a', 'b'\], predictions are of \['a', 'c'\]"):
        third = changed(made[1], member="c")
        write_predictions(tmp_path / "c.arrow", third)
        _run(recipe, tmp_path / "bad", "--predictions", files[0], tmp_path / "c.arrow", *words[-2:])


def test_a_stock_model_answers_validator_views(
    recipe: ModuleType, bright: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--splits", "test", "dev", "--learned_from", "train")
    result = _model(recipe, tmp_path / "run", bright, photos, *words)
    levels = {f"{regime}/level_{level}" for regime in "AB" for level in range(4)}
    assert set(result.metrics) == {"A", "B", "C", *levels}
    for name in ("C", "A/level_0", "A/level_1"):
        assert result.metrics[name]["mcc"]["value"] == result.metrics[name]["mean_reward"]["value"] == 1.0
    counts = result.details["answers"]
    assert (counts["A"]["answers"], counts["A/level_0"]["answers"], counts["C"]["answers"]) == (64, 16, 16)
    assert result.details["presets"]["B"]["synthetic_share"] == 0.0
    assert "the user's word (learned_from)" in capsys.readouterr().out
    again = _model(recipe, tmp_path / "again", bright, photos, *words)
    assert compare_results(result, again) == []


def test_answers_are_those_of_the_view_that_was_sent(bright: Path, photos: Path) -> None:
    photo = Image.open(photos / "dev" / "1.png").convert("RGB")
    view = challenge.validator_view(photo, "A", 3, np.random.default_rng([0, 0, 3, 1]))
    answers = FolderAnswers(bright)
    assert answers(view).probability == answers(view).probability > 0.5
    broken = answers(b"no picture")
    assert broken.probability == -1 and broken.error.startswith("UnidentifiedImageError")


def test_our_own_model_answers_through_its_views(
    recipe: ModuleType, tiny_model: RoadworkForImageClassification, photos: Path, tmp_path: Path
) -> None:
    folder = save_member(tmp_path / "model", tiny_model)
    record_training(folder, photos, ["train"])
    result = _model(recipe, tmp_path / "run", folder, photos, "--regimes", "C", "--splits", "train", "dev")
    assert set(result.metrics) == {"C"} and result.details["answers"]["C"]["photos"] == 8
    left = "the model has learned from the 16 rows of train, ['train/0.png', 'train/1.png', 'train/2.png'] among them"
    assert any(text.startswith(left) for text in result.warnings)


def test_rows_that_taught_the_model_are_refused(
    recipe: ModuleType, bright: Path, tiny_model: RoadworkForImageClassification, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"no row to draw challenges from: .*no result.json.*--learned_from"):
        _model(recipe, tmp_path / "run", bright, photos)
    folder = save_member(tmp_path / "model", tiny_model)
    record_training(folder, photos, ["train", "dev"])
    with pytest.raises(ValueError, match="has learned from the 8 rows of dev"):  # a record is not talked away
        _model(recipe, tmp_path / "run", folder, photos, "--learned_from", "none")
    assert not (tmp_path / "run").exists()


def test_a_lockbox_is_never_drawn_from(recipe: ModuleType, bright: Path, tmp_path: Path) -> None:
    from natix_roadwork.data.scenes import SceneSettings, write_scenes

    scenes = write_scenes(tmp_path / "scenes", SceneSettings(num_rows=30, width=320, test_share=0.3), masks=False)
    with pytest.raises(ValueError, match="is a lockbox"):
        _model(recipe, tmp_path / "run", bright, scenes, "--splits", "test", "--learned_from", "none")


def test_generated_pictures_join_the_challenges(
    recipe: ModuleType, bright: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "synthetic"
    folder.mkdir()
    lines = []
    for number in range(6):  # dark ones called roadwork: all answered wrong
        Image.new("RGB", (64, 48), (20 + 200 * (number % 2),) * 3).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "label": 1 - number % 2}))
    lines.append(json.dumps({"file_name": "gone.png", "label": 1}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    words = ("--learned_from", "none", "--regimes", "A", "C", "--synthetic_folder", folder)
    result = _model(recipe, tmp_path / "run", bright, photos, *words)
    shares = {name: preset["synthetic_share"] for name, preset in result.details["presets"].items()}
    assert shares == {"A": 0.5, "C": pytest.approx(1 / 3)}
    assert result.metrics["C"]["mcc"]["value"] == 1.0 and result.metrics["C/synthetic"]["mcc"]["value"] == -1.0
    assert result.metrics["C"]["mean_reward"]["value"] < 0.3
    assert any("1 lines or files" in text and "synthetic/gone.png" in text for text in result.warnings)


def test_views_without_an_answer_are_counted_and_named(
    recipe: ModuleType, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_stock(tmp_path / "model", id2label={0: "none", 1: "roadwork"}, label2id={"none": 0, "roadwork": 1})
    result = _model(recipe, tmp_path / "run", folder, photos, "--learned_from", "none", "--regimes", "C")
    assert result.metrics["C"]["mean_reward"]["value"] == 0.0 and result.metrics["C"]["mcc"]["value"] is None
    printed = capsys.readouterr().out
    assert "C: 100.0% of the answers are -1" in printed
    assert "8 views have no answer (-1, reward 0): dev/0.png, regime C, level 0: KeyError: 'Roadwork'" in printed


def test_a_slow_answer_is_none(bright: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 9.5])
    monkeypatch.setattr("natix_roadwork.inference.challenge_answers.time.perf_counter", lambda: next(ticks))
    answers = FolderAnswers.__new__(FolderAnswers)
    answers._pipeline = lambda photo: [{"label": "Roadwork", "score": 0.9}]
    answer = answers(Image.new("RGB", (8, 8)))
    assert answer.probability == -1 and answer.error == "TimeLimit: more than 9 s"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "simulate_rewards").glob("*.yaml")), ids=lambda p: p.stem)
def test_variants_parse(path: Path) -> None:
    (arguments,) = parse_recipe(["--config", str(path)], [SimulateArguments])
    assert arguments.output_dir.startswith("runs/")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give prediction files or a model's folder, one of both"),
        (["--predictions", "a.arrow", "--model", "m"], "one of both"),
        (["--model", "m"], "dataset_name is missing"),
        (["--model", "m", "--dataset_name", "d", "--regimes", "D"], r"regimes=\['D'\]"),
        (["--model", "m", "--dataset_name", "d", "--ensemble", "e"], "ensemble='e' combines members"),
        (["--model", "m", "--dataset_name", "d", "--learned_from", "none", "dev"], "'none' alone"),
        (["--model", "m", "--dataset_name", "d", "--num_challenges", "50"], "num_challenges=50"),
        (["--predictions", "a.arrow", "--synthetic_folder", "s"], "synthetic_folder='s' needs model"),
        (["--model", "absent", "--dataset_name", "d"], "no such folder with a config.json"),
    ],
)
def test_bad_settings_are_named(recipe: ModuleType, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.main([*words, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()

"""`recipes/combine.py`: a saved ensemble on other rows, as the predictions of one member."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from natix_roadwork.data.predictions import Predictions, read_predictions, write_predictions
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.combined import CombineArguments, combine_members
from natix_roadwork.inference.ensemble import Ensemble, fit_ensemble
from natix_roadwork.inference.ensemble_report import EnsembleArguments
from natix_roadwork.inference.member_table import member_table
from natix_roadwork.inference.report_rows import report_lines, run_warnings
from natix_roadwork.metrics import binary_metrics, paired_difference
from natix_roadwork.runs import RunResult, read_result
from natix_roadwork.training.members import parse_members
from natix_roadwork.training.yaml_args import parse_recipe
from tests.inference.member_rows import changed, fold_numbers, group_labels, members, prediction


ROOT = Path(__file__).parents[2]
VARIANTS = sorted((ROOT / "recipes" / "combine").glob("*.yaml"))
STRENGTHS = [0.8, 1.0, 0.6]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("combine_recipe", ROOT / "recipes" / "combine.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    return fit_ensemble(member_table(members(STRENGTHS)), "mean", fitted_on=("dev",))


@pytest.fixture
def unseen() -> list[Predictions]:
    """The same members on 160 rows of test and 80 of dev."""
    splits = np.where(np.arange(240) < 160, "test", "dev")
    return [changed(member, splits=splits) for member in members(STRENGTHS, seed=1)]


def run(recipe: ModuleType, folder: Path, ensemble: Ensemble, made: list[Predictions], *words: str) -> RunResult:
    ensemble.save(folder / "ensemble.json")
    for member in made:
        write_predictions(folder / f"{member.member}.arrow", member)
    files = [str(folder / f"{member.member}.arrow") for member in made]
    arguments = ["--ensemble", str(folder / "ensemble.json"), "--predictions", *files, "--num_samples", "100", *words]
    recipe.main([*arguments, "--output_dir", str(folder / "out")])
    return read_result(folder / "out" / "result.json")


def test_the_file_is_that_of_one_member(
    recipe: ModuleType, fitted: Ensemble, unseen: list[Predictions], tmp_path: Path
) -> None:
    run(recipe, tmp_path, fitted, unseen)
    found = read_predictions(tmp_path / "out" / "ensemble.arrow")
    np.testing.assert_allclose(found.margins, fitted.combine(unseen), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.logits[:, 0], -found.logits[:, 1])
    assert found.member == "ensemble" and found.embeddings.shape == (240, 0) and set(found.folds.tolist()) == {-1}
    digest = hashlib.sha256((tmp_path / "ensemble.json").read_bytes()).hexdigest()
    assert found.record["ensemble_sha256"] == digest and found.record["members"] == ["a", "b", "c"]
    assert found.record["learned_from"] == ["dev", "train"]
    np.testing.assert_array_equal(found.held_out, found.splits == "test")


def test_scores_stand_beside_those_of_each_member(
    recipe: ModuleType, fitted: Ensemble, unseen: list[Predictions], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    result = run(recipe, tmp_path, fitted, unseen)
    test = unseen[0].splits == "test"
    labels, groups = unseen[0].labels[test], unseen[0].groups[test]
    both = [read_predictions(tmp_path / "out" / "ensemble.arrow").probabilities[test], unseen[1].probabilities[test]]
    for scores, probabilities in zip((result.metrics, result.baselines["b"]), both, strict=True):
        expected = binary_metrics(labels, probabilities)
        assert {name: metric["value"] for name, metric in scores["test"].items()} == pytest.approx(expected)
        assert scores["test"]["mcc"]["low"] < scores["test"]["mcc"]["high"]
    expected = paired_difference(labels, *both, groups, num_samples=100, seed=42)
    found = result.details["difference_to_member"]["test"]["b"]["mcc"]
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert [text.split(":")[0] for text in result.warnings] == ["dev counts as learned from"]
    printed = capsys.readouterr().out
    for text in (
        "test, 160 rows",
        "ensemble  ",
        "'mean', fitted on dev",
        "warning: dev counts as learned from",
        "ensemble.arrow",
    ):
        assert text in printed


def test_rows_are_matched_by_id(fitted: Ensemble, unseen: list[Predictions]) -> None:
    first, second, third = unseen
    order = np.random.default_rng(0).permutation(240)
    moved = combine_members(fitted, [second.select(order), third, first], "0")
    np.testing.assert_array_equal(moved.row_ids, first.row_ids[order])
    np.testing.assert_allclose(moved.margins, fitted.combine(unseen)[order], rtol=1e-6, atol=1e-6)


def test_splits_of_fold_members_count_as_learned() -> None:
    """An out-of-fold value comes from one of several models, the others of which have learned from the row."""
    labels = group_labels(240, 0.6, np.random.default_rng(0))
    rng, folds = np.random.default_rng(1), fold_numbers(labels, 3)
    made = [prediction(name, rng.normal(labels, 1.0), labels, folds) for name in "ab"]
    made = [changed(member, splits=np.full(240, "test"), record={"learned_from": ["train"]}) for member in made]
    ensemble = fit_ensemble(member_table(members([0.5, 1.0])), "mean", fitted_on=("dev",))
    found = combine_members(ensemble, made, "0")
    assert found.record["learned_from"] == ["dev", "test", "train"] and not found.held_out.any()
    assert set(found.folds.tolist()) == {-1}


def test_intervals_of_fold_members_are_widened(recipe: ModuleType, tmp_path: Path) -> None:
    """Those of a member as it is, of the ensemble and of their difference; values stay."""
    ensemble = fit_ensemble(member_table(members([0.5, 1.0])), "mean", fitted_on=("dev",))
    folded = members([0.5, 1.0], num_folds=3, seed=1)
    plain = [changed(member, folds=np.full(240, -1)) for member in folded]
    found = []
    for name, made in (("folds", folded), ("plain", plain)):
        (tmp_path / name).mkdir()
        result = run(recipe, tmp_path / name, ensemble, made)
        difference = result.details["difference_to_member"]["train"]["a"]["mcc"]
        found.append([result.metrics["train"]["mcc"], result.baselines["a"]["train"]["mcc"], difference])
    for wide, narrow in zip(*found, strict=True):
        assert wide["value"] == narrow["value"]
        assert wide["high"] - wide["low"] == pytest.approx(np.sqrt(2.5) * (narrow["high"] - narrow["low"]))


def test_a_member_that_does_not_say_what_taught_it_taught_itself_on_train_and_dev(
    fitted: Ensemble, unseen: list[Predictions]
) -> None:
    silent = [changed(unseen[0], record={}), *unseen[1:]]
    ensemble = fit_ensemble(member_table(members(STRENGTHS)), "mean", fitted_on=("other",))
    assert combine_members(ensemble, silent, "0").record["learned_from"] == ["dev", "other", "train"]


def test_the_error_report_reads_the_file_and_the_members_as_baselines(
    recipe: ModuleType, fitted: Ensemble, unseen: list[Predictions], tmp_path: Path
) -> None:
    data = {"learned_from": ["train"], "data": {"fingerprint": "abc"}}
    result = run(recipe, tmp_path, fitted, [changed(member, record=data) for member in unseen])
    lines, notes = report_lines(read_predictions(tmp_path / "out" / "ensemble.arrow"))
    assert len(lines) == 160 and notes == ["left out: 80 rows of dev that are not reported on"]
    assert run_warnings(lines, None) == []
    assert set(result.baselines) == {"a", "b", "c"} and result.data["fingerprint"] == "abc"


def test_a_split_of_one_label_has_no_difference(
    recipe: ModuleType, fitted: Ensemble, unseen: list[Predictions], tmp_path: Path
) -> None:
    splits = np.where(unseen[0].labels == 1, "test", "dev")
    result = run(recipe, tmp_path, fitted, [changed(member, splits=splits) for member in unseen])
    assert result.details["difference_to_member"]["test"]["a"]["mcc"]["value"] is None
    assert result.metrics["test"]["mcc_balanced"]["value"] is None


def test_members_that_were_split_otherwise_are_refused(fitted: Ensemble, unseen: list[Predictions]) -> None:
    first, second, third = unseen
    moved = changed(third, splits=np.roll(third.splits, 1))
    with pytest.raises(
        ValueError, match=r"'dev/0000\.jpg' is of split 'test' in member 'a' and of 'dev' in 'c' \(2 such"
    ):
        combine_members(fitted, [first, second, moved], "0")
    regrouped = changed(second, groups=second.row_ids)
    with pytest.raises(ValueError, match=r"is of group 'g000' in member 'a' and of 'dev/0000\.jpg' in 'b'"):
        combine_members(fitted, [first, regrouped, third], "0")
    with pytest.raises(ValueError, match=r"lacks the member\(s\) \['b'\]"):
        combine_members(fitted, [first, third], "0")
    nothing = fit_ensemble(member_table(members(STRENGTHS)), "mean")
    with pytest.raises(ValueError, match="does not say which splits it was fitted on"):
        combine_members(nothing, unseen, "0")


def test_no_file_of_a_member_is_overwritten() -> None:
    words = ["--ensemble", "e.json", "--predictions", "runs/x/ensemble.arrow", "--output_dir", "runs/x"]
    with pytest.raises(ValueError, match=r"output_dir='runs/x' holds ensemble\.arrow of a member"):
        parse_recipe(words, [CombineArguments])
    with pytest.raises(ValueError, match="num_samples=1"):
        parse_recipe([*words[:-1], "y", "--num_samples", "1"], [CombineArguments])


def test_the_same_files_give_the_same_bytes(
    recipe: ModuleType, fitted: Ensemble, unseen: list[Predictions], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(recipe, tmp_path / name, fitted, unseen)
    for file in ("ensemble.arrow", "result.json"):
        one, two = ((tmp_path / name / "out" / file).read_bytes() for name in ("one", "two"))
        if file == "result.json":
            one, two = (json.loads(side)["metrics"] for side in (one, two))
        assert one == two


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_variants_parse_and_name_the_members_of_their_ensemble(path: Path) -> None:
    (combined,) = parse_recipe(["--config", str(path)], [CombineArguments])
    (fitted,) = parse_recipe(["--config", str(ROOT / "recipes" / "ensemble" / path.name)], [EnsembleArguments])
    assert [Path(file).stem for file in combined.predictions] == [Path(file).stem for file in fitted.predictions]
    assert Path(combined.ensemble).parent == Path(fitted.output_dir)
    assert not set(combined.predictions) & set(fitted.predictions)


LOOP = re.compile(r"^for name in ([^;]+); do\n(.*?)^done$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("number", "recipe_class", "recipe_name"), [(0, EnsembleArguments, "ensemble"), (1, CombineArguments, "combine")]
)
def test_the_guide_s_loops_predict_what_the_next_recipe_reads(
    number: int, recipe_class: type, recipe_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`recipes/README.md` predicts every member of the list, with settings that `recipes/predict.py` takes."""
    monkeypatch.chdir(ROOT)
    names, command = LOOP.findall(Path("recipes/README.md").read_text())[number]
    words = command.replace("\\\n", " ").split()
    words = words[words.index("recipes/predict.py") + 1 :]
    predicted = [
        parse_recipe([word.replace("$name", name) for word in words], [PredictArguments])[0] for name in names.split()
    ]
    (following,) = parse_recipe(["--config", f"recipes/{recipe_name}/quickstart.yaml"], [recipe_class])
    assert [str(asked.path) for asked in predicted] == following.predictions
    _, listed = parse_members(["--config", "recipes/ensemble/quickstart_members.yaml", "--use_cpu", "true"])
    assert [asked.model for asked in predicted] == [str(member.folder) for member in listed]
    if recipe_name == "ensemble":  # the splits are those of the training
        assert {member.settings["split_seed"] for member in listed} == {asked.seed for asked in predicted}
        assert {member.settings["dev_share"] for member in listed} == {asked.dev_share for asked in predicted}

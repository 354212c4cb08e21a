"""The recipe of test-time augmentation as a user starts it."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from natix_roadwork.data.predictions import joined, read_predictions, write_predictions
from natix_roadwork.inference.feature_statistics import load_statistics
from natix_roadwork.inference.tta import MODES, Aggregation, aggregate
from natix_roadwork.inference.tta_run import TTAArguments, run_tta
from natix_roadwork.runs import RunResult, compare_results, read_result
from natix_roadwork.training.yaml_args import parse_recipe
from tests.tta_members import drawn_member, train_member


ROOT = Path(__file__).parents[1]
Run = Callable[..., RunResult]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[str]]:
    """Predictions whose transforms help: dev and test rows of two members, and their train rows."""
    found: dict[str, list[str]] = {"predictions": [], "train_predictions": []}
    for number, name in enumerate(("one", "two")):
        dev = drawn_member(name, noise=2.0, seed=number)
        test = drawn_member(name, rows=40, noise=2.0, seed=10 + number)
        ids, groups = (np.char.replace(values, "dev:", "test:") for values in (test.row_ids, test.groups))
        test = dataclasses.replace(test, row_ids=ids, groups=groups, splits=np.full(len(test), "test"))
        for key, lines in (("predictions", joined([dev, test])), ("train_predictions", train_member(name))):
            write_predictions(tmp_path / f"{key}-{name}.arrow", lines)
            found[key].append(str(tmp_path / f"{key}-{name}.arrow"))
    return found


@pytest.fixture
def run(tmp_path: Path, files: dict[str, list[str]]) -> Run:
    return lambda name="run", **values: run_tta(
        TTAArguments(**{**files, "output_dir": str(tmp_path / name), "num_folds": 3, "seed": 0, **values})
    )


def test_result_has_a_row_for_each_mode(run: Run, tmp_path: Path) -> None:
    result = read_result(tmp_path / "run" / "result.json") if run() else None
    rows = {row["mode"]: row for row in result.details["modes"]}
    assert tuple(rows) == MODES and set(result.baselines) == set(MODES)
    assert rows["none"]["passes"] == 2 and rows["none"]["transform_ms"] == 0 and not rows["none"]["accepted"]
    for mode in MODES[1:]:
        assert rows[mode]["passes"] == 32 and rows[mode]["transform_ms"] > 0
        gain = result.baselines[mode]["out_of_fold"]["mcc_over_none"]
        assert gain == rows[mode]["mcc_over_none"] and rows[mode]["accepted"] == (gain["low"] > 0)
        assert rows[mode]["passes_per_point"] == pytest.approx(30 / (100 * gain["value"]))
    assert result.data["counts"] == {"dev": 80, "test": 40} and result.data["members"] == ["one", "two"]
    assert result.metrics["test"]["mcc"]["value"] > result.baselines["none"]["test"]["mcc"]["value"]


def test_the_choice_is_written_as_a_member_and_can_be_used_again(
    run: Run, tmp_path: Path, files: dict[str, list[str]]
) -> None:
    result = run()
    written = read_predictions(tmp_path / "run" / "tta.arrow")
    assert written.splits.tolist() == ["dev"] * 80 + ["test"] * 40 and written.held_out.all()
    assert set(written.folds[:80]) == {0, 1, 2} and set(written.folds[80:]) == {-1}
    assert written.record["learned_from"] == ["dev", "train"]
    statistics = {name: load_statistics(tmp_path / "run" / "statistics" / name) for name in ("one", "two")}
    members = [read_predictions(path) for path in files["predictions"]]
    again = aggregate(members, Aggregation(**result.details["aggregation"]), statistics)
    assert again.probabilities[80:] == pytest.approx(written.probabilities[80:])


def test_the_same_run_gives_the_same_numbers(run: Run, tmp_path: Path) -> None:
    assert not compare_results(run("first"), run("second"), tolerance=0.0)
    first, second = ((tmp_path / name / "tta.arrow").read_bytes() for name in ("first", "second"))
    assert first == second


def test_test_rows_have_no_part_in_the_choice(run: Run, files: dict[str, list[str]]) -> None:
    before = run("before")
    for path in files["predictions"]:
        lines = read_predictions(path)
        labels = np.where(lines.splits == "test", 1 - lines.labels, lines.labels)
        write_predictions(path, dataclasses.replace(lines, labels=labels))
    after = run("after")
    assert before.details["aggregation"] == after.details["aggregation"]
    assert before.metrics["out_of_fold"] == after.metrics["out_of_fold"]
    assert before.metrics["test"]["mcc"]["value"] == pytest.approx(-after.metrics["test"]["mcc"]["value"])


def test_without_train_rows_the_filtered_modes_are_missing(run: Run) -> None:
    result = run(train_predictions=[])
    assert set(result.baselines) == {"none", "mean", "learned"} and "foods and knn" in result.warnings[0]


def test_rows_that_taught_a_member_are_left_out_and_counted(run: Run, files: dict[str, list[str]]) -> None:
    lines = read_predictions(files["predictions"][0])
    folds = np.where((lines.splits == "dev") & (np.arange(len(lines)) // 16 % 8 > 0), 0, -1)
    record = {"learned_from": ["train", "dev"]}
    write_predictions(files["predictions"][0], dataclasses.replace(lines, folds=folds, record=record))
    result = run(train_predictions=[])
    assert result.data["counts"]["dev"] == 70 and result.warnings[0] == "10 rows that taught a member are left out"
    assert any("rows are out-of-fold" in text for text in result.warnings)


def test_what_cannot_be_measured_is_named(run: Run, files: dict[str, list[str]], tmp_path: Path) -> None:
    def changed(key: str, **values: object) -> list[str]:
        path = tmp_path / "changed.arrow"
        write_predictions(path, dataclasses.replace(read_predictions(files[key][0]), **values))
        return [str(path), files[key][1]]

    dev = read_predictions(files["predictions"][0])
    plain = tmp_path / "plain.arrow"
    write_predictions(plain, dev.select(dev.transforms == 0))
    tested = tmp_path / "tested.arrow"
    write_predictions(tested, dev.select(dev.splits == "test"))
    train = read_predictions(files["train_predictions"][0])
    cases = [
        (
            {"predictions": changed("predictions", record={"learned_from": ["train", "dev", "test"]})},
            "no row is held out",
        ),
        ({"predictions": [str(plain)], "train_predictions": []}, "photos as they are alone"),
        ({"predictions": [str(tested)], "train_predictions": []}, "no row outside test"),
        ({"train_predictions": files["predictions"]}, "has no train rows"),
        ({"train_predictions": 2 * files["train_predictions"]}, "a second file of 'one'"),
        ({"predictions": files["predictions"][:1]}, "not in predictions, 'two'"),
    ]
    for values, named in cases:
        with pytest.raises(ValueError, match=named):
            run(**values)
    overlapping = changed("train_predictions", groups=np.full(len(train), "dev:3"))
    with pytest.raises(ValueError, match="shares the groups"):
        run(train_predictions=overlapping)
    zeros = changed("train_predictions", embeddings=np.zeros_like(train.embeddings))
    with pytest.raises(ValueError, match=r"changed.arrow: features\[0\] is all zeros"):
        run(train_predictions=zeros)


def test_recipe_prints_a_table(
    files: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("tta_recipe", ROOT / "recipes" / "tta.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    keys = ["--predictions", *files["predictions"], "--train_predictions", *files["train_predictions"]]
    config = ["--config", str(ROOT / "recipes" / "tta" / "quickstart.yaml"), "--output_dir", str(tmp_path / "run")]
    recipe.main([*config, *keys])
    printed = capsys.readouterr().out
    assert all(f"\n{mode} " in printed for mode in MODES) and "passes" in printed and "chosen: " in printed


@pytest.mark.parametrize("name", ["natix", "quickstart"])
def test_recipe_files_are_read(name: str) -> None:
    (found,) = parse_recipe(["--config", str(ROOT / "recipes" / "tta" / f"{name}.yaml")], [TTAArguments])
    assert len(found.predictions) == len(found.train_predictions) == 1

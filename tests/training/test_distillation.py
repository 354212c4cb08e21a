"""The distillation recipe as a whole, at tiny size: student, comparison, calibration, record, lite folder, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.runs import RunResult, read_result
from natix_roadwork.training import distillation
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.distillation import distill
from natix_roadwork.training.distillation_arguments import DistillArguments, DistillTrainingArguments
from natix_roadwork.training.teacher_folds import TeacherFoldsArguments
from natix_roadwork.training.yaml_args import parse_recipe
from tests.inference.member_rows import members
from tests.recipe_photos import write_photos
from tests.student_runs import ROOT, ROWS, distill_command, recipe, teacher_file


KINDS = (DistillArguments, DistillTrainingArguments)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("student") / "photos", ROWS)


@pytest.fixture(scope="module")
def finished(photos: Path) -> tuple[Path, RunResult]:
    """A run of the script that ended: two seeds, with and without the teacher."""
    torch.set_num_threads(1)
    folder = photos.parent / "finished"
    recipe("distill").main(
        distill_command(photos, [teacher_file(photos.parent)], folder, num_seeds=2, submitted_by="5Hotkey")
    )
    return folder, read_result(folder / "result.json")


def run(photos: Path, output: Path, *files: Path, **settings: object) -> RunResult:
    command = distill_command(photos, list(files), output, **settings)
    return distill(*parse_recipe(command, KINDS)).result


def test_record_has_regimes_baselines_and_the_paired_difference(finished: tuple[Path, RunResult]) -> None:
    _, result = finished
    splits = {"dev", "dev_regime_A", "dev_regime_B"}
    assert set(result.metrics) == splits == set(result.baselines["without_teacher"])
    assert set(result.baselines["teacher"]) == {"dev"} and result.metrics["dev"]["mcc"]["value"] > 0.5
    found = result.details["difference_to_without_teacher"]
    assert set(found) == splits
    for metrics in found.values():
        assert metrics["mcc"].keys() >= {"value", "low", "high", "standard_error", "verdict"}
    words = "beats" if found["dev"]["mcc"]["value"] > found["dev"]["mcc"]["standard_error"] else "does not beat"
    assert words in result.details["note"] and "2 seed(s)" in result.details["note"]


def test_students_with_and_without_teacher_have_seeds_and_budget_in_common(finished: tuple[Path, RunResult]) -> None:
    students = finished[1].details["students"]
    assert [(run["seed"], run["with_teacher"]) for run in students] == [(0, True), (1, True), (0, False), (1, False)]
    assert len({run["steps"] for run in students}) == 1
    logged = [line for line in students[0]["log"] if "loss" in line]
    assert all({"loss_labels", "loss_logits", "loss_embedding"} <= set(line) for line in logged) or not logged
    assert finished[1].details["rows"]["train"] + finished[1].details["rows"]["selection"] == ROWS["train"]


def test_threshold_is_folded_in_at_the_even_prior(finished: tuple[Path, RunResult]) -> None:
    for run in finished[1].details["students"]:
        found = run["calibration"]
        cut, mapping = found["cut"], found["map"]
        assert found["target_prior"] == 0.5 and found["rows"] % 3 == 0
        assert mapping["scale"] * cut["threshold"] + mapping["offset"] == pytest.approx(0.0, abs=1e-9)


def test_best_student_is_exported(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    names = {path.name for path in (folder / "lite").iterdir()}
    assert names >= {"config.json", "model.safetensors", "preprocessor_config.json", "model_card.json", "README.md"}
    card = json.loads((folder / "lite" / "model_card.json").read_text())
    assert "MCC" in card["description"] and card["model_name"] == "roadwork-lite"
    taught = [run for run in result.details["students"] if run["with_teacher"]]
    best = min(taught, key=lambda run: run["calibration"]["log_loss"])
    assert result.details["shipped_seed"] == best["seed"] and not (folder / "work").exists()


def test_same_seed_gives_the_same_student(photos: Path, tmp_path: Path) -> None:
    file = teacher_file(tmp_path)
    first, second = (
        run(photos, tmp_path / name, file, compare_without_teacher="false", max_steps=2) for name in ("a", "b")
    )
    assert first.metrics == second.metrics and "without_teacher" not in first.baselines


def test_script_combines_members_by_an_ensemble(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from natix_roadwork.inference.ensemble import fit_ensemble
    from natix_roadwork.inference.member_table import member_table

    made = fit_ensemble(member_table(members([1.0, 0.5])), "mean")
    made.save(tmp_path / "ensemble.json")
    files = [teacher_file(tmp_path, name=name, seed=seed) for seed, name in enumerate(made.members)]
    settings = {"ensemble": tmp_path / "ensemble.json", "compare_without_teacher": "false", "max_steps": 1}
    recipe("distill").main(distill_command(photos, files, tmp_path / "out", **settings))
    facts = read_result(tmp_path / "out" / "result.json").details["teacher"]
    assert facts["combined_by"] == "ensemble" and facts["members"] == list(made.members)


def test_in_sample_teacher_is_refused_and_its_use_recorded(photos: Path, tmp_path: Path) -> None:
    learned = teacher_file(tmp_path, folds=np.full(sum(ROWS.values()), -1))
    assert not read_predictions(learned).held_out[: ROWS["train"]].any()
    with pytest.raises(ValueError, match="allow_in_sample_teacher"):
        run(photos, tmp_path / "refused", learned, max_steps=1)
    settings = {"allow_in_sample_teacher": "true", "compare_without_teacher": "false", "max_steps": 1}
    result = run(photos, tmp_path / "allowed", learned, **settings)
    assert any("learned from 32 of 32" in text and "allow_in_sample_teacher" in text for text in result.warnings)


def test_an_earlier_run_is_refused_or_removed(photos: Path, tmp_path: Path) -> None:
    file, output = teacher_file(tmp_path), tmp_path / "out"
    output.mkdir()
    (output / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="existing_run overwrite"):
        run(photos, output, file)
    settings = {"existing_run": "overwrite", "compare_without_teacher": "false", "max_steps": 1}
    assert run(photos, output, file, **settings).metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature=0.0 must be above 0"),
        ({"distill_weight": 1.5}, r"distill_weight=1.5 must lie in \[0, 1\]"),
        ({"regime_shares": '{"D": 1}'}, "regime_shares="),
        ({"student_config": '{"hidden_size": 4}'}, "needs a model_type"),
        ({"student_id": "somewhere/model"}, "exactly one of them"),
        ({"ema_decay": 0.9}, "ema_decay=0.9 has no effect on a student"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe(distill_command(tmp_path, [], tmp_path, **settings), KINDS)


def test_bad_students_are_named(photos: Path, tmp_path: Path) -> None:
    file = teacher_file(tmp_path)
    for config, message in (
        ({"model_type": "vit", "hiden_size": 8}, "unknown key 'hiden_size' of vit; the nearest key is 'hidden_size'"),
        ({"model_type": "dinov2_with_registers"}, "not among the architectures that the stock miner"),
        ({"model_type": "vit", "image_size": 32, "patch_size": 16}, "does not take 224 x 224 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            run(photos, tmp_path / "out", file, student_config=json.dumps(config))


def test_table_says_what_came_out(finished: tuple[Path, RunResult]) -> None:
    text = distillation.distillation_table(finished[1], finished[0])
    for word in ("student", "without teacher", "teacher", "regime A", "regime C (photo)", "32 of 32 train rows"):
        assert word in text


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "distill").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_variant_parses_and_is_three_commented_blocks(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [line for line in lines if line in ("# Model", "# Data", "# Training")] == [
        "# Model",
        "# Data",
        "# Training",
    ]
    training = [line.split(":")[0] for line in lines[lines.index("# Training") :] if line and not line.startswith("#")]
    assert training == sorted(training)
    if path.stem != "defaults":
        settings, args = parse_recipe(["--config", str(path), "--use_cpu", "true"], KINDS)
        assert settings.predictions and args.output_dir.startswith("runs/")
        assert (settings.profile == "modern") == ("timm" in settings.student_id or "embedded" in settings.student_id)


def test_natix_students_share_the_dev_rows_of_their_teacher() -> None:
    recipe_of = {"stock_vit": "model_1_baseline", "modern_timm": "model_1_baseline", "quickstart": "quickstart"}
    for name, trained in recipe_of.items():
        student, args = parse_recipe(
            ["--config", str(ROOT / "recipes" / "distill" / f"{name}.yaml"), "--use_cpu", "true"], KINDS
        )
        full, full_args = parse_recipe(
            ["--config", str(ROOT / "recipes" / "pretrain" / f"{trained}.yaml"), "--use_cpu", "true"],
            (TeacherFoldsArguments, RoadworkTrainingArguments),
        )
        keys = ("dataset_name", "dev_share", "consistency_filter", "near_duplicates", "max_megapixels", "groups_file")
        assert [getattr(student, key) for key in keys] == [getattr(full, key) for key in keys]
        seeds = [own.split_seed or training.seed for own, training in ((student, args), (full, full_args))]
        assert seeds[0] == seeds[1]

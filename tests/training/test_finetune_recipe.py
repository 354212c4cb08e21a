"""The fold recipe's script and its YAML files."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

from natix_roadwork.training.adapters import AdapterSettings
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.yaml_args import parse_recipe
from tests.fold_runs import fold_command


ROOT = Path(__file__).parents[2]
FOLDS = ROOT / "recipes" / "finetune_folds"
VARIANTS = sorted(path for path in FOLDS.glob("*.yaml") if path.name != "defaults.yaml")
# SPEC's middle column of component 16.
PLAN = {
    "adapter": "dora",
    "adapter_rank": 16,
    "adapter_alpha": 32,
    "adapter_dropout": 0.1,
    "augmentation": "light",
    "backbone_blocks": 0,
    "dropout": 0.2,
    "min_weight_change": 0.0,
    "num_folds": 5,
    "train_classifier": False,
    "early_stopping_patience": 2,
    "learning_rate": 1e-6,
    "metric_for_best_model": "mcc",
    "num_train_epochs": 5.0,
    "seed": 42,
    "warmup_steps": 0.0,
    "weight_decay": 0.02,
}


def settings_of(variant: Path) -> tuple[FinetuneArguments, RoadworkTrainingArguments]:
    return parse_recipe(
        ["--config", str(variant), "--use_cpu", "true"], (FinetuneArguments, RoadworkTrainingArguments)
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda path: path.stem)
def test_every_variant_parses_and_keeps_the_house_s_form(variant: Path) -> None:
    settings, args = settings_of(variant)
    assert settings.base_model and args.output_dir.startswith("runs/")
    lines = variant.read_text().splitlines()
    blocks = [line for line in lines if line in ("# Model", "# Data", "# Training")]
    assert blocks == ["# Model", "# Data", "# Training"]
    keys = [line.split(":")[0] for line in lines[lines.index("# Training") + 1 :]]
    assert keys == sorted(keys)


def test_plan_has_the_numbers_of_the_plan() -> None:
    settings, args = settings_of(FOLDS / "plan.yaml")
    found = {key: getattr(settings, key) if hasattr(settings, key) else getattr(args, key) for key in PLAN}
    assert found == PLAN and args.get_warmup_steps(35) == 0


def test_defaults_are_what_can_move_an_adapter() -> None:
    settings, args = settings_of(FOLDS / "model_1_baseline.yaml")
    assert settings.adapter_settings == AdapterSettings()
    assert (args.learning_rate, args.weight_decay, args.get_warmup_steps(1000)) == (3e-4, 0.02, 50)
    assert (settings.dropout, settings.min_weight_change, settings.fold_target) == (0.2, 1e-3, "dev")
    assert 20 <= args.num_train_epochs <= 40 and args.early_stopping_patience > 0
    assert settings.augmentation == "light" and settings.feature_draws > 0


def test_script_prints_the_table(fold_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("finetune_folds_recipe", ROOT / "recipes" / "finetune_folds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(fold_command(fold_base, tmp_path, variant="quickstart.yaml", max_steps=2))
    printed = capsys.readouterr().out
    assert "dev, out of fold" in printed and "adapter - base" in printed and "trainable parameters" in printed
    assert {"adapters", "folds.json", "oof.arrow", "result.json"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("error", [ValueError, ImportError, OSError])
def test_a_user_s_error_is_one_line(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise error("no such thing:\n  here")

    monkeypatch.setattr(sys, "argv", ["finetune_folds.py"])
    monkeypatch.setattr("natix_roadwork.training.yaml_args.parse_recipe", fail)
    with pytest.raises(SystemExit, match=r"^finetune_folds: no such thing: here$"):
        runpy.run_path(str(ROOT / "recipes" / "finetune_folds.py"), run_name="__main__")

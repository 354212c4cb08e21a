"""Every YAML under recipes/: it parses, keeps the house's form, and the plan's says what the plan says."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.yaml_args import parse_recipe


ROOT = Path(__file__).parents[1]
PRETRAIN = ROOT / "recipes" / "pretrain"
VARIANTS = sorted(path for path in PRETRAIN.glob("*.yaml") if path.name != "defaults.yaml")
# SPEC's middle column, as far as the terms and components exist.
PLAN = {
    "backbone_id": "facebook/dinov3-vith16plus-pretrain-lvd1689m",
    "feature_pooling": "cls",
    "evidence_grid": 0,
    "view_layout": "photo12",
    "view_size": 512,
    "keep_views": 8,
    "hidden_size": 512,
    "num_attention_layers": 4,
    "num_attention_heads": 8,
    "attention_gate": "elementwise",
    "feed_forward": False,
    "view_positions": False,
    "dropout": 0.1,
    "loss_weights": {"focal": 0.4, "consistency": 0.25, "weather": 0.15, "mask": 0.2},
    "mask_folder": "runs/masks/sam3",
    "focal_gamma": 2.0,
    "focal_alpha": [0.75, 0.25],
    "label_smoothing": 0.1,
    "metadata_fields": ["gps", "weather", "daytime", "scene", "text"],
    "gps_encoder": "sinusoids",
    "metadata_residual": False,
    "gps_sampling": "brackets",
    "gps_gate": "refuse",
    "gps_target": "test",
    "gps_near_weight": 5.0,
    "gps_far_weight": 0.3,
    "gps_bounds": [25.0, 50.0, -125.0, -65.0],
    "learning_rate": 3e-4,
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "num_train_epochs": 30,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 2,
    "warmup_steps": 500,
    "early_stopping_patience": 5,
    "metric_for_best_model": "mcc",
    "bf16": True,
    "torch_compile": True,
    "torch_compile_mode": "max-autotune",
}


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_every_variant_parses(path: Path) -> None:
    settings, args = parse_recipe(
        ["--config", str(path), "--use_cpu", "true"], (PretrainArguments, RoadworkTrainingArguments)
    )
    assert settings.dataset_name and Path(args.output_dir).parts[0] == "runs"


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_every_variant_is_three_commented_blocks(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    assert [line for line in lines if line in ("# Model", "# Data", "# Training")] == [
        "# Model",
        "# Data",
        "# Training",
    ]
    training = [line.split(":")[0] for line in lines[lines.index("# Training") :] if line and not line.startswith("#")]
    assert training == sorted(training)


@pytest.mark.parametrize(
    ("features", "training"),
    [("quickstart", "quickstart"), ("natix", "model_1_baseline")],
    ids=["quickstart", "natix"],
)
def test_features_are_extracted_as_they_are_trained_on(features: str, training: str) -> None:
    paths = (ROOT / "recipes" / "extract_features" / f"{features}.yaml", PRETRAIN / f"{training}.yaml")
    kinds = (PretrainArguments, RoadworkTrainingArguments)
    found = [parse_recipe(["--config", str(path), "--use_cpu", "true"], kinds) for path in paths]
    keys = ("dataset_name", "dev_share", "backbone_id", "feature_pooling", "evidence_grid", "feature_draws")
    keys += ("feature_dtype", "view_layout", "view_size", "squares", "global_fit", "max_megapixels", "near_duplicates")
    extracted, trained = ([getattr(settings, key) for key in keys] for settings, _ in found)
    assert extracted == trained and found[0][1].seed == found[1][1].seed


@pytest.mark.parametrize(
    ("predicted", "training"),
    [("quickstart", "quickstart"), ("natix", "model_1_baseline")],
    ids=["quickstart", "natix"],
)
def test_rows_are_predicted_as_they_were_split_in_training(predicted: str, training: str) -> None:
    trained, args = parse_recipe(
        ["--config", str(PRETRAIN / f"{training}.yaml"), "--use_cpu", "true"],
        (PretrainArguments, RoadworkTrainingArguments),
    )
    (settings,) = parse_recipe(
        ["--config", str(ROOT / "recipes" / "predict" / f"{predicted}.yaml")], (PredictArguments,)
    )
    assert settings.seed == args.seed and settings.model == args.output_dir
    keys = [key for key in (*ROW_KEYS, "dataset_name", "dataset_revision", "text_encoder_id") if key != "seed"]
    assert {key: getattr(settings, key) for key in keys} == {key: getattr(trained, key) for key in keys}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_accelerate_config_is_read(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1 and config.mixed_precision == "no"
    assert set(yaml.safe_load(path.read_text())) >= {"use_cpu", "num_machines"}


def test_plan_has_the_numbers_of_the_plan() -> None:
    settings, args = parse_recipe(
        ["--config", str(PRETRAIN / "plan.yaml"), "--use_cpu", "true"], (PretrainArguments, RoadworkTrainingArguments)
    )
    found = {key: getattr(settings, key) if hasattr(settings, key) else getattr(args, key) for key in PLAN}
    assert found == PLAN
    assert args.lr_scheduler_type == "cosine" and args.get_warmup_steps(4020) == 500

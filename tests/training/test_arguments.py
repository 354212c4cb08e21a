from pathlib import Path

import pytest
import torch

from natix_roadwork import RoadworkConfig
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.pretrain_model import MODEL_FIELDS
from natix_roadwork.training.yaml_args import RecipeError, parse_recipe


BOTH = (PretrainArguments, RoadworkTrainingArguments)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "variant.yaml"
    path.write_text("dataset_name: photos\nuse_cpu: true\n")
    return path


def parse(path: Path, *overrides: str) -> tuple[PretrainArguments, RoadworkTrainingArguments]:
    return parse_recipe(["--config", str(path), *overrides], BOTH)


def add(path: Path, text: str) -> Path:
    path.write_text(path.read_text() + text)
    return path


def test_defaults_are_those_of_the_sound_form(recipe: Path) -> None:
    args = parse(recipe)[1]
    assert (args.learning_rate, args.weight_decay, args.adam_beta1, args.adam_beta2) == (3e-4, 0.01, 0.9, 0.999)
    assert (args.adam_epsilon, args.max_grad_norm, args.num_train_epochs) == (1e-8, 1.0, 30)
    assert args.metric_for_best_model == "mcc" and args.greater_is_better and args.load_best_model_at_end
    assert args.early_stopping_patience == 5 and args.get_warmup_steps(1000) == 50
    assert not args.remove_unused_columns and args.label_names == ["labels"] and args.report_to == []


def test_defaults_of_the_model_are_those_of_its_config(recipe: Path) -> None:
    settings, config = parse(recipe)[0], RoadworkConfig()
    for name in set(MODEL_FIELDS) - {"loss_weights"}:
        assert getattr(settings, name) == getattr(config, name), name


def test_cpu_has_no_bfloat16_and_no_pinned_memory_unless_asked(recipe: Path) -> None:
    args = parse(recipe)[1]
    assert args.bf16 is False and args.dataloader_pin_memory is False
    assert parse(recipe, "--bf16", "true")[1].bf16 is True


@pytest.mark.parametrize("supported", [True, False])
def test_gpu_has_bfloat16_where_it_can(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    monkeypatch.setattr(RoadworkTrainingArguments.__base__, "__post_init__", lambda self: None)
    assert RoadworkTrainingArguments().bf16 is supported
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert RoadworkTrainingArguments().bf16 is False


def test_yaml_number_without_a_dot_is_a_number(recipe: Path) -> None:
    assert parse(add(recipe, "learning_rate: 2e-5\n"))[1].learning_rate == 2e-5


def test_command_line_wins(recipe: Path) -> None:
    add(recipe, "seed: 1\nloss_weights: {focal: 0.5}\nfocal_alpha: [2, 1]\n")
    settings, args = parse(recipe, "--seed", "7", '--loss_weights={"focal": 1}')
    assert args.seed == 7 and settings.loss_weights == {"focal": 1.0} and settings.focal_alpha == [2.0, 1.0]


def test_null_gives_the_default_back(recipe: Path) -> None:
    add(recipe, "torch_compile_mode: max-autotune\nseed: 5\nview_size: null\n")
    settings, args = parse(recipe, "--torch_compile_mode", "null", "--seed=null")
    assert args.torch_compile_mode is None and not args.torch_compile and args.seed == 42
    assert settings.view_size == 512


def test_defaults_file_beside_a_variant_is_read_first(recipe: Path) -> None:
    (recipe.parent / "defaults.yaml").write_text("seed: 3\nview_size: 256\n")
    settings, args = parse(add(recipe, "view_size: 128\n"))
    assert (args.seed, settings.view_size) == (3, 128)


def test_off_is_a_word_and_lists_may_be_empty(recipe: Path) -> None:
    settings, args = parse(add(recipe, "feature_cache: off\nmetadata_fields: []\nfp16: false\n"))
    assert settings.feature_cache == "off" and settings.metadata_fields == [] and args.fp16 is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1\n", "variant.yaml: unknown key 'learning_rat'; the nearest key is 'learning_rate'"),
        ("zzzz: 1\n", "no key has a similar name"),
        ("seed: 1\nseed: 2\n", "key 'seed' stands twice"),
        ("learning_rate: fast\n", "learning_rate.*invalid float value: 'fast'"),
        ("view_layout: photo13\n", "view_layout.*photo13"),
        ("dev_share: 1.5\n", "dev_share=1.5"),
        ("ema_decay: 1\n", "ema_decay=1.0"),
        ("early_stopping_patience: -1\n", "early_stopping_patience=-1"),
        ("focal_alpha: [1, 2, 3]\n", "focal_alpha"),
        ("loss_weights: focal\n", "loss_weights='focal'"),
        ("- a list\n", "variant.yaml"),
        ("augmentation: hevy\n", "augmentation='hevy' is no preset; did you mean 'heavy'"),
        ("mixup_alpha: -0.5\n", r"mixup_alpha=-0\.5 must be 0"),
    ],
)
def test_wrong_recipe_names_the_key_and_the_value(recipe: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(add(recipe, text))


def test_unknown_key_on_the_command_line_is_no_abbreviation(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"command line: unknown key '--learning-rat'; the nearest.*learning_rate"):
        parse(recipe, "--learning-rat", "1")


def test_missing_file_and_missing_key_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe file at .*none\.yaml"):
        parse(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="dataset_name"):
        parse_recipe([], BOTH)

"""The six members' YAMLs: the plan's numbers, no other differences, and a tiny training of each."""

import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import ConvNextV2Config, ConvNextV2Model, DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.data.augmentation_presets import PLAN, probabilities
from natix_roadwork.gps.gate import plan_sampling
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.pretrain_inputs import load_splits
from natix_roadwork.training.pretraining import resolved_config
from natix_roadwork.training.yaml_args import parse_recipe
from tests.recipe_photos import write_photos


ROOT = Path(__file__).parents[1]
PRETRAIN = ROOT / "recipes" / "pretrain"
DINOV3, CONVNEXT = "timm/vit_huge_plus_patch16_dinov3.lvd1689m", "facebook/convnextv2-base-22k-384"
# The plan's column for the six-model ensemble. It gives an augmentation factor for two members only.
COLUMNS = (
    *("seed", "learning_rate", "dropout", "gps_near_weight", "augmentation", "keep_views", "num_attention_layers"),
    *("hidden_size", "num_attention_heads", "backbone_id"),
)
SPEC = {
    "model_1_baseline": (42, 3e-4, 0.10, 5.0, "none", 8, 4, 512, 8, DINOV3),
    "model_2_no_pruning": (123, 2.5e-4, 0.15, 7.5, "x1.5", 12, 4, 512, 8, DINOV3),
    "model_3_deeper": (456, 3.5e-4, 0.20, 3.0, "x0.75", 8, 6, 512, 8, DINOV3),
    "model_4_wider": (789, 3e-4, 0.10, 5.0, "none", 8, 4, 768, 8, DINOV3),
    "model_5_more_heads": (2026, 3e-4, 0.10, 5.0, "none", 8, 4, 512, 16, DINOV3),
    "model_6_convnext": (314, 3e-4, 0.10, 5.0, "none", 8, 4, 512, 8, CONVNEXT),
}
# What follows from a column, since the baseline solves its GPS weights and reads cached tokens.
FOLLOWS = {"gps_near_weight": "gps_target_share", "augmentation": "feature_draws"}


def resolved(name: str) -> dict[str, Any]:
    argv = ["--config", str(PRETRAIN / f"{name}.yaml"), "--use_cpu", "true"]
    return resolved_config(*parse_recipe(argv, (PretrainArguments, RoadworkTrainingArguments)))


@pytest.fixture(scope="module")
def members() -> dict[str, dict[str, Any]]:
    return {name: resolved(name) for name in SPEC}


def test_members_have_the_numbers_of_the_plan(members: dict[str, dict[str, Any]]) -> None:
    assert sorted(path.stem for path in PRETRAIN.glob("model_*.yaml")) == sorted(SPEC)
    assert {name: tuple(found[key] for key in COLUMNS) for name, found in members.items()} == SPEC
    assert {found["output_dir"] for found in members.values()} == {f"runs/{name}" for name in SPEC}


@pytest.mark.parametrize("pair", list(itertools.combinations(SPEC, 2)), ids="-".join)
def test_members_differ_as_planned_and_in_nothing_else(
    pair: tuple[str, str], members: dict[str, dict[str, Any]]
) -> None:
    one, other = (members[name] for name in pair)
    planned = {key for key, a, b in zip(COLUMNS, *(SPEC[name] for name in pair), strict=True) if a != b}
    if one["feature_draws"] == other["feature_draws"]:  # both augment
        planned |= {"gps_target_share"} & {FOLLOWS.get(key) for key in planned}
    else:
        planned |= {FOLLOWS[key] for key in planned if key in FOLLOWS}
    assert {key for key in one if one[key] != other[key]} == planned | {"output_dir"}


def test_members_share_their_dev_rows(members: dict[str, dict[str, Any]]) -> None:
    assert {found["split_seed"] for found in members.values()} == {42}


def test_split_seed_decides_the_dev_rows_and_the_seed_does_not(tmp_path: Path) -> None:
    rows = write_photos(tmp_path) / "train"
    found = []
    for seed, split_seed in ((1, 42), (2, 42), (42, None), (2, None)):
        settings = PretrainArguments(str(rows), split_seed=split_seed, near_duplicates=False, dev_share=0.4)
        args = RoadworkTrainingArguments(output_dir=str(tmp_path), seed=seed, use_cpu=True)
        found.append(set(load_splits(settings, args)[1]["dev"]["row_id"][:]))
    assert found[0] == found[1] == found[2] != found[3]


@pytest.mark.parametrize("name", SPEC)
def test_solved_target_shares_are_the_planned_near_weights(name: str, members: dict[str, dict[str, Any]]) -> None:
    """A near weight w multiplies the odds of a near draw by w / 5."""
    share, baseline = members[name]["gps_target_share"], members["model_1_baseline"]["gps_target_share"]
    factor = share / (1 - share) / (baseline / (1 - baseline))
    assert factor == pytest.approx(members[name]["gps_near_weight"] / 5.0, abs=5e-3)


def test_gps_settings_change_the_draws() -> None:
    """Of 400 rows, 40 % within 50 km of the targets, a member draws near ones at the share its YAML asks for."""
    draw = np.random.default_rng(0)
    near = np.array([40.0, -80.0]) + draw.normal(0, 0.05, (160, 2))
    train, target = np.concatenate([near, np.add(near[:80].repeat(3, axis=0), [3.0, 0.0])]), near[::8]
    drawn = {}
    for name in ("model_1_baseline", "model_2_no_pruning", "model_3_deeper"):
        argv = ["--config", str(PRETRAIN / f"{name}.yaml"), "--use_cpu", "true"]
        settings, _ = parse_recipe(argv, (PretrainArguments, RoadworkTrainingArguments))
        drawn[name] = plan_sampling(train, target, settings).check.expected.within[50.0]
    assert list(drawn.values()) == pytest.approx([0.7, 0.778, 0.583], abs=2e-3)


@pytest.mark.parametrize(("preset", "factor"), [("x1.5", 1.5), ("x0.75", 0.75)])
def test_augmentation_is_the_planned_multiple(preset: str, factor: float) -> None:
    wanted = {name: min(0.95, factor * p) for name, p in (PLAN | {"flip": 0.5}).items()}
    assert probabilities(preset) == pytest.approx(wanted)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_recipe_of_members", ROOT / "recipes" / "pretrain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_backbones(folder: Path) -> dict[str, str]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vit = DINOv3ViTModel(DINOv3ViTConfig(patch_size=16, image_size=32, num_register_tokens=4, **sizes))
    convnext = ConvNextV2Model(ConvNextV2Config(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1], image_size=32))
    for name, backbone in (("vit", vit), ("convnext", convnext)):
        backbone.save_pretrained(folder / name)
    return {DINOV3: str(folder / "vit"), CONVNEXT: str(folder / "convnext")}


def test_all_members_train_at_tiny_size(
    recipe: ModuleType, members: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads a sixteenth as wide, on backbones of 16 and 24 channels; layers, heads and views as in the YAML."""
    torch.set_num_threads(1)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "photos").mkdir()
    photos, backbones = write_photos(tmp_path / "photos"), tiny_backbones(tmp_path)
    for name, planned in members.items():
        values = {
            "dataset_name": photos,
            "output_dir": tmp_path / name,
            "backbone_id": backbones[planned["backbone_id"]],
        }
        values |= {"hidden_size": planned["hidden_size"] // 16, "view_size": 32, "per_device_train_batch_size": 4}
        values |= {"max_steps": 1, "use_cpu": "true", "disable_tqdm": "true", "baselines": "false"}
        recipe.main(
            ["--config", str(PRETRAIN / f"{name}.yaml"), *(f"--{key}={value}" for key, value in values.items())]
        )
        check_trained(tmp_path / name, planned)
    found = sorted(
        json.loads(path.read_text())["rows"]["count"] for path in (tmp_path / "cache").rglob("settings.json")
    )
    # Tokens of 16 train rows: clean, with the draws of two members, of ConvNeXt. Of 8 dev and 8 test rows: two each.
    assert found == [8] * 4 + [16] * 4


def check_trained(folder: Path, planned: dict[str, Any]) -> None:
    """What was planned is in the saved model and in the record of its training."""
    result, saved = (json.loads((folder / name).read_text()) for name in ("result.json", "config.json"))
    kept = {key: saved[key] for key in ("keep_views", "dropout", "num_attention_layers", "num_attention_heads")}
    assert kept == {key: planned[key] for key in kept} and saved["hidden_size"] == planned["hidden_size"] // 16
    kind = "convnextv2" if planned["backbone_id"] == CONVNEXT else "dinov3_vit"
    assert saved["backbone_config"]["model_type"] == kind
    trained = ("seed", "learning_rate", "augmentation", "feature_draws", "gps_near_weight", "gps_target_share")
    assert {key: result["config"][key] for key in trained} == {key: planned[key] for key in trained}
    assert result["details"]["gps"]["asked_for"] == "solved" and result["metrics"]["dev"]["mcc"]["value"] is not None

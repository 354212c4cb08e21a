"""The recipes as a user starts them: whole runs at tiny size, in this process where that is enough."""

import importlib.util
import json
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
    pipeline,
)

from natix_roadwork.data.scenes import write_scenes
from natix_roadwork.training import pretraining
from tests.masks import mask_all
from tests.recipe_photos import write_photos


ROOT = Path(__file__).parents[1]
# Recipes of one run; pretrain_members.py reads a list of runs.
PARSED = sorted(path.stem for path in (ROOT / "recipes").glob("*.py") if "parse_recipe(" in path.read_text())
PRETRAIN = ROOT / "recipes" / "pretrain"
TINY = {
    "use_cpu": "true",
    "view_size": 32,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_attention_layers": 1,
    "per_device_train_batch_size": 4,
    "disable_tqdm": "true",
    "seed": 1,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_recipe", ROOT / "recipes" / "pretrain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    DINOv3ViTModel(DINOv3ViTConfig(patch_size=16, image_size=32, num_register_tokens=4, **sizes)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def command(photos: Path, backbone: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a tiny run of a variant."""

    def build(variant: str, **settings: object) -> list[str]:
        paths = {"dataset_name": photos, "backbone_id": backbone, "output_dir": tmp_path / "run"}
        pairs = (TINY | paths | settings).items()
        return ["--config", str(PRETRAIN / variant), *(f"--{key}={value}" for key, value in pairs)]

    return build


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in result_of(folder)["details"]["log"] if "loss" in line]


def loaded(auto_class: type, folder: Path) -> PreTrainedModel:
    """A finished run's model, every weight of which comes from its folder."""
    model, info = auto_class.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model.eval()


@torch.no_grad()
def check_same_model(folder: Path, other: PreTrainedModel) -> None:
    """Both Auto classes load the folder, and give the logits and the embedding of the other model, bit for bit."""
    pixels = torch.randn(2, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = other.eval()(pixel_values=pixels)
    classified = loaded(AutoModelForImageClassification, folder)(pixel_values=pixels)
    assert torch.equal(classified.logits, expected.logits) and torch.equal(classified.embedding, expected.embedding)
    assert torch.equal(loaded(AutoModel, folder)(pixel_values=pixels).embedding, expected.embedding)


def test_plan_runs_at_tiny_size(
    recipe: ModuleType, command: Callable[..., list[str]], photos: Path, tmp_path: Path
) -> None:
    settings = {
        "mask_folder": mask_all(tmp_path / "masks", photos),
        "max_steps": 2,
        "logging_steps": 1,
        "torch_compile": "false",
        "text_encoder_id": "embedded:all-minilm-l6-v2",
    }
    recipe.main([*command("plan.yaml", **settings), "--torch_compile_mode", "null"])
    result = result_of(tmp_path / "run")
    assert result["config"]["bf16"] and result["config"]["gradient_accumulation_steps"] == 2
    assert set(result["metrics"]) == {"dev", "test"}
    chosen = result["details"]["metadata"]
    assert chosen["fields"] == ["gps", "weather", "daytime", "scene", "text"] and "audit" in chosen
    assert loaded(AutoModelForImageClassification, tmp_path / "run").metadata_fusion.encoder.width == 704
    assert all(any(f"loss_{term}" in line for line in result["details"]["log"]) for term in ("weather", "mask"))
    gps = result["details"]["gps"]
    assert gps["sampling"] == "off" and gps["check"]["passed"] and gps["adapts_to_test"]  # all rows are near already
    assert any("covariate-shift adaptation" in text for text in result["warnings"])
    assert {"train_gps.npy", "target_gps.npy", "gps_map.png"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_run_from_tokens_learns_and_can_be_loaded(
    recipe: ModuleType,
    command: Callable[..., list[str]],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainers, build = [], pretraining.build_trainer
    monkeypatch.setattr(pretraining, "build_trainer", lambda *inputs: trainers.append(build(*inputs)) or trainers[0])
    settings = {"feature_cache": tmp_path / "tokens", "num_train_epochs": 8, "learning_rate": 5e-3}
    recipe.main(command("model_1_baseline.yaml", gradient_accumulation_steps=1, **settings))
    result, printed = result_of(tmp_path / "run"), capsys.readouterr().out
    assert result["metrics"]["test"]["mcc"]["value"] == 1.0 and "attention_pool" in printed
    assert set(result["baselines"]) == {"majority", "knn", "logreg_global", "logreg_mean_max", "attention_pool"}
    assert result["data"]["counts"]["kept"]["test"] == {"None": 4, "Roadwork": 4}
    assert result["data"]["commit"] is None and "warning: dev holds 4 None and 4 Roadwork rows" in printed
    model = result["details"]["model"]
    assert "backbone_id" not in model  # a folder of this machine
    assert model["focal_alpha"] == [1.0, 1.0] and len(model["image_mean"]) == 3 and "backbone_config" not in model
    check_same_model(tmp_path / "run", trainers[0].model)
    classify = pipeline("image-classification", model=str(tmp_path / "run"), device="cpu")
    assert classify(Image.open(photos / "test" / "1.png"))[0]["label"] == "Roadwork"


def test_tokens_and_pixels_train_alike(recipe: ModuleType, command: Callable[..., list[str]], tmp_path: Path) -> None:
    common = {"max_steps": 4, "logging_steps": 1, "dropout": 0, "gradient_accumulation_steps": 1, "baselines": "false"}
    for cache in ("off", tmp_path / "tokens"):
        recipe.main(
            command("model_1_baseline.yaml", **common, feature_cache=cache, output_dir=tmp_path / Path(cache).name)
        )
    np.testing.assert_allclose(losses(tmp_path / "off"), losses(tmp_path / "tokens"), atol=5e-3)


def test_one_view_trains_from_photos(recipe: ModuleType, command: Callable[..., list[str]], tmp_path: Path) -> None:
    settings = {"view_layout": "single", "feature_cache": "off", "evidence_grid": 0, "max_steps": 1}
    recipe.main(command("model_1_baseline.yaml", **settings, baselines="false", dataloader_num_workers=1))
    result = result_of(tmp_path / "run")
    assert result["metrics"]["dev"]["mcc"]["value"] is not None
    assert not any(key.startswith("eval_view") for line in result["details"]["log"] for key in line)


def test_dry_run_writes_a_report_only(
    recipe: ModuleType, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.main(command("model_1_baseline.yaml", dry_run="true", gradient_accumulation_steps=1))
    report = json.loads((tmp_path / "run" / "dry_run.json").read_text())
    assert report["rows"] == {"train": 16, "dev": 8, "test": 8} and report["steps"] == 120
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dry_run.json"]
    assert report["gps"]["asked_for"] == "solved" and report["gps"]["check"]["expected"]["within_50_km"] == 1.0
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("seconds_a_step", "draws: 100.0% <= 50 km", "size 100.0% of 16 rows"))


def test_earlier_run_is_not_overwritten_unasked(
    recipe: ModuleType, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"checkpoint-5 of an earlier run.*--existing_run resume"):
        recipe.main(command("model_1_baseline.yaml"))
    assert (tmp_path / "run" / "checkpoint-5").is_dir()


def test_quickstart_runs_two_steps_on_scenes(recipe: ModuleType, tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", num_rows=24, width=480, masks=False, progress=False)
    settings = {"dataset_name": scenes, "output_dir": tmp_path / "run", "view_size": 64, "max_steps": 2}
    pairs = [f"--{key}={value}" for key, value in settings.items()]
    recipe.main(["--config", str(PRETRAIN / "quickstart.yaml"), *pairs, f"--feature_cache={tmp_path}"])
    result = result_of(tmp_path / "run")
    assert set(result["metrics"]) == {"dev"}, "a lockbox was scored"
    assert result["config"]["ema_decay"] > 0 and result["details"]["steps"] == 2
    assert "drawn scenes" in result["warnings"][0]


def test_tokens_are_computed_once(recipe: ModuleType, command: Callable[..., list[str]], tmp_path: Path) -> None:
    settings = {"feature_cache": tmp_path / "tokens", "max_steps": 1, "baselines": "false"}
    recipe.main(command("model_1_baseline.yaml", **settings, output_dir=tmp_path / "first"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").rglob("*")}
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {"train", "dev", "test"}
    recipe.main(command("model_1_baseline.yaml", **settings, output_dir=tmp_path / "second"))
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").rglob("*")}
    with pytest.raises(ValueError, match=r"features of other settings \(evidence_grid: 2 there, 1 now\)"):
        recipe.main(command("model_1_baseline.yaml", **settings, output_dir=tmp_path / "third", evidence_grid=1))


def test_killed_recipe_resumes_bit_for_bit(
    recipe: ModuleType, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    def run(folder: Path) -> multiprocessing.Process:
        settings = {"existing_run": "resume", "num_train_epochs": 6, "ema_decay": 0.9, "baselines": "false"}
        arguments = command("model_1_baseline.yaml", output_dir=folder, gradient_accumulation_steps=1, **settings)
        child = multiprocessing.get_context("fork").Process(target=recipe.main, args=(arguments,))
        child.start()
        return child

    victim = run(tmp_path / "killed")
    wanted = random.Random(0).randrange(4, 20, 4)
    while not (tmp_path / "killed" / f"checkpoint-{wanted}").exists():
        assert victim.is_alive(), f"the run ended with {victim.exitcode} before checkpoint {wanted}"
        time.sleep(0.001)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(60)
    for child in (run(tmp_path / "killed"), run(tmp_path / "whole")):
        child.join(180)
        assert child.exitcode == 0
    killed, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert [key for key in whole if not torch.equal(killed[key], whole[key])] == []
    check_same_model(tmp_path / "killed", loaded(AutoModelForImageClassification, tmp_path / "whole"))


@pytest.mark.parametrize("error", [ValueError, ImportError, OSError])
@pytest.mark.parametrize("name", PARSED)
def test_a_user_s_error_is_one_line(name: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise error("no such thing:\n  here")

    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    monkeypatch.setattr("natix_roadwork.training.yaml_args.parse_recipe", fail)
    with pytest.raises(SystemExit, match=f"^{name}: no such thing: here$"):
        runpy.run_path(str(ROOT / "recipes" / f"{name}.py"), run_name="__main__")


@pytest.mark.process
def test_accelerate_launch_runs_the_recipe(command: Callable[..., list[str]], tmp_path: Path) -> None:
    config = ["--config_file", str(ROOT / "recipes" / "accelerate" / "cpu.yaml")]
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *config, "recipes/pretrain.py"]
    done = subprocess.run(
        [*launch, *command("model_1_baseline.yaml", max_steps=2)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert result_of(tmp_path / "run")["command"][:2] == ["accelerate", "launch"]
    assert "logreg_mean_max" in done.stdout


@pytest.mark.process
def test_two_processes_train_as_one(
    recipe: ModuleType, command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"max_steps": 8, "logging_steps": 1, "dropout": 0, "gradient_accumulation_steps": 1, "seed": 1}
    common |= {"baselines": "false", "learning_rate": 3e-3, "feature_cache": tmp_path / "tokens"}
    one = command("model_1_baseline.yaml", **common, per_device_train_batch_size=4, output_dir=tmp_path / "one")
    two = command("model_1_baseline.yaml", **common, per_device_train_batch_size=2, output_dir=tmp_path / "two")
    recipe.main(one)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "recipes/pretrain.py", *two], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert result_of(tmp_path / "two")["environment"]["world_size"] == 2
    assert result_of(tmp_path / "one")["environment"]["world_size"] == 1
    assert len(losses(tmp_path / "one")) == 8
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "two"), atol=1e-4)

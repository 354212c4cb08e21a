"""Two tiny members as a user trains them: each its own `accelerate launch`, one killed and continued."""

import importlib.util
import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch
from transformers import AutoModelForImageClassification, DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.training import member_runs
from natix_roadwork.training.checkpoints import checkpoint_folders, checkpoint_step
from natix_roadwork.training.members import MembersArguments
from tests.recipe_photos import write_photos


ROOT = Path(__file__).parents[1]
MEMBERS = """
launch_config: recipes/accelerate/cpu.yaml
members:
  first: recipes/pretrain/model_1_baseline.yaml
  second: {recipe: recipes/pretrain/model_5_more_heads.yaml, num_attention_heads: 4, squares: [left, right]}
"""
EPOCHS = 8
TINY = {
    "baselines": "false",
    "early_stopping_patience": 0,
    "hidden_size": 16,
    "num_attention_layers": 1,
    "num_train_epochs": EPOCHS,
    "per_device_train_batch_size": 4,
    "view_size": 32,
    "workers": 2,
}


def kill_training(folder: Path) -> None:
    """Kill a member's training process, not its launcher, once its second checkpoint is there."""
    while not any(checkpoint_step(path) >= 4 for path in checkpoint_folders(folder)):
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        words = process.cmdline()
        if f"--output_dir={folder}" in words and "accelerate.commands.accelerate_cli" not in words:
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(member_runs, "POLL_SECONDS", 0.1)
    spec = importlib.util.spec_from_file_location("pretrain_members", ROOT / "recipes" / "pretrain_members.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command line of two tiny members on bright and dark photos."""
    (tmp_path / "photos").mkdir()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    DINOv3ViTModel(DINOv3ViTConfig(patch_size=16, image_size=32, **sizes)).save_pretrained(tmp_path / "backbone")
    (tmp_path / "members.yaml").write_text(MEMBERS)
    values = TINY | {"dataset_name": write_photos(tmp_path / "photos"), "backbone_id": tmp_path / "backbone"}
    values |= {"output_dir": tmp_path / "out", "feature_cache": tmp_path / "tokens"}
    return ["--config", str(tmp_path / "members.yaml"), *(f"--{key}={value}" for key, value in values.items())]


def test_a_device_is_not_overruled_by_the_launch_config(recipe: ModuleType) -> None:
    """`recipes/accelerate/one_gpu.yaml` names GPU 0, which accelerate would set over CUDA_VISIBLE_DEVICES."""
    arguments = MembersArguments("members.yaml", devices=["1", "2"])
    words = recipe.launch_words(arguments)
    assert words[words.index("--gpu_ids") + 1] == "all" and words[-1] == "recipes/pretrain.py"
    assert "--gpu_ids" not in recipe.launch_words(MembersArguments("members.yaml"))


def test_a_user_s_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain_members.py", "--config", "absent.yaml"])
    with pytest.raises(SystemExit, match=r"^pretrain_members: config: no recipe file at 'absent.yaml'$"):
        runpy.run_path(str(ROOT / "recipes" / "pretrain_members.py"), run_name="__main__")


@pytest.mark.process
def test_a_killed_member_is_continued(
    recipe: ModuleType, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    killer = threading.Thread(target=kill_training, args=(out / "first",), daemon=True)
    killer.start()
    with pytest.raises(SystemExit, match="first failed"):
        recipe.main(words)
    killer.join()
    printed = capsys.readouterr().out
    assert "first: failed" in printed and "second: trained" in printed
    assert not (out / "first" / "result.json").exists() and len(list((tmp_path / "tokens").iterdir())) == 2
    listed = json.loads((out / "members.json").read_text())
    assert listed["failed"] == ["first"] and [entry["name"] for entry in listed["members"]] == ["second"]
    recipe.main(words)
    printed = capsys.readouterr().out
    assert "first: trained" in printed and "second: trained before, skipped" in printed
    before, after = (text.count("'eval_mcc'") for text in (out / "first" / "train.log").read_text().split("\n$ "))
    assert before >= 2 and EPOCHS <= before + after <= EPOCHS + 1, "it began anew"
    listed = json.loads((out / "members.json").read_text())
    assert [entry["name"] for entry in listed["members"]] == ["first", "second"] and not listed["failed"]
    assert len({entry["splits"] for entry in listed["members"]}) == 1 and (out / "split_manifest.json").is_file()
    for entry in listed["members"]:
        model = AutoModelForImageClassification.from_pretrained(out / entry["folder"])
        assert model.config.num_attention_heads == {"first": 8, "second": 4}[entry["name"]]
        assert f"{entry['metrics']['dev']['mcc']['value']:.3f} [" in printed
    result = json.loads((out / "result.json").read_text())
    assert result["metrics"]["dev"]["first.mcc"] == listed["members"][0]["metrics"]["dev"]["mcc"]

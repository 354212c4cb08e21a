"""The extraction recipe as a user starts it, and training on what it leaves."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from natix_roadwork.data.feature_cache import TokenPasses
from tests.recipe_photos import write_photos


ROOT = Path(__file__).parents[1]


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_recipe", ROOT / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(tmp_path: Path, tiny_backbone_config: DINOv3ViTConfig) -> Callable[..., list[str]]:
    """The command line of a variant on a few photos and a tiny backbone."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    DINOv3ViTModel(tiny_backbone_config).save_pretrained(tmp_path / "backbone")
    (tmp_path / "photos").mkdir()
    write_photos(tmp_path / "photos")
    paths = {"dataset_name": tmp_path / "photos", "backbone_id": tmp_path / "backbone"}
    common = paths | {"view_size": 32, "use_cpu": "true", "disable_tqdm": "true"}

    def build(variant: str, **settings: object) -> list[str]:
        pairs = (common | settings).items()
        return ["--config", str(ROOT / "recipes" / variant), *(f"--{key}={value}" for key, value in pairs)]

    return build


def test_features_of_the_recipe_are_trained_on(
    command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe("extract_features").main(
        command("extract_features/natix.yaml", output_dir=tmp_path / "features", dataloader_num_workers=1)
    )
    printed = capsys.readouterr().out
    assert "KiB a photo" in printed and str(tmp_path / "features" / "train") in printed
    facts = json.loads((tmp_path / "features" / "result.json").read_text())["details"]["features"]
    assert {name: found["shape"] for name, found in facts.items()} == {
        "train": [16, 1, 12, 6, 16],
        "dev": [8, 1, 12, 6, 16],
        "test": [8, 1, 12, 6, 16],
    }
    monkeypatch.setattr(TokenPasses, "compute", lambda *_, **__: pytest.fail("computed again"))
    head = {"hidden_size": 16, "num_attention_heads": 2, "max_steps": 1, "baselines": "false"}
    head |= {
        "output_dir": tmp_path / "run",
        "feature_cache": tmp_path / "features",
        "per_device_train_batch_size": 4,
        "dataloader_num_workers": 1,
    }
    pretrain = recipe("pretrain")
    pretrain.main(command("pretrain/model_1_baseline.yaml", **head))
    assert (tmp_path / "run" / "model.safetensors").is_file()
    with pytest.raises(ValueError, match=r"other settings \(processor\.global_fit: 'squash' there, 'letterbox' now"):
        pretrain.main(command("pretrain/model_1_baseline.yaml", **head | {"global_fit": "letterbox", "existing_run": "overwrite"}))  # fmt: skip


def test_draws_without_an_augmentation_are_refused(command: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="feature_draws=2 without an augmentation"):
        recipe("extract_features").main(
            command("extract_features/natix.yaml", output_dir=tmp_path / "features", feature_draws=2)
        )

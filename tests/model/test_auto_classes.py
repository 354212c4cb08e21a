import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    DINOv3ViTConfig,
    pipeline,
)

from natix_roadwork import (
    RoadworkConfig,
    RoadworkForImageClassification,
    RoadworkImageProcessor,
    RoadworkModel,
    RoadworkOutput,
)


COMMIT = "0123456789abcdef0123456789abcdef01234567"

# Run by a Python that can import neither the package nor simplejpeg: arguments are the checkpoint, a photo and the file to write.
STRANGER = """
import sys


class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("natix_roadwork", "simplejpeg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NoPackage())
import json

from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

folder, photo, answer = sys.argv[1:]
views = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)(photo)
model, info = AutoModelForImageClassification.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True
)
bare, bare_info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
classify = pipeline("image-classification", model=folder, trust_remote_code=True)
with open(answer, "w") as file:
    json.dump(
        {
            "packages": [name for name in ("natix_roadwork", "simplejpeg") if name in sys.modules],
            "views": list(views["pixel_values"].shape),
            "logits": model(**views).logits.tolist(),
            "embedding": bare(**views).embedding.tolist(),
            "classes": [type(model).__name__, type(bare).__name__],
            "not_loaded": [str(keys) for loaded in (info, bare_info) for keys in loaded.values() if keys],
            "answer": classify(Image.open(photo)),
        },
        file,
    )
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


@pytest.fixture
def checkpoint(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> Path:
    """A saved model with its processor."""
    tiny_model.save_pretrained(tmp_path / "checkpoint")
    RoadworkImageProcessor(view_size=32).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def answer_of(model: torch.nn.Module, photo: Path) -> RoadworkOutput:
    with torch.no_grad():
        return model(**RoadworkImageProcessor(view_size=32)(str(photo)))


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [(AutoModel, RoadworkModel), (AutoModelForImageClassification, RoadworkForImageClassification)],
)
def test_auto_class_loads_every_key_and_gives_the_same_bits(
    checkpoint: Path,
    tiny_model: RoadworkForImageClassification,
    photo: Path,
    auto_class: type,
    model_class: type,
) -> None:
    loaded, info = auto_class.from_pretrained(checkpoint, output_loading_info=True)
    assert type(loaded) is model_class
    assert not any(info.values()), info
    assert torch.equal(answer_of(loaded, photo).embedding, answer_of(tiny_model, photo).embedding)
    if auto_class is AutoModelForImageClassification:
        assert torch.equal(answer_of(loaded, photo).logits, answer_of(tiny_model, photo).logits)


def test_config_and_processor_load_by_auto_class(checkpoint: Path) -> None:
    assert type(AutoConfig.from_pretrained(checkpoint)) is RoadworkConfig
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    assert type(processor) is RoadworkImageProcessor and processor.view_size == 32


@pytest.mark.parametrize("saved_class", [RoadworkForImageClassification, RoadworkModel])
def test_auto_map_names_all_three_classes_and_their_files_are_there(
    tiny_config: RoadworkConfig, tmp_path: Path, saved_class: type
) -> None:
    saved_class(tiny_config).save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForImageClassification"}
    for reference in auto_map.values():
        module, name = reference.split(".")
        assert f"class {name}(" in (tmp_path / f"{module}.py").read_text()


def test_checkpoint_holds_only_safetensors_json_and_code(checkpoint: Path) -> None:
    assert {file.suffix for file in checkpoint.iterdir()} == {".safetensors", ".json", ".py"}


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": False}])
def test_pipeline_answers_without_asking(
    checkpoint: Path,
    tiny_model: RoadworkForImageClassification,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, bool],
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", refuse)
    monkeypatch.setattr(sys, "stdin", None)
    answers = pipeline("image-classification", model=str(checkpoint), **options)(Image.open(photo))
    probabilities = answer_of(tiny_model, photo).logits.softmax(dim=1)[0]
    scores = {answer["label"]: answer["score"] for answer in answers}
    assert scores == pytest.approx({"None": probabilities[0].item(), "Roadwork": probabilities[1].item()}, abs=1e-5)


def fill_hub_cache(cache: Path, hub_id: str, backbone: Path) -> None:
    """Lays files out as a download does: blobs, a branch that names a commit, and links in its snapshot."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in backbone.iterdir():
        shutil.copy(file, repository / "blobs" / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(repository / "blobs" / f"blob-{file.name}")


@pytest.mark.process
def test_a_stranger_without_the_package_gets_the_same_answer(
    tiny_backbone_config: DINOv3ViTConfig, photo: Path, tmp_path: Path
) -> None:
    AutoModel.from_config(tiny_backbone_config).save_pretrained(tmp_path / "backbone")
    fill_hub_cache(tmp_path / "hub", "acme/tiny", tmp_path / "backbone")
    model = RoadworkForImageClassification.from_backbone(
        "acme/tiny", cache_dir=tmp_path / "hub", view_size=32, hidden_size=16, num_attention_heads=2, evidence_size=8,
        metadata_fields=["gps", "weather"], loss_weights={"focal": 0.4, "weather": 0.15},
    ).eval()  # fmt: skip
    model.save_pretrained(tmp_path / "checkpoint")  # without the backbone, which the stranger's cache holds
    RoadworkImageProcessor(view_size=32).save_pretrained(tmp_path / "checkpoint")
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": str(tmp_path / "home")}
    arguments = [str(tmp_path / "checkpoint"), str(photo), str(tmp_path / "answer.json")]
    subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, *arguments],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=300,
    )
    found, expected = json.loads((tmp_path / "answer.json").read_text()), answer_of(model, photo)
    assert found["packages"] == []
    assert found["not_loaded"] == []
    assert found["classes"] == ["RoadworkForImageClassification", "RoadworkModel"]
    assert found["views"] == [1, 12, 3, 32, 32]
    assert torch.equal(torch.tensor(found["logits"]), expected.logits)
    assert torch.equal(torch.tensor(found["embedding"]), expected.embedding)
    assert {answer["label"] for answer in found["answer"]} == {"None", "Roadwork"}

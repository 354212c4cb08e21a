"""A lite folder: what a stranger loads from it without our code, and what is not exported."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BitImageProcessor,
    ConvNextImageProcessor,
    DINOv3ViTConfig,
    ViTImageProcessor,
)

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.hub.check import check_folder
from natix_roadwork.hub.export import LiteCard, as_vit_processor, export_lite
from natix_roadwork.training.distillation_student import vit_processor
from tests.student_runs import TINY, tiny_student


CARD = LiteCard("lite", "For tests.", "1.2.3", "5Hotkey", "someone/roadwork-lite")
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False}


def write(folder: Path, name: str = "vit", **values: object) -> Path:
    defaults = {"model": tiny_student(name), "processor": vit_processor(), "card": CARD, "profile": "stock-4.45"}
    return export_lite(folder=folder, **defaults | values)


@pytest.mark.parametrize("name", TINY)
def test_folder_holds_labels_weights_and_an_explicit_processor(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "lite", name)
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "None", "1": "Roadwork"} and config["label2id"] == {"None": 0, "Roadwork": 1}
    assert config["problem_type"] == "single_label_classification" and config["num_labels"] == 2
    assert config["model_type"] == name and "auto_map" not in config
    assert json.loads((folder / "preprocessor_config.json").read_text()) == {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 224, "width": 224},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        **HALF,
    }
    suffixes = {path.suffix for path in folder.iterdir()}
    assert suffixes == {".json", ".safetensors", ".md", ".yaml", ".env"}


def test_card_and_miner_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "lite")
    card = json.loads((folder / "model_card.json").read_text())
    assert set(card) == {"model_name", "description", "version", "submitted_by", "submission_time"}
    assert card["version"] == "1.2.3" and card["submitted_by"] == "5Hotkey"
    assert isinstance(card["submission_time"], int) and abs(card["submission_time"] - time.time()) < 600
    assert yaml.safe_load((folder / "ViT_roadwork.yaml").read_text()) == {
        "hf_repo": "someone/roadwork-lite",
        "config_name": "config.yaml",
        "weights": "model.safetensors",
    }
    assert (folder / "miner.env").read_text().splitlines() == [
        "IMAGE_DETECTOR=ViT",
        "IMAGE_DETECTOR_CONFIG=ViT_roadwork.yaml",
    ]
    assert re.search(
        r'pipeline\("image-classification", model="someone/roadwork-lite"\)', (folder / "README.md").read_text()
    )


def test_without_a_hotkey_there_is_no_card(tmp_path: Path) -> None:
    folder = write(tmp_path / "lite", card=LiteCard("lite", "For tests."))
    assert not (folder / "model_card.json").exists()


@pytest.mark.parametrize("profile", ["stock-4.45", "modern"])
def test_the_folder_passes_the_miners_check(tmp_path: Path, profile: str) -> None:
    card = LiteCard("lite", "For tests.", submitted_by="5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
    report = check_folder(write(tmp_path / "lite", card=card, profile=profile), profile)
    assert report.scores, report.text()


def test_sigmoid_of_one_logit_is_the_softmax_of_both(tmp_path: Path) -> None:
    """transformers 4.45.2 answers the former for single_label_classification, newer ones the latter."""
    before = tiny_student()
    read = AutoModelForImageClassification.from_pretrained(write(tmp_path / "lite", model=before)).eval()
    pixels = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, logits = before(pixel_values=pixels).logits.softmax(-1)[:, 1], read(pixel_values=pixels).logits
    torch.testing.assert_close(logits[:, 1].sigmoid(), wanted)
    torch.testing.assert_close(logits.softmax(-1)[:, 1], wanted)
    assert before.classifier.weight[0].abs().sum() > 0  # the student itself is left as it was


READ = """
import sys
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
folder, photo = sys.argv[1:]
model, processor = AutoModelForImageClassification.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
found = {line["label"]: line["score"] for line in pipeline("image-classification", model=model, image_processor=processor)(photo)}
assert not [name for name in sys.modules if name.startswith("natix_roadwork")], "our package was imported"
print(found["Roadwork"], found["None"], type(processor).__name__)
"""


@pytest.mark.process
def test_a_reader_without_our_package_gets_the_same_answer(tmp_path: Path) -> None:
    folder, photo = write(tmp_path / "lite"), tmp_path / "photo.png"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 320, 3), dtype=np.uint8))
    picture.save(photo)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder), str(photo)], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    roadwork, none, processor = done.stdout.split()
    pixels = vit_processor()(images=picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = tiny_student()(pixel_values=pixels).logits.softmax(-1)[0]
    assert float(roadwork) == pytest.approx(expected[1].item(), abs=1e-6)
    assert float(none) == pytest.approx(expected[0].item(), abs=1e-6) and processor == "ViTImageProcessor"


def test_timm_student_keeps_the_processor_it_was_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("natix_roadwork.hub.export.logger.warning", told.append)
    from transformers import TimmWrapperConfig

    from natix_roadwork.training.distillation_student import label_settings

    cfg = {
        "input_size": [3, 224, 224],
        "crop_pct": 0.875,
        "mean": [0.1] * 3,
        "std": [0.2] * 3,
        "interpolation": "bicubic",
    }
    config = TimmWrapperConfig(architecture="test_efficientnet", pretrained_cfg=cfg, **label_settings())
    model = AutoModelForImageClassification.from_config(config).eval()
    processor = vit_processor([0.1] * 3, [0.2] * 3, 3)
    folder = write(tmp_path / "lite", model=model, processor=processor, profile="modern")
    assert "4.45.2 cannot load model_type='timm_wrapper'" in told[0]
    read = AutoImageProcessor.from_pretrained(folder)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 320, 3), dtype=np.uint8))
    pixels = [one(images=picture, return_tensors="pt")["pixel_values"] for one in (read, processor)]
    assert isinstance(read, ViTImageProcessor) and torch.equal(*pixels)
    assert AutoModelForImageClassification.from_pretrained(folder).config.id2label == {0: "None", 1: "Roadwork"}
    with pytest.raises(ValueError, match=r"model_type='timm_wrapper' is not among.*profile modern"):
        write(tmp_path / "stock", model=model, processor=processor)


@pytest.mark.parametrize(
    "processor",
    [BitImageProcessor(**SQUARE, **HALF), ConvNextImageProcessor(size={"shortest_edge": 384}, **HALF)],
    ids=["bit_224", "convnext_384"],
)
def test_other_processors_are_rewritten_only_where_pixels_are_equal(processor: BitImageProcessor) -> None:
    size = processor.to_dict()["size"]
    if size.get("shortest_edge") == 384:
        with pytest.raises(ValueError, match=r"ConvNextImageProcessor gives other pixels than ViTImageProcessor"):
            as_vit_processor(processor)
        return
    found = as_vit_processor(processor)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (77, 333, 3), dtype=np.uint8))
    pixels = [one(images=picture, return_tensors="pt")["pixel_values"] for one in (processor, found)]
    assert type(found) is ViTImageProcessor and torch.equal(*pixels)


def test_a_cropping_processor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"BitImageProcessor gives other pixels.*no crop"):
        as_vit_processor(BitImageProcessor(size={"shortest_edge": 256}, crop_size=224, **HALF))
    with pytest.raises(ValueError, match="does not rescale and normalise"):
        as_vit_processor(BitImageProcessor(**SQUARE, do_normalize=False))


def test_broken_models_are_refused(tmp_path: Path) -> None:
    broken = tiny_student()
    with torch.no_grad():
        broken.classifier.bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"weights \['classifier.bias'\] are not finite"):
        write(tmp_path / "lite", model=broken)
    three = tiny_student()
    three.config.num_labels = 3
    with pytest.raises(ValueError, match="num_labels=3"):
        write(tmp_path / "lite", model=three)
    assert not list(tmp_path.iterdir())


def test_our_own_model_is_no_lite_model(tmp_path: Path, tiny_config: RoadworkConfig) -> None:
    assert isinstance(tiny_config.backbone_config, DINOv3ViTConfig)
    with pytest.raises(ValueError, match="model_type='natix_roadwork' is not among"):
        write(tmp_path / "lite", model=RoadworkForImageClassification(tiny_config))


def test_an_existing_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "lite").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        write(tmp_path / "lite")

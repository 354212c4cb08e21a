"""What the files of a folder say of the stock miner, one by one."""

import json
from pathlib import Path

import pytest

from natix_roadwork.hub import check_files
from tests.stock_folders import change_json, save_stock


def test_the_list_of_the_stock_miner() -> None:
    assert len(check_files.STOCK_TYPES) == 36
    assert {"vit", "swinv2", "dinov2", "convnextv2", "siglip"} <= check_files.STOCK_TYPES
    assert not {"dinov2_with_registers", "dinov3_vit", "timm_wrapper"} & check_files.STOCK_TYPES


def test_many_labels_may_hide_the_one_that_counts() -> None:
    labels = {number: f"class {number}" for number in range(6)} | {6: "Roadwork"}
    assert check_files.check_labels({"id2label": labels}).status == "warn"


@pytest.mark.parametrize(
    ("settings", "status", "why"),
    [
        ({"size": {"shortest_edge": 32}}, "fail", "needs height and width"),
        ({"do_center_crop": True}, "fail", "a crop or a border"),
        ({"image_processor_type": None}, "warn", "names no image_processor_type"),
        ({"image_mean": None}, "warn", "leaves image_mean to the defaults"),
        ({"image_processor_type": "ViTImageProcessorFast"}, "pass", "size (32, 32)"),
        ({"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor"}, "pass", "ViTImageProcessor"),
        ({"size": 32}, "pass", "size 32"),
    ],
)
def test_what_the_stock_miner_makes_of_the_processor_file(
    tmp_path: Path, settings: dict, status: str, why: str
) -> None:
    path = save_stock(tmp_path / "m") / "preprocessor_config.json"
    change_json(path, **settings)
    finding = check_files.check_processor(json.loads(path.read_text()), {"model_type": "vit"}, "stock-4.45")
    assert finding.status == status and why in finding.found


@pytest.mark.parametrize(
    ("card", "config", "status"),
    [
        ("license: apache-2.0\nbase_model: facebook/dinov2-base", {}, "pass"),
        ("license: cc-by-nc-4.0", {}, "warn"),
        ("license: other\nlicense_name: dinov3-license", {}, "warn"),
        ("license: mit\nbase_model: facebook/dinov3-vits16-pretrain-lvd1689m", {}, "warn"),
        ("license: other", {}, "warn"),
        ("tags: [a]", {}, "warn"),
        (None, {}, "warn"),
        ("license: [", {}, "warn"),
        (None, {"license": "MIT"}, "pass"),
        ("license: mit", {"model_type": "timm_wrapper", "architecture": "vit_small_patch16_dinov3"}, "warn"),
    ],
)
def test_licence(tmp_path: Path, card: str | None, config: dict, status: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(f"---\n{card}\n---\n# Model\n")
    assert check_files.check_licence(tmp_path, config).status == status


def test_large_folders_are_noticed(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(5_000_000_000)  # a hole, not bytes
    assert check_files.check_size(tmp_path).status == "warn"

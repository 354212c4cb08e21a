import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dry_run import dry_run
from natix_roadwork.training.pretrain_inputs import PretrainInputs, prepare_inputs
from natix_roadwork.training.pretrain_model import build_model
from natix_roadwork.training.pretraining import _prepare_output, build_trainer, warnings_about


Photos = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Write an imagefolder of rows of 64 x 48 noise: `photos(train=8, dev=4)`."""

    def write(**splits: int) -> Path:
        draw = np.random.default_rng(0)
        for split, num_rows in splits.items():
            folder = tmp_path / "photos" / split
            folder.mkdir(parents=True)
            for row in range(num_rows):
                Image.fromarray(draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{row}.jpg")
            lines = [json.dumps({"file_name": f"{row}.jpg", "label": row % 2}) for row in range(num_rows)]
            (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path / "photos"

    return write


@pytest.fixture
def backbone(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    tiny_model.backbone.save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


def settings(dataset: Path | str, backbone: Path, **changes: object) -> PretrainArguments:
    sizes = {"view_size": 32, "hidden_size": 16, "num_attention_heads": 2, "evidence_grid": 2}
    return PretrainArguments(dataset_name=str(dataset), backbone_id=str(backbone), **sizes | changes)


def training(folder: Path, **changes: object) -> RoadworkTrainingArguments:
    return RoadworkTrainingArguments(output_dir=str(folder), use_cpu=True, disable_tqdm=True, **changes)


def test_data_without_train_rows_is_named(photos: Photos, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset_name='.*photos' has no train rows.*\['dev', 'test'\]"):
        prepare_inputs(settings(photos(dev=4, test=4), backbone), training(tmp_path))


def test_damaged_photos_are_dropped_when_verified(photos: Photos, backbone: Path, tmp_path: Path) -> None:
    folder = photos(train=8, dev=4)
    damaged = folder / "train" / "3.jpg"
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2] + b"\xff\xc8" + data[len(data) // 2 + 2 :])

    def prepare(kept: str, **changes: object) -> PretrainInputs:
        chosen = settings(folder, backbone, baselines=False, feature_cache="auto", **changes)
        return prepare_inputs(chosen, training(tmp_path), folder=str(tmp_path / kept))

    with pytest.raises(ValueError, match=r"train/3\.jpg.*--verify_images true"):
        prepare("all")
    with pytest.raises(ValueError, match=r"other settings \(rows.count: 8 there, 7 now; rows.fingerprint"):
        prepare("all", verify_images=True)
    assert [problem.row_id for problem in prepare("few", verify_images=True).rows.report.dropped] == ["train/3.jpg"]


def test_views_are_chosen_by_the_recipe(backbone: Path) -> None:
    chosen = settings(
        "photos", backbone, squares=["left", "right"], global_fit="letterbox", max_megapixels=3.0, decode_mode="half"
    )
    model, processor = build_model(chosen, [0, 1])
    assert processor.view_names[10:] == ["left_square", "right_square"]
    assert (processor.global_fit, processor.max_megapixels) == ("letterbox", 3.0)
    assert (processor.decode_mode, processor.resize_backend) == ("half", "torch")
    assert model.config.wide_views == [0, 10, 11] and model.config.num_views == 12


def test_metadata_is_chosen_by_the_recipe(backbone: Path) -> None:
    keys = {"gps_encoder": "wrap", "gps_jitter_km": 0.5}
    keys |= {"metadata_dropout": 0.3, "whole_metadata_dropout": 0.1, "metadata_residual": False}
    chosen = settings("photos", backbone, loss_weights='{"focal": 1, "weather": 0.2}', **keys)
    model, _ = build_model(chosen, [0, 1], ["weather", "gps"])
    assert {name: getattr(model.config, name) for name in keys} == keys
    assert model.config.metadata_fields == ["gps", "weather"]
    assert model.metadata_fusion.encoder.width == 192 and model.weather_head is not None


def test_revision_is_for_hub_data_only(photos: Photos, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="revision='v1'"):
        prepare_inputs(settings(photos(train=8), backbone, dataset_revision="v1"), training(tmp_path))


def test_image_statistics_are_those_of_the_backbone_s_commit(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    load = RoadworkForImageClassification.from_backbone

    def from_backbone(*args: object, **kwargs: object) -> RoadworkForImageClassification:
        model = load(*args, **kwargs)
        model.config.backbone_revision = "c0ffee"
        return model

    def statistics(backbone_id: str, revision: str | None) -> tuple[dict, dict]:
        asked.append(revision)
        return {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 1.0, 1.0]}, {}

    place = "natix_roadwork.training"
    monkeypatch.setattr(f"{place}.image_statistics.ImageProcessingMixin.get_image_processor_dict", statistics)
    monkeypatch.setattr(f"{place}.pretrain_model.RoadworkForImageClassification.from_backbone", from_backbone)
    model, processor = build_model(settings("photos", backbone), [0, 1])
    assert asked == ["c0ffee"]
    assert model.config.image_mean == processor.image_mean == [0.1, 0.2, 0.3]


def test_dry_run_leaves_nothing_in_the_datasets_cache(
    photos: Photos, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    args = training(tmp_path / "run", per_device_train_batch_size=4)
    dry_run(settings(photos(train=8, dev=4), backbone, baselines=False), args)
    assert not (tmp_path / "cache" / "natix_roadwork_features").exists()


def test_reader_is_warned_of_few_dev_rows_and_of_drawn_scenes(photos: Photos) -> None:
    folder = photos(train=8, dev=5)
    (few,) = warnings_about(load_rows(str(folder)))
    assert "dev holds 3 None and 2 Roadwork rows" in few
    (folder / "scenes.json").touch()
    drawn, again = warnings_about(load_rows(str(folder)))
    assert "not roadwork accuracy" in drawn and again == few


def test_reader_is_not_warned_of_enough_photos() -> None:
    counts = {"dev": {"None": 30, "Roadwork": 30}}
    rows = SimpleNamespace(dataset_name="someone/photos", report=SimpleNamespace(kept=counts))
    assert warnings_about(rows) == []


def test_result_without_checkpoints_is_an_earlier_run(backbone: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.touch()
    with pytest.raises(ValueError, match=r"result\.json of an earlier run.*--existing_run overwrite"):
        _prepare_output(settings("photos", backbone), training(tmp_path))
    assert result.is_file()
    assert not _prepare_output(settings("photos", backbone, existing_run="overwrite"), training(tmp_path))
    assert not result.exists()


@pytest.mark.parametrize("cache", ["off", "auto"])
def test_a_share_of_train_chooses_the_epoch_so_that_dev_teaches_nothing(
    photos: Photos, backbone: Path, tmp_path: Path, cache: str
) -> None:
    chosen = settings(photos(train=16, dev=4), backbone, selection_share=0.25, feature_cache=cache, baselines=False)
    inputs = prepare_inputs(chosen, training(tmp_path), folder=str(tmp_path / "kept"))
    train = inputs.rows.splits["train"]
    selection = np.setdiff1d(np.arange(16), inputs.fitted)
    assert 2 <= len(selection) <= 6 and inputs.chooser == "selection"
    assert not set(train.select(selection)["group"]) & set(train.select(inputs.fitted)["group"])
    assert [len(inputs.datasets[name]) for name in ("train", "selection")] == [16 - len(selection), len(selection)]
    read = inputs.datasets["selection"].read(list(range(len(selection))))["labels"]
    assert read.tolist() == train.select(selection)["label"]
    assert build_trainer(inputs, training(tmp_path)).eval_dataset is inputs.datasets["selection"]


def test_selection_share_is_checked(photos: Photos, backbone: Path) -> None:
    with pytest.raises(ValueError, match=r"selection_share=1.0 must lie in \[0, 1\)"):
        settings("photos", backbone, selection_share=1.0)

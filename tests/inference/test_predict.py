"""What a saved model says of photos: the file, its record, and what is refused."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.inference import predict_inputs
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.member import load_member
from natix_roadwork.inference.parts import Parts, part_ranges
from natix_roadwork.inference.predict import predict
from natix_roadwork.inference.predict_rows import Passes, predict_rows
from natix_roadwork.metrics import binary_metrics
from tests.photo_rows import AddressedNoise, photo_rows
from tests.recipe_photos import write_photos
from tests.saved_member import member_and_photos, record_training, result_of, save_member


Build = Callable[..., PredictArguments]


@pytest.fixture
def settings(tmp_path: Path, tiny_model: RoadworkForImageClassification) -> Build:
    """Settings of a prediction of a few photos."""
    torch.set_num_threads(1)
    return lambda **values: member_and_photos(tmp_path, tiny_model, **values)


@torch.inference_mode()
def test_answers_are_those_of_the_model_on_pixels(settings: Build, tiny_model: RoadworkForImageClassification) -> None:
    asked = settings(splits=["dev", "train"], dataloader_num_workers=1)
    predict(asked)
    found = read_predictions(asked.path)
    member, splits = load_member(asked.model), load_rows(asked.dataset_name, seed=0, near_duplicates=False).splits
    batches = [PhotoRows(splits[name], member.processor).read(range(len(splits[name]))) for name in ("dev", "train")]
    expected = [tiny_model(pixel_values=batch["pixel_values"], view_mask=batch["view_mask"]) for batch in batches]
    np.testing.assert_allclose(found.logits, torch.cat([output.logits for output in expected]), atol=5e-3)
    np.testing.assert_allclose(found.embeddings, torch.cat([output.embedding for output in expected]), atol=2e-2)
    assert found.member == "model" and found.splits.tolist() == ["dev"] * 8 + ["train"] * 16
    assert found.row_ids.tolist() == splits["dev"]["row_id"][:] + splits["train"]["row_id"][:]
    assert found.labels.tolist() == splits["dev"]["label"][:] + splits["train"]["label"][:]
    assert found.groups.tolist() == splits["dev"]["group"][:] + splits["train"]["group"][:]
    assert set(found.folds) == {-1} and set(found.transforms) == {0}
    assert not (Path(asked.output_dir) / ".parts").exists()


def test_cached_tokens_give_the_file_of_live_photos(settings: Build, tmp_path: Path) -> None:
    live, cached = (
        settings(feature_cache=cache, output_dir=str(tmp_path / name), splits=["dev", "test"])
        for name, cache in (("live", "off"), ("cached", str(tmp_path / "tokens")))
    )
    predict(live)
    predict(cached)
    assert live.path.read_bytes() == cached.path.read_bytes()
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {"dev", "test"}


def test_last_batch_may_be_of_any_size(settings: Build, tmp_path: Path) -> None:
    files = []
    for size in (3, 5):
        asked = settings(per_device_eval_batch_size=size, output_dir=str(tmp_path / str(size)))
        predict(asked)
        files.append(read_predictions(asked.path))
    np.testing.assert_allclose(files[0].logits, files[1].logits, atol=1e-5)


def test_record_says_what_decides_the_answers(settings: Build) -> None:
    asked = settings(member="one")
    result = predict(asked)
    found = read_predictions(asked.path)
    assert asked.path.name == "one.arrow" and found.member == "one"
    record, written = found.record, result_of(asked)
    assert len(record["model_sha256"]) == 64 and record["config"]["keep_views"] == 8
    assert record["batch_size"] == 4 and record["precision"] == "float32" and record["tokens"] == "float16"
    assert record["data"]["fingerprint"] == written["data"]["fingerprint"] == result.data["fingerprint"]
    assert "/" not in str(record)  # no path of this machine
    assert record == written["details"]["record"] and written["details"]["rows"] == {"dev": 8}
    expected = binary_metrics(found.labels, found.probabilities)["mcc"]
    assert written["metrics"]["dev"]["mcc"]["value"] == expected and "low" in written["metrics"]["dev"]["mcc"]


def test_learned_from_is_the_training_s_own_word_on_its_own_rows(settings: Build, tmp_path: Path) -> None:
    asked = settings()
    assert any("has no result.json" in text for text in predict(asked).warnings)
    assert read_predictions(asked.path).record["learned_from"] == ["train", "dev", "test"]
    asked = settings(existing_run="overwrite")
    record_training(tmp_path / "model", tmp_path / "photos", ["train"])
    warnings = predict(asked).warnings
    assert len(warnings) == 1 and "dev holds 4 None and 4 Roadwork" in warnings[0]
    assert read_predictions(asked.path).held_out.all()
    record_training(tmp_path / "model", tmp_path / "photos", None)
    assert any("does not say what it learned from" in text for text in predict(asked).warnings)
    (tmp_path / "others").mkdir()
    asked = settings(dataset_name=str(write_photos(tmp_path / "others")), existing_run="overwrite", splits=["test"])
    (tmp_path / "others" / "test" / "0.png").write_bytes((tmp_path / "others" / "test" / "1.png").read_bytes())
    record_training(tmp_path / "model", tmp_path / "photos", ["train"])
    assert not any("optimistic" in text for text in predict(asked).warnings)
    assert read_predictions(asked.path).held_out.all()


def test_rows_split_otherwise_than_in_training_are_refused(settings: Build, tmp_path: Path) -> None:
    asked = settings(dataset_name=str(tmp_path / "photos" / "train"), dev_share=0.25)
    record_training(tmp_path / "model", Path(asked.dataset_name), ["train"], seed=7, dev_share=0.25)
    with pytest.raises(ValueError, match=r"is split otherwise than in the training of .*: seed=7 there, 0 now; give"):
        predict(asked)


def test_metadata_of_the_model_s_config_is_read(
    tmp_path: Path, tiny_config: RoadworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    fields = ["gps", "weather"]
    model = RoadworkForImageClassification(
        RoadworkConfig(**tiny_config.to_dict() | {"metadata_fields": fields})
    ).eval()
    asked, blind = (member_and_photos(tmp_path, model, output_dir=str(tmp_path / name)) for name in ("seen", "unseen"))
    predict(asked)
    monkeypatch.setattr(predict_inputs, "read_metadata", lambda *_: predict_inputs.MetadataInputs())
    predict(blind)
    difference = read_predictions(asked.path).embeddings - read_predictions(blind.path).embeddings
    assert np.abs(difference).max(axis=1).min() > 1e-3


def test_transforms_are_draws_of_the_rows_augmentation(
    tmp_path: Path, tiny_model: RoadworkForImageClassification
) -> None:
    member = load_member(str(save_member(tmp_path / "model", tiny_model)))
    rows = PhotoRows(photo_rows(6), member.processor, augmentation=AddressedNoise())
    parts = Parts(tmp_path / "parts", {})
    parts.enter()
    answers = {
        number: predict_rows(member.model, rows, parts, Passes(4), split="dev", transform=number)
        for number in (0, 1, 2)
    }
    plain = predict_rows(member.model, PhotoRows(photo_rows(6), member.processor), parts, Passes(4), split="other")
    np.testing.assert_array_equal(answers[0][0], plain[0])
    assert len({logits.tobytes() for logits, _ in answers.values()}) == 3
    assert sorted(path.name for path in parts.folder.glob("dev-*")) == [
        f"dev-{number:02d}-0000{part}.safetensors" for number in (0, 1, 2) for part in (0, 1)
    ]


def test_selected_views_are_those_of_the_model_on_pixels(tmp_path: Path, tiny_config: RoadworkConfig) -> None:
    torch.manual_seed(0)
    config = RoadworkConfig(**tiny_config.to_dict() | {"select_views": 5, "thumbnail_size": 16})
    model = RoadworkForImageClassification(config).eval()
    model.view_selector.weight.normal_()
    asked = member_and_photos(tmp_path, model)
    predict(asked)
    batch = PhotoRows(
        load_rows(asked.dataset_name, near_duplicates=False).splits["dev"], load_member(asked.model).processor
    ).read(range(8))
    with torch.inference_mode():
        expected = model(pixel_values=batch["pixel_values"], view_mask=batch["view_mask"]).logits
    np.testing.assert_allclose(read_predictions(asked.path).logits, expected, atol=5e-3)
    with pytest.raises(ValueError, match="feature_cache='auto': the model looks at a photo to choose its views"):
        predict(member_and_photos(tmp_path, model, feature_cache="auto", output_dir=str(tmp_path / "cached")))


@pytest.mark.parametrize("splits", [["deb"], [], ["dev", "dev"]])
def test_impossible_splits_are_refused(splits: list[str]) -> None:
    with pytest.raises(ValueError, match=r"splits=\[.*; give some of \['train', 'dev', 'test'\]"):
        PredictArguments(model="m", dataset_name="d", splits=splits)


@pytest.mark.parametrize("member", ["", "a/b", ".hidden"])
def test_impossible_member_names_are_refused(member: str) -> None:
    with pytest.raises(ValueError, match="member="):
        PredictArguments(model="m", dataset_name="d", member=member)


def test_absent_split_is_refused(settings: Build, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"splits=\['test'\]: .*photos/train' has no test rows, only \{ ?'train': "):
        predict(settings(splits=["test"], dataset_name=str(tmp_path / "photos" / "train"), dev_share=0.25))


def test_lockbox_is_predicted_for_a_publisher_alone(settings: Build, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, rows in {"train": range(12), "test": range(12, 16)}.items():
        photos = photo_rows(16).select(rows).select_columns(["image", "label"])
        Dataset.from_dict(photos.to_dict(), features=photos.features).to_parquet(folder / f"{name}-00000.parquet")
    asked = settings(dataset_name=str(folder), splits=["test"], dev_share=0.25)
    with pytest.raises(ValueError, match="is a lockbox, which is scored once for each published model"):
        predict(asked)
    assert not Path(asked.output_dir).exists()
    predict(asked, allow_lockbox=True)
    assert len(read_predictions(asked.path)) == 4


def test_a_missing_or_foreign_model_is_refused(
    settings: Build, tmp_path: Path, tiny_model: RoadworkForImageClassification
) -> None:
    asked = settings(model=str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"model='.*absent': no model with its image processor in a folder"):
        predict(asked)
    with pytest.raises(ValueError, match=r"model='.*backbone' is a model of type 'dinov3_vit'"):
        tiny_model.backbone.save_pretrained(tmp_path / "backbone")
        load_member(str(tmp_path / "backbone"))
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"model='.*model': no model with its image processor"):
        load_member(str(tmp_path / "model"))


def test_a_processor_that_disagrees_is_refused(tmp_path: Path, tiny_model: RoadworkForImageClassification) -> None:
    with pytest.raises(ValueError, match=r"cuts 1 views \(single\), its config says num_views=12"):
        load_member(str(save_member(tmp_path / "views", tiny_model, view_layout="single")))
    with pytest.raises(ValueError, match="image processor has view_size=48"):
        load_member(str(save_member(tmp_path / "size", tiny_model, view_size=48)))


def test_a_damaged_photo_is_named_by_its_row(settings: Build, tmp_path: Path) -> None:
    asked = settings(dataloader_num_workers=1)
    photo = tmp_path / "photos" / "dev" / "5.png"
    file = io.BytesIO()
    Image.open(photo).save(file, "JPEG")  # whose damage inside the picture data a header does not show
    data = file.getvalue()
    photo.write_bytes(data[: len(data) // 2] + b"\xff\xc8" + data[len(data) // 2 + 2 :])
    with pytest.raises(ValueError, match=r"row 'dev/5.png': the photo cannot be decoded"):
        predict(asked)


def test_an_answer_that_is_not_finite_is_named_by_its_row(
    settings: Build, tmp_path: Path, tiny_model: RoadworkForImageClassification
) -> None:
    asked = settings()
    with torch.no_grad():
        next(tiny_model.classifier.parameters()).fill_(float("nan"))
    save_member(tmp_path / "model", tiny_model)
    with pytest.raises(
        ValueError, match=r"row 'dev/0.png': logits \[nan, nan\] are not finite \(4 such rows among 4\)"
    ):
        predict(asked)


def test_parts_are_whole_batches_and_never_many() -> None:
    assert part_ranges(10, 4) == [range(4), range(4, 8), range(8, 10)]
    assert part_ranges(3, 32) == [range(3)]
    ranges = part_ranges(1_000_000, 32)
    assert 250 <= len(ranges) <= 256 and all(len(rows) % 32 == 0 for rows in ranges[:-1])
    assert ranges[0].start == 0 and ranges[-1].stop == 1_000_000

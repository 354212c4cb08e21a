"""Prediction of TTA transforms: further lines of the member's file, from pixels, resumed and shared out as the rest."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.member import load_member
from natix_roadwork.inference.predict import predict, prediction_table
from natix_roadwork.inference.tta_transforms import transform_photo
from natix_roadwork.model.photo import load_photo
from tests.inference.test_predict_resume import finish, in_child, stop_after
from tests.saved_member import member_and_photos


Build = Callable[..., PredictArguments]


@pytest.fixture
def settings(tmp_path: Path, tiny_model: RoadworkForImageClassification) -> Build:
    """Settings of a prediction of dev, eight photos in two parts, with three transforms."""
    torch.set_num_threads(1)
    return lambda name="run", **values: member_and_photos(
        tmp_path, tiny_model, output_dir=str(tmp_path / name), **{"tta": ["2", "0", "6"], **values}
    )


@torch.inference_mode()
def test_transforms_are_further_lines(settings: Build, tiny_model: RoadworkForImageClassification) -> None:
    asked, plain = settings(), settings("plain", tta=["off"])
    result = predict(asked)
    predict(plain)
    found, originals = read_predictions(asked.path), read_predictions(plain.path)
    assert found.transforms.tolist() == [0] * 8 + [2] * 8 + [6] * 8
    for name in ("row_ids", "labels", "groups", "logits", "embeddings"):
        np.testing.assert_array_equal(getattr(found.select(found.transforms == 0), name), getattr(originals, name))
    member = load_member(asked.model)
    row = load_rows(asked.dataset_name, seed=0, near_duplicates=False).splits["dev"][3]
    photo = load_photo(row["image"]["bytes"] or row["image"]["path"])
    for number in (2, 6):
        pixels = member.processor.preprocess(transform_photo(photo, number))
        expected = tiny_model(pixel_values=pixels["pixel_values"], view_mask=pixels["view_mask"]).logits[0]
        line = found.select((found.transforms == number) & (found.row_ids == row["row_id"]))
        np.testing.assert_allclose(line.logits[0], expected, atol=5e-3)
    assert found.record["tta"]["numbers"] == [0, 2, 6] and originals.record["tta"] == "off"
    assert result.details["rows"] == {"dev": 8}
    assert "ms a photo (3 TTA transforms of " in prediction_table(result, asked)


def test_all_sixteen_are_predicted_and_scores_are_of_the_originals(settings: Build) -> None:
    asked, plain = settings(tta=["all"]), settings("plain", tta=["off"])
    metrics = [predict(one).metrics["dev"] for one in (asked, plain)]
    assert metrics[0] == metrics[1]
    found = read_predictions(asked.path)
    assert np.bincount(found.transforms).tolist() == [8] * 16
    by_transform = found.logits.reshape(16, 8, 2)
    assert len({logits.tobytes() for logits in by_transform}) == 16


def test_a_stopped_run_goes_on_with_the_transforms_that_are_missing(
    settings: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(settings("whole"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 3)
        predict(settings("stopped"))
    with monkeypatch.context() as patch:
        stop_after(patch, 3)  # of six parts, three are left
        predict(settings("stopped", existing_run="resume"))
    assert settings("stopped").path.read_bytes() == settings("whole").path.read_bytes()
    with pytest.raises(ValueError, match=r"holds answers of another prediction \(.*tta"):
        predict(settings("stopped", existing_run="resume", tta=["all"]))
    result = predict(settings("stopped", existing_run="resume"))
    assert result.details["ms_per_answer"] is None and " ms a photo" not in prediction_table(result, settings())


def test_two_processes_give_the_bytes_of_one(settings: Build) -> None:
    asked, alone = settings("two"), settings("one")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def share(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
        PartialState._reset_state()
        assert predict(asked).environment["world_size"] == 2
        asked.state().destroy_process_group()

    finish(in_child(share, 0), in_child(share, 1))
    predict(alone)
    assert asked.path.read_bytes() == alone.path.read_bytes()


def test_a_feature_cache_is_refused(settings: Build, tmp_path: Path) -> None:
    for cache in ("auto", str(tmp_path / "tokens")):
        with pytest.raises(ValueError, match=r"transforms are made of a photo's pixels.*--feature_cache off"):
            settings(feature_cache=cache)
    assert settings(tta=["0"], feature_cache="auto").transforms == (0,)


@pytest.mark.parametrize("tta", [["1", "2"], ["0", "16"], ["0", "1", "1"], ["some"], ["off", "0"], []])
def test_impossible_transforms_are_refused(tta: list[str]) -> None:
    with pytest.raises(ValueError, match=r"tta=\[.*with 0 among them"):
        PredictArguments(model="m", dataset_name="d", tta=tta)


def test_numbers_may_be_those_of_yaml() -> None:
    assert PredictArguments(model="m", dataset_name="d", tta=[4, 0]).transforms == (0, 4)
    assert PredictArguments(model="m", dataset_name="d", tta=["ALL"]).transforms == tuple(range(16))

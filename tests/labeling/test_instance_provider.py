"""RF-DETR's real segmentation class through our provider, with random weights saved to disk and loaded from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, RfDetrForInstanceSegmentation

from natix_roadwork.labeling.instance_provider import LabelMaskProvider
from tests.labeling.tiny_detectors import LABELS, save_labelled


TABLE = {"person": "worker", "cone": "cone"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_labelled("rf_detr_masks", tmp_path_factory.mktemp("rf_detr_masks"))


def _provider(folder: Path, **settings: Any) -> LabelMaskProvider:
    settings = {"labels": TABLE, "min_score": 0, "nms_iou": 1, **settings}
    return LabelMaskProvider.from_pretrained(str(folder), device="cpu", **settings)


def _photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)


def test_masks_are_those_of_the_processor(folder: Path) -> None:
    photo, provider = _photo(), _provider(folder)
    model, processor = (
        RfDetrForInstanceSegmentation.from_pretrained(folder),
        AutoImageProcessor.from_pretrained(folder),
    )
    with torch.inference_mode():
        out = model.eval()(**processor(images=Image.fromarray(photo), return_tensors="pt"))
    (plain,) = processor.post_process_instance_segmentation(
        out, threshold=0, target_sizes=[(61, 97)], return_binary_maps=True
    )
    expected = {
        (LABELS[segment["label_id"]], segment["score"], mask.numpy().tobytes())
        for mask, segment in zip(plain["segmentation"], plain["segments_info"], strict=True)
        if LABELS[segment["label_id"]] in TABLE
    }
    found = set()
    for one in provider.find({"row_id": "a"}, photo).objects:
        whole = np.zeros((61, 97), bool)
        left, top, right, bottom = one.box
        whole[top:bottom, left:right] = one.mask
        assert one.kind == TABLE[one.prompt]
        found.add((one.prompt, one.score, whole.tobytes()))
    assert found == expected and len(found) > 1


def test_duplicates_and_low_scores_go(folder: Path) -> None:
    every = _provider(folder).find({"row_id": "a"}, _photo()).objects
    best = _provider(folder, nms_iou=0).find({"row_id": "a"}, _photo()).objects
    assert len(best) < len(every) and best[0].box == every[0].box
    assert _provider(folder, min_score=1).find({"row_id": "a"}, _photo()).objects == []


def test_it_gives_boxes_and_says_what_its_masks_are(folder: Path) -> None:
    provider = _provider(folder)
    assert {one.kind for one in provider.detect(_photo())} <= {"cone", "worker"}
    settings = provider.settings()
    assert (settings["provider"], settings["masks"], settings["labels"]) == ("label_masks", "instance masks", TABLE)


def test_a_detector_without_masks_is_refused(tmp_path: Path) -> None:
    save_labelled("rf_detr", tmp_path)
    with pytest.raises(ValueError, match=r"lacks \d+ of the \d+ weights of RfDetrForInstanceSegmentation"):
        _provider(tmp_path)

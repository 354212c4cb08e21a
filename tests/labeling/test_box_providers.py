"""Real detector classes of transformers through our providers, with random weights saved to disk and loaded from it."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.ops import box_iou
from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForZeroShotObjectDetection

from natix_roadwork.labeling.box_provider import LabelBoxProvider
from natix_roadwork.labeling.prompts import DEFAULT_PROMPTS
from natix_roadwork.labeling.text_box_provider import TextBoxProvider
from natix_roadwork.model.backbone import hash_weights
from tests.labeling.tiny_detectors import GROUNDED, LABELS, NUM_QUERIES, save_grounded, save_labelled


LABELLED = ("d_fine", "rt_detr_v2", "rf_detr")
TABLE = {"person": "worker", "cone": "cone"}
PROMPTS = {"cone": ["cone", "big drum"], "worker": ["worker"]}
SIZE = (61, 97)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = {kind: save_labelled(kind, tmp_path_factory.mktemp(kind)) for kind in LABELLED}
    made |= {kind: save_grounded(kind, tmp_path_factory.mktemp(kind)) for kind in GROUNDED}
    return {kind: str(folder) for kind, folder in made.items()}


def _labelled(folder: str, **settings: Any) -> LabelBoxProvider:
    settings = {"labels": TABLE, "min_score": 0, "nms_iou": 1, **settings}
    return LabelBoxProvider.from_pretrained(folder, device="cpu", **settings)


def _asked(folder: str, **settings: Any) -> TextBoxProvider:
    settings = {"prompts": PROMPTS, "min_score": 0, "nms_iou": 1, **settings}
    return TextBoxProvider.from_pretrained(folder, device="cpu", **settings)


def _photo(height: int = SIZE[0], width: int = SIZE[1]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("kind", LABELLED)
def test_boxes_are_those_of_the_processor(folders: dict[str, str], kind: str) -> None:
    photo, folder = _photo(), folders[kind]
    model, processor = AutoModelForObjectDetection.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        out = model.eval()(**processor(images=Image.fromarray(photo), return_tensors="pt"))
    (plain,) = processor.post_process_object_detection(out, threshold=0, target_sizes=[SIZE])
    expected = {
        (TABLE[LABELS[label]], LABELS[label], round(score, 4))
        for label, score in zip(plain["labels"].tolist(), plain["scores"].tolist(), strict=True)
        if LABELS[label] in TABLE
    }
    found = _labelled(folder).detect(photo)
    assert {(one.kind, one.prompt, round(one.score, 4)) for one in found} == expected
    near = box_iou(torch.tensor([one.box for one in found]), plain["boxes"]).max(dim=1).values
    assert near.min() > 0.5  # those at an edge are cut to the photo
    assert _labelled(folder).detect(photo) == found


@pytest.mark.parametrize("kind", sorted(GROUNDED))
def test_each_box_belongs_to_the_prompt_that_fits_best(folders: dict[str, str], kind: str) -> None:
    photo, provider = _photo(), _asked(folders[kind])
    found = provider.detect(photo)
    processor = provider.processor
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folders[kind]).eval()
    inputs = processor(images=Image.fromarray(photo), text="cone. big drum. worker.", return_tensors="pt")
    with torch.inference_mode():
        probabilities = model(**inputs).logits[0].sigmoid()
    # [CLS] c o n e . b i g d r u m . w o r k e r . [SEP]
    spans = {"cone": slice(1, 5), "big drum": slice(6, 13), "worker": slice(14, 20)}
    expected = []
    for query in probabilities:
        prompt = max(spans, key=lambda name: query[spans[name]].mean().item())
        expected.append((prompt, query[spans[prompt]].max().item()))
    expected.sort(key=lambda one: -one[1])
    assert len(found) == NUM_QUERIES and len({prompt for prompt, _ in expected}) > 1
    assert [one.prompt for one in found] == [prompt for prompt, _ in expected]
    assert [one.score for one in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert all(one.prompt in PROMPTS[one.kind] for one in found)


@pytest.mark.parametrize("kind", sorted(GROUNDED))
def test_a_photo_is_encoded_once(folders: dict[str, str], kind: str) -> None:
    provider = _asked(folders[kind])
    encoded = _calls(provider.model.model.backbone)
    provider.detect(_photo())
    assert encoded == [1]


@pytest.mark.parametrize("size", [(40, 300), (300, 40), (57, 33), (8, 8)])
def test_filled_boxes_fit_photos_of_any_shape(folders: dict[str, str], size: tuple[int, int]) -> None:
    for provider in (_labelled(folders["d_fine"]), _asked(folders["grounding-dino"])):
        objects, boxes = provider.find({"row_id": "a"}, _photo(*size)).objects, provider.detect(_photo(*size))
        assert len(objects) == len(boxes) > 0
        for one, detection in zip(objects, boxes, strict=True):
            left, top, right, bottom = one.box
            assert 0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]
            assert np.abs(np.array(one.box) - detection.box).max() < 1
            assert one.mask.shape == (bottom - top, right - left) and one.mask.all()
            assert (one.kind, one.prompt, one.score) == (detection.kind, detection.prompt, detection.score)


def test_low_scores_go(folders: dict[str, str]) -> None:
    for make, kind in ((_labelled, "d_fine"), (_asked, "grounding-dino")):
        every = make(folders[kind]).detect(_photo())
        limit = every[2].score
        assert make(folders[kind], min_score=limit).detect(_photo()) == [one for one in every if one.score > limit]
        assert make(folders[kind], min_score=1).detect(_photo()) == []


@pytest.mark.parametrize("kind", ["d_fine", "grounding-dino"])
def test_settings_hold_what_decides(folders: dict[str, str], kind: str) -> None:
    asked = kind in GROUNDED
    provider = _asked(folders[kind], revision="v1") if asked else _labelled(folders[kind], revision="v1")
    settings = provider.settings()
    assert settings == json.loads(json.dumps(settings))
    assert settings["weights"] == hash_weights(provider.model)
    assert settings["masks"] == "filled boxes" and settings["library"].startswith("transformers 5.")
    assert (settings["provider"], settings["model"], settings["revision"]) == (provider.name, folders[kind], "v1")
    assert (settings["min_score"], settings["nms_iou"]) == (0, 1)
    assert settings["prompts" if asked else "labels"] == (PROMPTS if asked else TABLE)
    assert provider.classes == ("cone", "worker")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": {"persn": "worker", "truck": "vehicle"}}, r"labels names \['persn'\].*it has cone, person, truck"),
        ({"labels": {"truck": "lorry"}}, r"labels\['truck'\]='lorry' is no class"),
        ({"labels": {}}, "labels={} must map"),
        ({"min_score": -0.1}, "min_score=-0.1 must lie"),
        ({"nms_iou": True}, "nms_iou=True must lie"),
    ],
)
def test_a_wrong_setting_is_named(folders: dict[str, str], settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _labelled(folders["d_fine"], **settings)


def test_prompts_that_are_too_long_together_are_refused(folders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"prompts have \d+ tokens together, .* reads 64"):
        _asked(folders["grounding-dino"], prompts=DEFAULT_PROMPTS)


def test_a_detector_of_another_family_is_refused(folders: dict[str, str]) -> None:
    other = _labelled(folders["d_fine"])
    with pytest.raises(ValueError, match="is of type 'd_fine'; text_boxes takes grounding-dino or mm-grounding-dino"):
        TextBoxProvider(other.model, other.processor, model_id="dfine")


def test_a_detector_that_cannot_be_had_is_one_clear_line() -> None:
    for provider, settings in ((TextBoxProvider, {}), (LabelBoxProvider, {"labels": TABLE})):
        with pytest.raises(ValueError, match=r"model='no/such' .* cannot be loaded: give the folder"):
            provider.from_pretrained("no/such", device="cpu", **settings)

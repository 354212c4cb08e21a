"""SAM 3's real classes through our provider, with random weights saved to disk and loaded from it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Sam3Model, Sam3Processor, Sam3VideoConfig

from natix_roadwork.data.masks import MaskError
from natix_roadwork.labeling.mask_provider import FoundObject, PhotoObjects
from natix_roadwork.labeling.prompts import DEFAULT_PROMPTS, read_exemplars
from natix_roadwork.labeling.sam3_provider import Sam3Provider
from natix_roadwork.model.backbone import hash_weights
from tests.labeling.tiny_sam3 import NUM_QUERIES, save_tiny_sam3


ROW = {"row_id": "a/1"}
TWELVE = {
    "cone": [
        "traffic cone",
        "drum",
        "barrel",
        "post",
        "pylon",
        "orange cone",
        "tube",
        "bollard",
        "stake",
    ],  # two passes
    "sign": ["road work sign", "detour sign"],
    "worker": ["worker"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sam3(tmp_path_factory.mktemp("sam3"))


def _provider(folder: Path, **settings: Any) -> Sam3Provider:
    settings = {"prompts": TWELVE, "min_score": 0, "nms_iou": 1, **settings}
    return Sam3Provider.from_pretrained(str(folder), device="cpu", **settings)


def _photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _calls(module: nn.Module) -> list[int]:
    """Grows by the batch size of each call."""
    calls: list[int] = []
    module.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0]) if inputs else 0))
    return calls


def _whole(found: FoundObject, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    left, top, right, bottom = found.box
    mask[top:bottom, left:right] = found.mask
    return mask


def _of_prompt(found: PhotoObjects, prompt: str) -> list[FoundObject]:
    return [one for one in found.objects if one.prompt == prompt]


def _plain(folder: Path, photo: NDArray[np.uint8], prompt: str, **boxes: Any) -> tuple[dict[str, Tensor], float]:
    """One prompt the way the documentation of transformers asks it; instances by falling score, and the presence."""
    model, processor = Sam3Model.from_pretrained(folder).eval(), Sam3Processor.from_pretrained(folder)
    inputs = processor(images=Image.fromarray(photo), text=prompt, return_tensors="pt", **boxes)
    with torch.inference_mode():
        out = model(**inputs)
    (result,) = processor.post_process_instance_segmentation(out, threshold=0, target_sizes=[photo.shape[:2]])
    order = result["scores"].argsort(descending=True, stable=True)
    return {name: values[order] for name, values in result.items()}, out.presence_logits.sigmoid().item()


def _check_equal(found: PhotoObjects, prompt: str, plain: dict[str, Tensor], presence: float) -> None:
    mine = _of_prompt(found, prompt)
    masks = plain["masks"].bool().numpy()
    visible = [number for number, mask in enumerate(masks) if mask.any()]
    assert len(mine) == len(visible) > 0
    for one, number in zip(mine, visible, strict=True):
        assert one.score == pytest.approx(plain["scores"][number].item(), abs=1e-5)
        differing = _whole(one, masks.shape[1:]) != masks[number]
        assert differing.sum() <= 1e-4 * differing.size  # a probability within 1e-5 of the threshold
    assert found.presence[prompt] == pytest.approx(presence, abs=1e-5)


@pytest.mark.parametrize("prompts", [{"cone": ["traffic cone"]}, TWELVE], ids=["one prompt", "twelve prompts"])
def test_a_photo_is_encoded_once_and_a_text_once_for_all_photos(folder: Path, prompts: dict) -> None:
    provider = _provider(folder, prompts=prompts)
    encoded, read = _calls(provider.model.vision_encoder), _calls(provider.model.text_encoder)
    for number in range(3):
        provider.find(ROW, _photo(40, 60, number))
    assert encoded == [1, 1, 1]
    assert read == []


def test_what_is_found_is_what_one_prompt_at_a_time_finds(folder: Path) -> None:
    photo = _photo(61, 97)
    found = _provider(folder).find(ROW, photo)
    assert list(found.presence) == [phrase for phrases in TWELVE.values() for phrase in phrases]
    assert len({round(value, 5) for value in found.presence.values()}) == 12
    for prompt in found.presence:
        _check_equal(found, prompt, *_plain(folder, photo, prompt))


def test_a_prompt_finds_the_same_whatever_else_is_asked(folder: Path) -> None:
    photo = _photo(50, 50)
    together, alone = _provider(folder), _provider(folder, prompts={"cone": ["drum"]})
    some, same = (_of_prompt(provider.find(ROW, photo), "drum") for provider in (together, alone))
    assert [one.score for one in some] == pytest.approx([one.score for one in same], abs=1e-5)
    assert [one.box for one in some] == [one.box for one in same]


def test_the_same_photo_gives_the_same_objects(folder: Path) -> None:
    photo = _photo(33, 71)
    one, other = (_provider(folder).find(ROW, photo) for _ in range(2))
    assert one.presence == other.presence
    assert [(a.kind, a.box, a.prompt, a.score) for a in one.objects] == [
        (b.kind, b.box, b.prompt, b.score) for b in other.objects
    ]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(one.objects, other.objects, strict=True))


@pytest.mark.parametrize("size", [(2, 3), (3, 200), (257, 1), (31, 33), (301, 199)])
def test_masks_fit_photos_of_any_shape(folder: Path, size: tuple[int, int]) -> None:
    found = _provider(folder, prompts={"cone": ["cone"]}).find(ROW, _photo(*size))
    assert found.objects
    for one in found.objects:
        left, top, right, bottom = one.box
        assert 0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]
        assert one.mask.shape == (bottom - top, right - left) and one.mask.dtype == bool
        assert all(edge.any() for edge in (one.mask[0], one.mask[-1], one.mask[:, 0], one.mask[:, -1]))
    assert found.bits(size[1], size[0]).any()


def test_example_boxes_are_asked_with_the_prompts_of_their_class(folder: Path, tmp_path: Path) -> None:
    photo, boxes = _photo(60, 80), [[5, 6, 30, 40], [50, 10, 70.5, 60]]
    file = tmp_path / "exemplars.json"
    file.write_text(json.dumps({"a/1": {"sign": boxes}}))
    provider, without = _provider(folder, exemplars=str(file)), _provider(folder)
    encoded = _calls(provider.model.vision_encoder)
    found = provider.find(ROW, photo)
    assert encoded == [1]
    for prompt in TWELVE["sign"]:
        _check_equal(found, prompt, *_plain(folder, photo, prompt, input_boxes=[boxes]))
    plain = without.find(ROW, photo)
    assert [one.score for one in _of_prompt(found, "drum")] == [one.score for one in _of_prompt(plain, "drum")]
    assert found.presence["detour sign"] != pytest.approx(plain.presence["detour sign"], abs=1e-5)
    assert provider.find({"row_id": "b"}, photo).presence == plain.presence


def test_an_example_outside_its_photo_is_counted(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "exemplars.json"
    file.write_text('{"a/1": {"sign": [[0, 0, 10, 61]]}}')
    with pytest.raises(MaskError, match=r"row 'a/1'.*\[0, 0, 10, 61\].*80x60") as caught:
        _provider(folder, exemplars=str(file)).find(ROW, _photo(60, 80))
    assert caught.value.reason == "exemplar outside"


def test_an_example_needs_prompts_of_its_class(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "exemplars.json"
    file.write_text('{"a/1": {"vehicle": [[0, 0, 10, 6]]}}')
    with pytest.raises(ValueError, match="row 'a/1' mark 'vehicle', which has no prompts"):
        _provider(folder, exemplars=str(file))


class _Stub:
    """A model that answers with given outputs: objects `(P, Q)`, presences `(P)`, masks `(P, Q, h, w)` of 0 and 1."""

    device = torch.device("cpu")

    def __init__(self, objects: list[list[float]], presence: list[float], masks: Tensor) -> None:
        self.answer = {
            "pred_logits": torch.tensor(objects).logit(),
            "presence_logits": torch.tensor(presence)[:, None].logit(),
            "pred_boxes": torch.zeros(*masks.shape[:2], 4),
            "pred_masks": masks * 20 - 10,
        }

    def get_vision_features(self, **_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(fpn_hidden_states=(), fpn_position_encoding=())

    def __call__(self, **_: Any) -> dict[str, Tensor]:
        return self.answer


def _squares(*boxes: tuple[int, int, int, int]) -> Tensor:
    """Masks `(N, 16, 16)`, each one box."""
    masks = torch.zeros(len(boxes), 16, 16)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def test_duplicates_go_and_low_scores_go(folder: Path) -> None:
    provider = _provider(folder, prompts={"cone": ["cone", "drum"]}, min_score=0.3, nms_iou=0.5)
    whole, most, other = (0, 0, 8, 8), (0, 0, 8, 7), (8, 8, 16, 16)
    masks = torch.stack([_squares(whole, other, other), _squares(most, whole, (3, 3, 3, 3))])
    provider.model = _Stub([[0.8, 0.6, 0.3], [0.9, 0.7, 0.99]], [0.9, 0.95], masks)
    found = provider.find(ROW, _photo(16, 16))
    # The second prompt's best takes the first's; its second is a duplicate, its third has no pixel; .3 * .9 is too low.
    assert [(one.prompt, one.box, one.area) for one in found.objects] == [("drum", most, 56), ("cone", other, 64)]
    assert [one.score for one in found.objects] == pytest.approx([0.9 * 0.95, 0.6 * 0.9])
    assert found.presence == pytest.approx({"cone": 0.9, "drum": 0.95})


def test_classes_may_overlap(folder: Path) -> None:
    provider = _provider(folder, prompts={"worker": ["worker"], "cone": ["cone"]}, nms_iou=0.0)
    provider.model = _Stub([[0.8]], [0.9], _squares((0, 0, 8, 8))[None])
    found = provider.find(ROW, _photo(32, 32))
    assert [(one.kind, one.box) for one in found.objects] == [("cone", (0, 0, 16, 16)), ("worker", (0, 0, 16, 16))]
    assert set(np.unique(found.bits(32, 32))) == {0, 0b1001}


def test_a_higher_limit_keeps_the_best(folder: Path) -> None:
    photo = _photo(40, 40)
    every = _provider(folder).find(ROW, photo).objects
    limit = sorted(one.score for one in every)[-5]
    assert len(every) > 2 * NUM_QUERIES
    kept = _provider(folder, min_score=limit).find(ROW, photo).objects
    assert {(one.prompt, one.score) for one in kept} == {(one.prompt, one.score) for one in every if one.score > limit}


def test_settings_hold_what_decides(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "exemplars.json"
    file.write_text('{"a": {"cone": [[0, 0, 10, 6]]}}')
    provider = _provider(folder, prompts=None, exemplars=str(file), dtype="bfloat16", revision="main")
    settings = provider.settings()
    assert settings == json.loads(json.dumps(settings))
    assert settings["weights"] == hash_weights(Sam3Model.from_pretrained(folder))
    assert settings["prompts"] == DEFAULT_PROMPTS and provider.classes == tuple(DEFAULT_PROMPTS)
    assert settings["exemplars"] == read_exemplars(file).digest
    others = [settings[name] for name in ("provider", "model", "revision", "dtype", "min_score", "nms_iou")]
    assert others == ["sam3", str(folder), "main", "bfloat16", 0.0, 1.0]


def test_bfloat16_finds_nearly_the_same_with_example_boxes_too(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "exemplars.json"
    file.write_text('{"a/1": {"sign": [[0, 0, 10, 16], [20, 20, 39, 39]]}}')
    full, half = (
        _provider(folder, dtype=dtype, exemplars=str(file)).find(ROW, _photo(40, 40)).presence
        for dtype in ("float32", "bfloat16")
    )
    assert full != half
    assert list(half.values()) == pytest.approx(list(full.values()), abs=2e-2)


def test_weights_as_they_are_published_load(folder: Path, tmp_path: Path) -> None:
    """The Hub's folder holds the video model, whose detector is SAM 3 for photos."""
    model = Sam3Model.from_pretrained(folder)
    Sam3Processor.from_pretrained(folder).save_pretrained(tmp_path)
    Sam3VideoConfig(detector_config=model.config.to_dict()).save_pretrained(tmp_path)
    weights = {f"detector_model.{name}": value.clone() for name, value in model.state_dict().items()}
    save_file(
        {**weights, "tracker_model.a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    provider = _provider(tmp_path)
    assert provider.settings()["weights"] == hash_weights(model)
    assert provider.find(ROW, _photo(40, 40)).presence == _provider(folder).find(ROW, _photo(40, 40)).presence


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_score": 1.5}, r"min_score=1.5 must lie in \[0, 1\]"),
        ({"nms_iou": -1}, r"nms_iou=-1 must lie"),
        ({"dtype": "float8"}, "dtype='float8' must be one of float32, bfloat16"),
        ({"prompts": {"cone": ["a very long prompt of far too many letters"]}}, "has 36 tokens, SAM 3 reads 32"),
        ({"exemplars": "absent.json"}, "exemplars='absent.json' cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _provider(folder, **settings)


@pytest.mark.parametrize("model_id", ["facebook/sam3", "no/such/folder"])
def test_a_model_that_cannot_be_had_is_one_clear_line(model_id: str) -> None:
    with pytest.raises(ValueError) as caught:
        Sam3Provider.from_pretrained(model_id, device="cpu")
    message = str(caught.value)
    assert all(word in message for word in (model_id, "accept its licence", "HF_TOKEN", "folder"))
    assert "\n" not in message

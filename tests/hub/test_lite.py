"""The short way from bytes to a probability: the processor's pixels, drafts of large photos, bad bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork.hub.export import LiteCard, export_lite
from natix_roadwork.hub.lite import LiteClassifier
from natix_roadwork.training.distillation_student import vit_processor
from tests.student_runs import tiny_student


STATISTICS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def jpeg(width: int, height: int, seed: int = 0, **options: object) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = LiteCard("lite", "For tests.")
    target = tmp_path_factory.mktemp("lite") / "lite"
    return export_lite(tiny_student(), vit_processor(**STATISTICS), target, card, "stock-4.45")


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", [(224, 224), (640, 360), (200, 500)])
def test_pixels_are_those_of_the_processor(size: tuple[int, int], resample: int) -> None:
    processor = vit_processor(**STATISTICS, resample=resample)
    photo = jpeg(*size)
    expected = processor(images=Image.open(io.BytesIO(photo)).convert("RGB"), return_tensors="pt")["pixel_values"]
    assert torch.equal(LiteClassifier(tiny_student(), processor).pixels(photo), expected)


def test_answer_is_the_models_probability(folder: Path) -> None:
    classify, photo = LiteClassifier.from_pretrained(folder), jpeg(224, 224)
    answer = classify(photo)
    with torch.no_grad():
        pixels = vit_processor(**STATISTICS)(images=Image.open(io.BytesIO(photo)), return_tensors="pt")["pixel_values"]
        expected = tiny_student()(pixel_values=pixels).logits.softmax(-1)[0, 1].item()
    assert type(answer) is float and answer == pytest.approx(expected, abs=1e-6)


def test_a_draft_is_close_and_leaves_small_photos_alone(folder: Path) -> None:
    exact, draft = (LiteClassifier.from_pretrained(folder, draft=value) for value in (False, True))
    large, small = jpeg(2400, 1800), jpeg(224, 224)
    assert torch.equal(exact.pixels(small), draft.pixels(small))
    difference = (exact.pixels(large) - draft.pixels(large)).abs()
    assert 0 < difference.mean() < 0.05
    assert exact(large) == pytest.approx(draft(large), abs=0.02)


def test_a_draft_is_turned_upright(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exact, draft = (LiteClassifier.from_pretrained(folder, draft=value) for value in (False, True))
    turned = jpeg(2400, 1800, exif=exif)
    assert (exact.pixels(turned) - draft.pixels(turned)).abs().mean() < 0.05
    assert (exact.pixels(turned) - exact.pixels(jpeg(2400, 1800))).abs().mean() > 0.1


@pytest.mark.parametrize("draft", [False, True])
def test_what_is_no_photo_is_refused(folder: Path, draft: bool) -> None:
    classify = LiteClassifier.from_pretrained(folder, draft=draft)
    for data, message in (
        (b"", "is empty"),
        (b"text", "not a readable picture"),
        (jpeg(2400, 1800)[:9000], "truncated"),
    ):
        with pytest.raises(ValueError, match=message):
            classify(data)
    classify.max_megapixels = 1.0
    with pytest.raises(ValueError, match="megapixels"):
        classify(jpeg(2400, 1800))


def test_png_is_read_too(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (300, 300), (10, 200, 30, 255)).save(buffer, "PNG")
    assert 0 < LiteClassifier.from_pretrained(folder, draft=True)(buffer.getvalue()) < 1


def test_other_labels_and_broken_weights_are_refused() -> None:
    model = tiny_student()
    model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    with pytest.raises(ValueError, match="without 'Roadwork'"):
        LiteClassifier(model, vit_processor())
    broken = tiny_student()
    with torch.no_grad():
        broken.classifier.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="weights are broken"):
        LiteClassifier(broken, vit_processor())(jpeg(224, 224))

"""What the page says of a photo, read as text: the answer, the views, and messages that a person understands."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.inference import demo_result
from natix_roadwork.inference.demo_result import photo_result, shown_views, view_label
from natix_roadwork.inference.photo_model import PhotoModel, PhotoReading, load_photo_model
from natix_roadwork.model.views import view_names
from tests.inference.test_photo_model import save_stock


def encoded(picture: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(saved_model: Path) -> PhotoModel:
    return load_photo_model(str(saved_model))


@pytest.fixture(scope="module")
def photo() -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)))


def test_the_result_tells_the_answer_and_marks_the_kept_views(model: PhotoModel, photo: bytes) -> None:
    text = photo_result(model, photo)
    (reading,) = model.answer([model.prepare(photo)])
    assert f">{100 * reading.probability:.0f} %</strong>" in text
    assert ("<h2>Roadwork</h2>" in text) == (reading.probability > 0.5)
    assert text.count('<li class="kept">') == 8 and text.count('<li class="dropped">') == 4
    shares = [int(share) for share in re.findall(r'"share">(\d+) %', text)]
    assert len(shares) == 8 and shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=4)
    assert text.count("data:image/jpeg;base64,") == 13 and "Where it looked" in text


def test_tta_is_said(model: PhotoModel, photo: bytes) -> None:
    assert "16 variants" in photo_result(model, photo, "mean") and "variants" not in photo_result(model, photo)


@pytest.mark.parametrize(
    ("probability", "answer", "chance", "sure"),
    [
        (0.0001, "No roadwork", "under 1 %", "clear answer"),
        (0.5, "No roadwork", "50 %", "close call"),
        (0.75, "Roadwork", "75 %", "likely answer"),
        (0.9999, "Roadwork", "over 99 %", "clear answer"),
    ],
)
def test_a_probability_is_put_into_words(
    probability: float,
    answer: str,
    chance: str,
    sure: str,
    model: PhotoModel,
    photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "answer", lambda photos, explain: [PhotoReading(probability)])
    text = photo_result(model, photo)
    assert f"<h2>{answer}</h2>" in text and f"{chance}</strong>" in text and sure in text


def test_an_answer_that_is_no_number_is_not_shown_as_one(
    model: PhotoModel, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "answer", lambda photos, explain: [PhotoReading(float("nan"))])
    text = photo_result(model, photo)
    assert "no answer" in text and "nan" not in text


def test_a_lite_model_shows_the_photo_alone(tmp_path: Path, photo: bytes) -> None:
    text = photo_result(load_photo_model(str(save_stock(tmp_path))), photo)
    assert text.count("data:image/jpeg;base64,") == 1 and "Where it looked" not in text and "<li" not in text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<script>no photo</script>", "not a readable picture"),
        (b"", "empty"),
        (encoded(Image.effect_noise((300, 200), 90))[:5000], "corrupt or truncated"),
        (encoded(Image.new("1", (10_000, 8_100)), "PNG"), "81.0 megapixels"),
    ],
)
def test_a_file_that_is_no_photo_gets_a_message(
    data: bytes, said: str, model: PhotoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "answer", None)  # nothing runs
    text = photo_result(model, data)
    assert 'role="alert"' in text and "This file cannot be used" in text and said in text
    assert "at most 80 million pixels" in text and "<script" not in text and "Traceback" not in text


def test_an_oversized_photo_is_refused_before_it_is_decoded(
    model: PhotoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.new("1", (10_000, 8_100)), "PNG")
    monkeypatch.setattr(Image.Image, "load", None)
    assert "megapixels" in photo_result(model, data)


def test_every_view_has_a_name_in_words() -> None:
    for squares in (["center", "right"], ["left", "right"]):
        labels = [view_label(name) for name in view_names("photo12", squares)]
        assert len(set(labels)) == 12 and not any("_" in label for label in labels)
    assert view_label("tile_0_2") == "top right" and view_label("tile_1_1") == "middle"


def test_views_that_are_not_used_come_last(model: PhotoModel) -> None:
    small = encoded(Image.new("RGB", (40, 30), "red"))  # its views are masked: they would only enlarge
    prepared = model.prepare(small)
    (reading,) = model.answer([prepared], explain=True)
    shown = shown_views(prepared.pixels[0], reading.views)
    assert [view.state for view in shown] == sorted(
        (view.state for view in shown), key=("kept", "dropped", "masked").index
    )
    assert "masked" in {view.state for view in shown} and "shows nothing more" in photo_result(model, small)
    assert demo_result.VIEW_SIDE > 100

"""JPEGs, which simplejpeg decodes: to the bits of Pillow, and refused where Pillow refuses."""

import io

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.model import photo
from natix_roadwork.model.photo import decode_photo, load_photo


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "JPEG", "quality": 85} | options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only simplejpeg may decode."""

    def refuse(*_: object) -> None:
        raise AssertionError("Pillow decodes")

    monkeypatch.setattr(photo, "_pixels_of", refuse)


@pytest.mark.usefixtures("no_pillow")
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"quality": 15}])
def test_the_bits_are_those_of_pillow(subsampling: str, options: dict) -> None:
    for width, height in ((64, 48), (33, 17), (1, 1), (257, 3)):
        data = jpeg(picture(width, height), subsampling=subsampling, **options)
        assert np.array_equal(load_photo(data), by_pillow(data))


@pytest.mark.usefixtures("no_pillow")
def test_of_a_picture_with_others_behind_it_the_first_is_decoded() -> None:
    first, second = picture(64, 48), picture(64, 48, seed=1)
    data = jpeg(first, format="MPO", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.array_equal(load_photo(data), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_left_to_pillow(mode: str) -> None:
    data = jpeg(picture(40, 30).convert(mode))
    assert np.array_equal(load_photo(data), by_pillow(data))


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, overwritten, with a hole, or followed by rubbish."""
    kind, place = rng.integers(4), int(rng.integers(2, len(data)))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + rng.bytes(2) + data[place + 2 :]
    if kind == 2:
        return data[:place] + data[place + int(rng.integers(1, 30)) :]
    return data[: len(data) - int(rng.integers(3))] + rng.bytes(20)


def opened(data: bytes) -> np.ndarray | str:
    try:
        return load_photo(data)
    except ValueError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_is_judged_as_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    whole = [jpeg(picture(50, 40), progressive=progressive) for progressive in (False, True)]
    files = [damaged(whole[number % 2], rng) for number in range(600)]
    found = [opened(data) for data in files]
    monkeypatch.setattr(photo, "simplejpeg", None)
    expected = [opened(data) for data in files]
    refused = sum(isinstance(answer, str) for answer in expected)
    assert 100 < refused < 500
    for ours, pillows in zip(found, expected, strict=True):
        assert type(ours) is type(pillows) and np.array_equal(ours, pillows)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("halves", [False, True])
def test_without_simplejpeg_everything_is_the_same(
    orientation: int, halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(picture(64, 48), exif=exif.tobytes())
    asked = []

    def may_halve(*size: int) -> bool:
        asked.append(size)
        return halves

    fast = decode_photo(data, may_halve=may_halve)
    monkeypatch.setattr(photo, "simplejpeg", None)
    slow = decode_photo(data, may_halve=may_halve)
    upright = (64, 48) if orientation < 5 else (48, 64)
    assert asked == [upright, upright] == [(fast.width, fast.height), (slow.width, slow.height)]
    assert fast.shrink == slow.shrink == 1 + halves
    assert np.array_equal(fast.pixels, slow.pixels)


def test_only_the_half_of_even_sides_is_taken() -> None:
    for size in ((63, 48), (64, 47)):
        assert decode_photo(jpeg(picture(*size)), may_halve=lambda *_: True).shrink == 1
    buffer = io.BytesIO()
    picture(64, 48).save(buffer, "PNG")
    assert decode_photo(buffer.getvalue(), may_halve=lambda *_: True).shrink == 1
    assert decode_photo(jpeg(picture(64, 48)), may_halve=lambda *_: True).pixels.shape == (24, 32, 3)


def test_the_size_limit_counts_the_whole_photo_and_holds_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"64 x 48 = 0.0 megapixels.*max_megapixels = 0.003"):
        decode_photo(jpeg(picture(64, 48)), max_megapixels=0.003, may_halve=lambda *_: True)

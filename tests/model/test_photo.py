import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from natix_roadwork.model.photo import load_photo


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Four flat quarters of different colour, so that a wrong orientation shows."""
    quarters = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [240, 240, 20]]], dtype=np.uint8)
    return Image.fromarray(quarters.repeat(height // 2, axis=0).repeat(width // 2, axis=1))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def assert_same_picture(photo: np.ndarray, expected: Image.Image, tolerance: int = 8) -> None:
    assert photo.dtype == np.uint8 and photo.shape == (expected.height, expected.width, 3)
    assert photo.flags.c_contiguous
    corners = np.ix_([3, -4], [3, -4])
    difference = np.abs(photo[corners].astype(int) - np.asarray(expected)[corners])
    assert difference.max() <= tolerance


STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_comes_out_upright(orientation: int, file_format: str) -> None:
    upright = picture()
    stored = upright if STORED_AS[orientation] is None else upright.transpose(STORED_AS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, file_format, exif=exif.tobytes())
    photo = load_photo(data)
    assert_same_picture(photo, upright, tolerance=40)
    assert np.array_equal(photo, load_photo(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"])
def test_every_format_opens_from_bytes_and_from_a_path(file_format: str, tmp_path: Path) -> None:
    data = encoded(picture(), file_format)
    (tmp_path / "photo").write_bytes(data)
    assert_same_picture(load_photo(data), picture(), tolerance=40)
    for path in (tmp_path / "photo", str(tmp_path / "photo")):
        assert np.array_equal(load_photo(path), load_photo(data))


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "RGBA", "LA", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    expected = picture().convert("1" if mode == "1" else "L") if mode in ("L", "LA", "1") else picture()
    source = picture().quantize(8) if mode == "P" else picture().convert(mode)
    assert source.mode == mode
    assert_same_picture(load_photo(source), expected.convert("RGB"), tolerance=12)


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    assert_same_picture(load_photo(encoded(picture().convert("CMYK"), "JPEG")), picture(), tolerance=40)


def test_alpha_is_dropped_not_blended() -> None:
    image = picture()
    image.putalpha(0)
    assert_same_picture(load_photo(encoded(image, "PNG")), picture(), tolerance=0)


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16)
    for source in (values, encoded(Image.fromarray(values), "PNG"), encoded(Image.fromarray(values), "TIFF")):
        photo = np.asarray(load_photo(source))
        assert (photo == expected[..., None]).all()
    assert np.asarray(load_photo(np.array([[128, 129, 385, 386]], dtype=np.uint16)))[0, :, 0].tolist() == [0, 1, 1, 2]


def test_thirty_two_bit_values_are_read_as_sixteen_bits_or_refused() -> None:
    assert np.asarray(load_photo(Image.fromarray(np.full((4, 4), 65535, dtype=np.int32))))[0, 0, 0] == 255
    with pytest.raises(ValueError, match="70000"):
        load_photo(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(file_format: str) -> None:
    data = encoded(picture(), file_format, save_all=True, append_images=[Image.new("RGB", (60, 40))])
    assert_same_picture(load_photo(data), picture(), tolerance=40)


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4), (3, 40, 60), (1, 40, 60)])
def test_arrays_of_every_layout_open(shape: tuple[int, ...]) -> None:
    assert load_photo(np.zeros(shape, dtype=np.uint8)).shape == (40, 60, 3)


def test_arrays_and_tensors_keep_their_values() -> None:
    values = np.asarray(picture())
    assert np.array_equal(load_photo(values), values)
    assert np.array_equal(load_photo(np.moveaxis(values, 2, 0)), values)
    assert np.array_equal(load_photo(torch.from_numpy(values.copy()).permute(2, 0, 1)), values)


def test_one_pixel_is_a_photo() -> None:
    assert load_photo(encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")).tolist() == [[[9, 8, 7]]]


def test_rgb_pixels_are_not_copied() -> None:
    pixels = np.array(picture())
    assert np.shares_memory(load_photo(pixels), pixels)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "empty"),
        (b"no picture at all", "not a readable picture.*no pictu"),
        (encoded(picture(600, 400), "JPEG")[:2000], "corrupt or truncated.*truncated"),
        (encoded(picture(600, 400), "PNG")[:-40], "corrupt or truncated"),
        (np.zeros((4, 4, 3), dtype=np.float32), "uint8.*float32"),
        (np.zeros((5, 6, 2), dtype=np.uint8), r"\(5, 6, 2\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "no pixels"),
        (Image.new("F", (4, 4)), "floating-point"),
        (12, "got int"),
        ("missing.jpg", "missing.jpg.*No such file"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(source: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_photo(source)


def test_the_given_name_is_in_the_error() -> None:
    with pytest.raises(ValueError, match="train-00001:17"):
        load_photo(b"junk", name="train-00001:17")


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG of any claimed size; there are no pixels behind it."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (12_000, 9_000), (40_000, 40_000)])
def test_a_bomb_is_refused_from_its_header_without_a_warning(width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"max_megapixels|too large"):
            load_photo(png_header(width, height))


def test_the_size_limit_is_the_callers_choice() -> None:
    data = encoded(picture(2000, 1000), "JPEG")
    assert load_photo(data, max_megapixels=2.0).shape == (1000, 2000, 3)
    with pytest.raises(ValueError, match=r"2000 x 1000 = 2.0 megapixels.*max_megapixels = 1.9"):
        load_photo(data, max_megapixels=1.9)
    with pytest.raises(ValueError, match="max_megapixels"):
        load_photo(np.zeros((1000, 2000), dtype=np.uint8), max_megapixels=1.9)


def test_pillows_settings_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    load_photo(encoded(picture(100, 60), "JPEG"))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before

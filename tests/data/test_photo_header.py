import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from natix_roadwork.data.photo_header import read_header


def _saved(image: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


def test_size_and_bytes(photo: Callable[..., bytes]) -> None:
    data = photo(64, 48)
    header = read_header(data)
    assert (header.width, header.height, header.num_bytes) == (64, 48, len(data))


def test_path_bytes_and_arrow_buffer_agree(photo: Callable[..., bytes], tmp_path: Path) -> None:
    data = photo(64, 48)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert read_header(path) == read_header(str(path)) == read_header(data) == read_header(pa.py_buffer(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_upright(photo: Callable[..., bytes], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    header = read_header(photo(64, 48, exif=exif))
    assert (header.width, header.height) == ((48, 64) if orientation >= 5 else (64, 48))


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "P", "RGBA", "I;16"])
def test_modes_are_accepted(mode: str) -> None:
    image = Image.fromarray(np.zeros((4, 5), np.uint16)) if mode == "I;16" else Image.new(mode, (5, 4))
    assert read_header(_saved(image, "TIFF"), decode=True).width == 5


def test_one_pixel_is_accepted(photo: Callable[..., bytes]) -> None:
    assert read_header(photo(1, 1)).height == 1


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "0 bytes"), (b"not a photo", "none of"), (b"\xff\xd8\xff\xe0\x00", "header")]
)
def test_unreadable_bytes_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_header(data)


def test_large_photo_is_refused_from_its_header() -> None:
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0" * 4
    with pytest.raises(ValueError, match=r"10000x10000 = 100\.0 million pixels, more than max_megapixels=80|damaged"):
        read_header(png)


def test_limit_follows_the_argument(photo: Callable[..., bytes]) -> None:
    with pytest.raises(ValueError, match=r"more than max_megapixels=0\.003"):
        read_header(photo(64, 48), max_megapixels=0.003)
    assert read_header(photo(64, 48), max_megapixels=0.0031).width == 64


def test_bomb_beyond_pillows_limit_is_refused() -> None:
    bomb = _saved(Image.new("1", (20_000, 10_000)), "TIFF")
    with pytest.raises(ValueError, match=r"too large|million pixels"):
        read_header(bomb)


def test_cut_off_jpeg_is_found_without_decoding_whole_ones(photo: Callable[..., bytes]) -> None:
    data = photo(64, 48)
    with pytest.raises(ValueError, match="corrupt or truncated"):
        read_header(data[: len(data) * 2 // 3])


def test_trailing_bytes_are_no_damage(photo: Callable[..., bytes]) -> None:
    assert read_header(photo(64, 48) + b"\0" * 500).width == 64


def test_damaged_png_fails_its_checksum(photo: Callable[..., bytes]) -> None:
    data = bytearray(photo(64, 48, format="PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ValueError, match="damaged"):
        read_header(bytes(data))


def test_damage_inside_a_jpeg_needs_decoding(photo: Callable[..., bytes]) -> None:
    data = photo(64, 48)
    damaged = data[: len(data) // 2] + b"\xff\xc8" + data[len(data) // 2 + 2 :]
    assert read_header(damaged).width == 64
    with pytest.raises(ValueError, match="corrupt or truncated"):
        read_header(damaged, decode=True)

"""Check a photo from its header, without decoding it.

In come the stored bytes or the path of a photo; out goes its upright size, or the reason it cannot be used.
"""

import io
import os
import struct
import warnings
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image


EXIF_ORIENTATION = 0x0112
# Orientations 5 to 8 turn the photo by a quarter: the upright width is the stored height.
QUARTER_TURNS = (5, 6, 7, 8)
JPEG_END = b"\xff\xd9"
TAIL_BYTES = 64
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, EOFError, TypeError, IndexError)


@dataclass(frozen=True)
class PhotoHeader:
    """What the header of a photo says.

    Attributes:
        width: Upright width in pixels, EXIF orientation applied.
        height: Upright height in pixels.
        num_bytes: Size of the stored photo.
    """

    width: int
    height: int
    num_bytes: int


def read_header(
    source: bytes | pa.Buffer | str | os.PathLike[str], max_megapixels: float = 80.0, *, decode: bool = False
) -> PhotoHeader:
    """Read a photo's size from its header and look for damage that shows without decoding.

    A JPEG that does not end in its end marker is decoded, to see whether it is cut off; formats with checksums are
    verified. Other damage inside the picture data is found only with `decode=True`.

    Args:
        source: Stored bytes, or a path.
        max_megapixels: Largest accepted size in millions of pixels.
        decode: Decode the whole photo.

    Raises:
        ValueError: With the reason the photo cannot be used.
    """
    is_path = isinstance(source, (str, os.PathLike))
    num_bytes = os.path.getsize(source) if is_path else len(source)
    if num_bytes == 0:
        raise ValueError("the photo is empty (0 bytes)")
    with open(source, "rb") if is_path else _open_bytes(source) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            header, format_name = _read(file, num_bytes, max_megapixels)
            if decode or _may_be_cut_off(file, format_name, num_bytes):
                file.seek(0)
                Image.open(file).load()
            elif format_name not in ("JPEG", "MPO"):
                file.seek(0)
                Image.open(file).verify()
        except Image.DecompressionBombError:
            raise ValueError(f"the photo has more than max_megapixels={max_megapixels:g} million pixels") from None
        except Image.UnidentifiedImageError:
            raise ValueError("the photo cannot be read as an image") from None
        except IMAGE_ERRORS as error:
            reason = str(error) if isinstance(error, _HeaderError) else f"the photo is damaged: {error}"
            raise ValueError(reason) from None
    return header


class _HeaderError(ValueError):
    """A reason that needs no more words."""


def _open_bytes(source: bytes | pa.Buffer) -> io.IOBase:
    return pa.BufferReader(source)


def _read(file: io.IOBase, num_bytes: int, max_megapixels: float) -> tuple[PhotoHeader, str]:
    image = Image.open(file)
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise _HeaderError(
            f"the photo has {width}x{height} = {width * height / 1e6:.1f} million pixels, "
            f"more than max_megapixels={max_megapixels:g}"
        )
    if image.getexif().get(EXIF_ORIENTATION) in QUARTER_TURNS:
        width, height = height, width
    return PhotoHeader(width, height, num_bytes), image.format or ""


def _may_be_cut_off(file: io.IOBase, format_name: str, num_bytes: int) -> bool:
    if format_name not in ("JPEG", "MPO"):
        return False
    file.seek(max(0, num_bytes - TAIL_BYTES))
    return JPEG_END not in file.read(TAIL_BYTES)

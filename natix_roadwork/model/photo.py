"""Opening one photo, whatever form it comes in, as an upright 8-bit RGB picture.

In: a PIL image, an array or tensor, encoded bytes, or a path. Out: a `PIL.Image.Image` in mode `RGB` with its EXIF
orientation applied, ready for `views`. What cannot be read is refused with a `ValueError` that names the photo and
the reason. Pillow's global settings are neither read as advice nor changed.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps


PhotoSource = Image.Image | np.ndarray | torch.Tensor | bytes | bytearray | memoryview | str | os.PathLike

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000")
CHANNEL_COUNTS = (1, 3, 4)


def load_photo(source: PhotoSource, max_megapixels: float = 80.0, name: str | None = None) -> Image.Image:
    """Open a photo as an upright 8-bit RGB picture.

    Sixteen-bit values are scaled to 8 bits, of an animation the first frame is taken, an alpha channel is dropped
    (not blended), CMYK, grayscale and palette pictures are converted. EXIF orientation is applied for every source
    that carries it.

    Args:
        source: A PIL image; `uint8` or `uint16` values as an array `(H,W)`, `(H,W,C)` or `(C,H,W)`, or as a tensor
            `(H,W)` or `(C,H,W)`, with 1, 3 or 4 channels; the bytes of a JPEG, PNG, WebP, TIFF, GIF, BMP, PPM or
            JPEG 2000 file; or the path of one.
        max_megapixels: Largest accepted width x height in millions; checked before any pixel is decoded.
        name: What to call the photo in an error, for example its row id; a path names itself.

    Returns:
        The photo in mode `RGB`; the given object itself when it is already an upright RGB image.

    Raises:
        ValueError: If the photo is missing, empty, corrupt, truncated, of an unknown format or type, or too large.
    """
    if isinstance(source, str | os.PathLike):
        name = name or os.fspath(source)
        source = _read_file(Path(source), name)
    label = f"photo {name!r}" if name else "photo"
    if isinstance(source, Image.Image):
        photo = source
    elif isinstance(source, np.ndarray | torch.Tensor):
        photo = _from_array(source, label)
    elif isinstance(source, bytes | bytearray | memoryview):
        photo = _open_encoded(bytes(source), label)
    else:
        raise ValueError(
            f"{label} must be a PIL image, an array, a tensor, encoded bytes or a path, got {type(source).__name__}"
        )
    _check_size(photo.size, max_megapixels, label)
    return _to_rgb(_upright(photo, label), label)


def _read_file(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"photo {name!r} cannot be read: {error.strerror or error}") from error


def _open_encoded(data: bytes, label: str) -> Image.Image:
    """Read the header of an encoded photo; no pixel is decoded yet."""
    if not data:
        raise ValueError(f"{label} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Pillow warns about large headers; the size check of the caller answers for them.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=PHOTO_FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{label} is too large to open: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{label} is not a readable picture: {len(data)} bytes starting with {data[:8]!r} are none of {PHOTO_FORMATS}"
        ) from error
    except Exception as error:
        raise ValueError(f"{label} has a corrupt header: {error or type(error).__name__}") from error


def _check_size(size: tuple[int, int], max_megapixels: float, label: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"{label} has no pixels: {width} x {height}")
    if width * height > max_megapixels * 1e6:
        raise ValueError(
            f"{label} is {width} x {height} = {width * height / 1e6:.1f} megapixels, more than max_megapixels = "
            f"{max_megapixels:g}; downscale it or raise max_megapixels"
        )


def _upright(photo: Image.Image, label: str) -> Image.Image:
    """Decode the pixels and apply the EXIF orientation."""
    try:
        photo.load()
        if photo.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return photo
        return ImageOps.exif_transpose(photo)
    except Exception as error:
        raise ValueError(f"{label} is corrupt or truncated: {error or type(error).__name__}") from error


def _to_rgb(photo: Image.Image, label: str) -> Image.Image:
    if photo.mode == "RGB":
        return photo
    if photo.mode == "F":
        raise ValueError(f"{label} holds floating-point pixels of unknown range; convert them to 8 bits first")
    if photo.mode == "I" or photo.mode.startswith("I;16"):
        return Image.fromarray(_scale_16_bit(np.asarray(photo), label)).convert("RGB")
    return photo.convert("RGB")


def _scale_16_bit(values: np.ndarray, label: str) -> np.ndarray:
    """Scale 0..65535 to 0..255, rounded to the nearest value."""
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{label} has values from {values.min()} to {values.max()}, outside the 16 bits 0 to 65535")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_array(source: np.ndarray | torch.Tensor, label: str) -> Image.Image:
    if isinstance(source, torch.Tensor):
        array = source.detach().cpu().numpy()
        channels_first = array.ndim == 3
    else:
        array = source
        channels_first = array.ndim == 3 and array.shape[2] not in CHANNEL_COUNTS
    if channels_first:
        array = np.moveaxis(array, 0, 2)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNEL_COUNTS):
        raise ValueError(
            f"{label} as an array must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {source.shape}"
        )
    if 0 in array.shape:
        raise ValueError(f"{label} has no pixels: shape {tuple(source.shape)}")
    if array.dtype == np.uint16:
        array = _scale_16_bit(array, label)
    if array.dtype != np.uint8:
        raise ValueError(f"{label} as an array must hold uint8 (0 to 255) or uint16 values, got {source.dtype}")
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
    return Image.fromarray(np.ascontiguousarray(array))

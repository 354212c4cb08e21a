"""Opening one photo, whatever form it comes in, as upright 8-bit RGB pixels.

In: a PIL image, an array or tensor, encoded bytes, or a path. Out: a `uint8` array `(H, W, 3)` with the photo's EXIF
orientation applied, ready for `views`. What cannot be read is refused with a `ValueError` that names the photo and
the reason. Pillow's global settings are neither read as advice nor changed.

A JPEG is decoded by simplejpeg where it is installed, to the same bits as by Pillow in about half the time. Whatever
simplejpeg refuses, such as damage that libjpeg can bridge, is left to Pillow, which decides.
"""

import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps


try:
    import simplejpeg
except ImportError:
    simplejpeg = None

PhotoSource = Image.Image | np.ndarray | torch.Tensor | bytes | bytearray | memoryview | str | os.PathLike

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000")
JPEG_FORMATS = ("JPEG", "MPO")  # MPO: a JPEG with further pictures behind it
CHANNEL_COUNTS = (1, 3, 4)
QUARTER_TURNS = (5, 6, 7, 8)
# How an array (H, W) is turned upright, by EXIF orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(),
    8: np.rot90,
}


@dataclass(frozen=True)
class DecodedPhoto:
    """An upright photo, perhaps decoded at half its size.

    Attributes:
        pixels: `uint8` `(H / shrink, W / shrink, 3)`.
        shrink: 1, or 2 for a photo at half its size.
    """

    pixels: np.ndarray
    shrink: int = 1

    @property
    def width(self) -> int:
        """Width W of the whole photo in pixels."""
        return self.pixels.shape[1] * self.shrink

    @property
    def height(self) -> int:
        """Height H of the whole photo in pixels."""
        return self.pixels.shape[0] * self.shrink


def load_photo(source: PhotoSource, max_megapixels: float = 80.0, name: str | None = None) -> np.ndarray:
    """Open a photo as upright 8-bit RGB pixels.

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
        `uint8` `(H, W, 3)`, C-contiguous, perhaps read-only; it shares the memory of an array that is so already.

    Raises:
        ValueError: If the photo is missing, empty, corrupt, truncated, of an unknown format or type, or too large.
    """
    return decode_photo(source, max_megapixels, name).pixels


def decode_photo(
    source: PhotoSource,
    max_megapixels: float = 80.0,
    name: str | None = None,
    may_halve: Callable[[int, int], bool] | None = None,
) -> DecodedPhoto:
    """Open a photo as `load_photo` does, at half its size where the caller allows it and its format can.

    Args:
        source: As for `load_photo`.
        max_megapixels: As for `load_photo`; it counts the whole photo.
        name: As for `load_photo`.
        may_halve: Tells from the whole photo's upright width and height whether half the size is enough. It is asked
            about encoded RGB JPEGs with even sides, the only ones whose half is exactly half. None = never.

    Raises:
        ValueError: As for `load_photo`.
    """
    if isinstance(source, str | os.PathLike):
        name = name or os.fspath(source)
        source = _read_file(Path(source), name)
    label = f"photo {name!r}" if name else "photo"
    if isinstance(source, np.ndarray | torch.Tensor):
        pixels = _from_array(source, label)
        _check_size(pixels.shape[1::-1], max_megapixels, label)
        return DecodedPhoto(np.ascontiguousarray(pixels))
    if isinstance(source, Image.Image):
        _check_size(source.size, max_megapixels, label)
        return DecodedPhoto(_pixels_of(source, label))
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        picture = _open_encoded(data, label)
        _check_size(picture.size, max_megapixels, label)
        return _decode(picture, data, label, may_halve)
    raise ValueError(
        f"{label} must be a PIL image, an array, a tensor, encoded bytes or a path, got {type(source).__name__}"
    )


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


def _decode(
    picture: Image.Image, data: bytes, label: str, may_halve: Callable[[int, int], bool] | None
) -> DecodedPhoto:
    if picture.format not in JPEG_FORMATS or picture.mode != "RGB":
        return DecodedPhoto(_pixels_of(picture, label))
    (width, height), orientation = picture.size, _orientation(picture, label)
    upright = (height, width) if orientation in QUARTER_TURNS else (width, height)
    halves = may_halve is not None and width % 2 == height % 2 == 0 and may_halve(*upright)
    half = (width // 2, height // 2) if halves else None
    pixels = _decode_jpeg(data, half)
    if pixels is None:
        if half is not None:
            picture.draft("RGB", half)
        return DecodedPhoto(_pixels_of(picture, label), 1 + halves)
    return DecodedPhoto(_turn(pixels, orientation), 1 + halves)


def _decode_jpeg(data: bytes, half: tuple[int, int] | None) -> np.ndarray | None:
    """Decode a JPEG by simplejpeg, at half its width and height where they are given; None = Pillow has to."""
    if simplejpeg is None:
        return None
    width, height = half or (0, 0)  # 0 = no scaling
    try:
        return simplejpeg.decode_jpeg(data, "RGB", min_width=width, min_height=height, strict=True)
    except ValueError:
        return None


def _turn(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Turn stored pixels `(H, W, 3)` upright; as items of three bytes they are copied fast."""
    if orientation not in UPRIGHT:
        return pixels
    turned = np.ascontiguousarray(UPRIGHT[orientation](pixels.view("V3")[..., 0]))
    return turned.view(np.uint8).reshape(*turned.shape, 3)


def _orientation(picture: Image.Image, label: str) -> object:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        raise ValueError(f"{label} is corrupt or truncated: {error or type(error).__name__}") from error


def _pixels_of(picture: Image.Image, label: str) -> np.ndarray:
    return np.asarray(_to_rgb(_upright(picture, label), label))


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


def _from_array(source: np.ndarray | torch.Tensor, label: str) -> np.ndarray:
    """Bring an array of any layout to `uint8` `(H, W, 3)`."""
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
    if array.ndim == 2:
        array = array[..., None]
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3]

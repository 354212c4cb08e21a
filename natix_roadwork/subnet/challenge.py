"""What a miner of NATIX's subnet 72 gets to see of a photo.

In: an upright RGB photo, a regime, an augmentation level, a generator. Out: the picture that the validator would send,
decoded from its JPEG. Augmentation, the challenge simulator and distillation all call `validator_view`.

The arithmetic is that of the validators of January 2026 (regime A), of 2026-04-06 to 05-03 (B) and of 2026-05-03 on
(C) in https://github.com/natixnetwork/streetvision-subnet (`natix/utils/image_transforms.py`): values are truncated,
not rounded, rotation takes the nearest pixel, and what its code calls JPEG compression is down- and up-scaling.

| level | A | B | C |
|---|---|---|---|
| 0 | centre square, resized | letterbox | the photo itself |
| 1 | rotation, random square crop | letterbox, rotation | the photo itself |
| 2 | level 1, then saturation, contrast, down- and up-scaling, each of strength 0 or 1 | same | the photo itself |
| 3 | the same at strengths 0 to 2, then noise and blur, each of strength 0 to 2 | same | the photo itself |
"""

import io
import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional


LEVELS = (0, 1, 2, 3)
VIEW_SIDE = 224
MAX_ANGLE = 20.0  # degrees, either way
CROP_SHARE = (0.2, 1.0)  # of the photo's area
CROP_TRIES = 10  # of torchvision's RandomResizedCrop, then the centre square
# Y, Cr, Cb: the validator scales colours of 0..255 as if they were 0..1 to the ranges of digital video.
YCRCB_RANGE = np.array([235 - 16, 240 - 16, 240 - 16], np.float32)
YCRCB_OFFSET = 16

Pixels = NDArray[np.uint8]
Square = tuple[int, int, int]


@dataclass(frozen=True)
class Regime:
    """How validators made challenges over some months, beside the views themselves.

    Attributes:
        period: When, as ISO dates.
        side: Side of the sent picture in pixels; None = the photo's own size.
        levels: Augmentation levels, each as likely as the others; one where the level is no matter.
        synthetic_share: Share of the challenges whose picture was generated.
    """

    period: str
    side: int | None
    levels: tuple[int, ...]
    synthetic_share: float


PRESETS = {
    "A": Regime("until 2026-04-06", VIEW_SIDE, LEVELS, 1 / 2),
    "B": Regime("2026-04-06 to 2026-05-03", VIEW_SIDE, LEVELS, 1 / 2),
    "C": Regime("from 2026-05-03, halted on 2026-05-06", None, LEVELS[:1], 1 / 3),
}
REGIMES = tuple(PRESETS)


def draw_level(rng: np.random.Generator) -> int:
    """Draw an augmentation level, each of the four with probability 1/4."""
    return int(rng.integers(len(LEVELS)))


def validator_view(
    image: Image.Image,
    regime: Literal["A", "B", "C"],
    level: int,
    rng: np.random.Generator,
    *,
    flips: bool = False,
) -> Image.Image:
    """Make the picture that the validator would send for a photo.

    Args:
        image: Upright RGB photo of any size, as `model.photo.load_photo` gives it.
        regime: `A` crops, `B` letterboxes on black, both to 224 x 224; `C` keeps the photo's own size.
        level: Augmentation level 0 to 3; no matter in regime `C`, which augments nothing.
        rng: Source of every draw; the same state gives the same picture.
        flips: Flip left-right and top-down, each with probability 1/2, at levels 1 to 3. The validator lists both
            flips, but by a bug they never fire, hence the default.

    Returns:
        The picture decoded from a JPEG of quality 75 with halved chroma, Pillow's defaults.

    Raises:
        ValueError: An argument is not one of the above; it is named.
    """
    placed = validator_geometry(image, regime, level, rng, flips=flips)
    if regime == "C" or level not in DISTORTED_LEVELS:
        return _sent(placed)
    return _sent(Image.fromarray(_distort(np.array(placed), level, rng)))


def validator_geometry(
    image: Image.Image,
    regime: Literal["A", "B", "C"],
    level: int,
    rng: np.random.Generator,
    *,
    flips: bool = False,
) -> Image.Image:
    """Do the first part of `validator_view`, which moves pixels: cropping, resizing, rotation.

    It draws before the distortions do, so that a generator of the same state moves another picture, such as a mask, alike.
    Arguments and errors are those of `validator_view`.
    """
    _check(image, regime, level, rng)
    if regime == "C":
        return image
    if level == 0:
        return _centre_square(image) if regime == "A" else _letterbox(image)
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    if regime == "A":
        pixels = _resized(_rotated_square(image, angle, _draw_square(*image.size, rng)))
    else:
        pixels = np.asarray(_rotated_square(_letterbox(image), angle, (0, 0, VIEW_SIDE)))
    if flips:
        pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        pixels = pixels[::-1] if rng.random() < 0.5 else pixels
    return Image.fromarray(np.ascontiguousarray(pixels))


def _check(image: Image.Image, regime: str, level: int, rng: np.random.Generator) -> None:
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        found = f"mode {image.mode!r}" if isinstance(image, Image.Image) else type(image).__name__
        raise ValueError(f"image must be an RGB PIL image, got {found}; model.photo.load_photo makes one")
    if regime not in REGIMES:
        raise ValueError(f"regime must be one of {REGIMES}, got {regime!r}")
    if not isinstance(level, int | np.integer) or isinstance(level, bool) or level not in LEVELS:
        raise ValueError(f"level must be one of {LEVELS}, got {level!r}")
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"rng must be a numpy.random.Generator, got {type(rng).__name__}; try np.random.default_rng(0)"
        )


def _sent(image: Image.Image) -> Image.Image:
    """Encode and decode as the validator sends and the miner opens it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    sent = Image.open(buffer)
    sent.load()
    return sent


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side)).resize((VIEW_SIDE, VIEW_SIDE), Image.Resampling.BILINEAR)


def _letterbox(image: Image.Image) -> Image.Image:
    scale = min(VIEW_SIDE / image.width, VIEW_SIDE / image.height)
    # The validator fails where a side would become 0 pixels, beyond an aspect of 1:224; here it is one.
    width, height = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    view = Image.new("RGB", (VIEW_SIDE, VIEW_SIDE))
    inner = image.resize((width, height), Image.Resampling.BILINEAR)
    view.paste(inner, ((VIEW_SIDE - width) // 2, (VIEW_SIDE - height) // 2))
    return view


def _draw_square(width: int, height: int, rng: np.random.Generator) -> Square:
    """Draw left, top and side of the random crop; the centre square where ten drawn sides were all too long."""
    for _ in range(CROP_TRIES):
        side = round(math.sqrt(width * height * rng.uniform(*CROP_SHARE)))
        if 0 < side <= min(width, height):
            return int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1)), side
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def _rotated_square(image: Image.Image, angle: float, square: Square) -> Image.Image:
    """Cut a square out of the photo turned by `angle` degrees anticlockwise about its centre; black outside."""
    left, top, side = square
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    centre_x, centre_y = image.width / 2, image.height / 2
    x, y = left - centre_x, top - centre_y
    # Only the pixels of the square are turned: the same picture as turning all of a large photo, many times faster.
    back = (cos, -sin, centre_x + cos * x - sin * y, sin, cos, centre_y + sin * x + cos * y)
    return image.transform((side, side), Image.Transform.AFFINE, back, Image.Resampling.NEAREST)


def _resized(square: Image.Image) -> Pixels:
    """Resize in floating point and truncate, as the validator does from level 1 on."""
    tensor = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float().div(255)
    resized = functional.interpolate(tensor, (VIEW_SIDE, VIEW_SIDE), mode="bilinear", antialias=True)
    return resized[0].mul(255).byte().permute(1, 2, 0).numpy()


def _distort(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    """Apply a level's distortions in order, each at a strength drawn uniformly from 0 to the level's largest."""
    num_distortions, max_strength = DISTORTED_LEVELS[level]
    for distort, amounts in DISTORTIONS[:num_distortions]:
        strength = int(rng.integers(max_strength + 1))
        if strength:
            pixels = distort(pixels, amounts[strength - 1], rng)
    return pixels


def _saturation(pixels: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    planes = _to_ycrcb(pixels)
    planes[..., 1:] = 0.5 + (planes[..., 1:] - 0.5) * factor
    return np.clip(_from_ycrcb(planes), 0, 255).astype(np.uint8)


def _contrast(pixels: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    return (pixels.astype(np.float32) * factor).astype(np.uint8)


def _scaling(pixels: Pixels, divisor: int, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    return cv2.resize(cv2.resize(pixels, (width // divisor, height // divisor)), (width, height))


def _noise(pixels: Pixels, variance: float, rng: np.random.Generator) -> Pixels:
    noise = math.sqrt(variance) * rng.standard_normal(pixels.shape)
    planes = (_to_ycrcb(pixels) / 255 + noise) * 255
    return np.clip(_from_ycrcb(planes), 0, 255).astype(np.uint8)


def _blur(pixels: Pixels, kernel: int, rng: np.random.Generator) -> Pixels:
    return cv2.GaussianBlur(pixels, (kernel, kernel), kernel / 6)


def _to_ycrcb(pixels: Pixels) -> NDArray[np.float32]:
    planes = cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2YCrCb)
    return (planes * YCRCB_RANGE + YCRCB_OFFSET) / 255


def _from_ycrcb(planes: NDArray) -> NDArray[np.float32]:
    return cv2.cvtColor((planes.astype(np.float32) * 255 - YCRCB_OFFSET) / YCRCB_RANGE, cv2.COLOR_YCrCb2RGB)


# In the validator's order, with the amounts of strength 1 and 2; strength 0 leaves the picture as it is.
DISTORTIONS = (
    (_saturation, (0.4, 0.3)),
    (_contrast, (0.85, 0.725)),
    (_scaling, (2, 3)),
    (_noise, (0.001, 0.002)),
    (_blur, (7, 9)),
)
DISTORTED_LEVELS = {2: (3, 1), 3: (5, 2)}  # how many of them, the largest strength

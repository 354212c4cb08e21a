"""The effects of an augmentation preset, built in the order in which they are applied.

In come a preset of `data/augmentation_presets.py` and the size of the views; out go albumentations transforms, which
`data/augmentation.py` puts into pipelines.
"""

from typing import Any

from natix_roadwork.data.augmentation_night import LowLight
from natix_roadwork.data.augmentation_presets import probabilities
from natix_roadwork.data.augmentation_transforms import (
    BrightnessContrast,
    Flip,
    GaussianBlur,
    Hue,
    MotionBlur,
    Noise,
    Saturation,
    Warp,
)
from natix_roadwork.data.augmentation_weather import Flare, Fog, Rain, Shadow
from natix_roadwork.data.quiet_albumentations import A
from natix_roadwork.data.trivial_augment import TrivialAugment


GEOMETRY = ("rotate", "perspective", "zoom")


def view_effects(preset: str) -> list[A.BasicTransform]:
    """Build what is always drawn once a view: the small changes of geometry."""
    p = probabilities(preset)
    return [geometry(p["rotate"], p["zoom"], p["perspective"])] if p else []


def photo_effects(preset: str, size: int) -> list[A.BasicTransform]:
    """Build what is drawn once a photo or once a view, for views of `size` pixels."""
    if preset == "trivial":
        return [TrivialAugment()]
    return [make_effect(name, size, p) for name, p in probabilities(preset).items() if name not in GEOMETRY]


def geometry(rotate_p: float = 0.0, zoom_p: float = 0.0, perspective_p: float = 0.0) -> Warp:
    """Rotation by up to 15 degrees, zoom by .7 to 1.3, perspective, each with its probability."""
    return Warp(rotate=15.0, rotate_p=rotate_p, zoom=(0.7, 1.3), zoom_p=zoom_p, perspective_p=perspective_p)


def make_effect(name: str, size: int, p: float) -> A.BasicTransform:
    """Build one of the other effects; lengths grow with the view, so that it looks alike at every size."""
    makers = {
        "flip": lambda: Flip(p=p),
        "brightness_contrast": lambda: BrightnessContrast(limit=0.3, p=p),
        "saturation": lambda: Saturation(limit=0.2, p=p),
        "hue": lambda: Hue(limit=15.0, p=p),
        "rain": lambda: Rain(**rain(size), p=p),
        "fog": lambda: Fog(fog_coef_range=(0.3, 1.0), alpha_coef=0.08, p=p),
        "shadow": lambda: Shadow(shadow_intensity_range=(0.3, 0.6), p=p),
        "flare": lambda: Flare(src_radius=max(20, size // 3), p=p),
        "noise": lambda: Noise(deviation=(5.0, 10.0), p=p),
        "low_light": lambda: LowLight(p=p),
        "lamp_glare": lambda: Flare(**lamp(size), p=p),
        "sensor_noise": lambda: Noise(deviation=(3.0, 12.0), p=p),
        "motion_blur": lambda: MotionBlur(
            blur_limit=(5, 9), angle_range=(0, 0), direction_range=(0, 0), allow_shifted=False, p=p
        ),
        "gaussian_blur": lambda: GaussianBlur(blur_limit=(3, 5), sigma_limit=(0.1, 2.0), p=p),
    }
    return makers[name]()


def rain(size: int) -> dict[str, Any]:
    """Thin, faint streaks of a sixteenth of the view, at most a fifth from upright."""
    length = max(2, size // 16)
    return {
        "slant_range": (-min(20, length // 5), min(20, length // 5)),
        "drop_length": length,
        "drop_color": (110, 110, 110),
        "blur_value": 2,
        "brightness_coefficient": 0.8,
        "rain_type": "heavy",
    }


def lamp(size: int) -> dict[str, Any]:
    """A warm lamp ahead, an eighth of the view wide, with a few faint circles."""
    return {
        "flare_roi": (0.0, 0.35, 1.0, 0.6),
        "src_radius": max(6, size // 8),
        "src_color": (255, 238, 205),
        "num_flare_circles_range": (2, 4),
    }

"""Light and weather of the embedded scenes.

`conditions` turns daytime and weather tags into colours, visibility and brightness; `expose` applies night, lamps, rain,
snow and the camera's own traces to a painted picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from natix_roadwork.data.scene_camera import Camera
from natix_roadwork.data.scene_canvas import Color


@dataclass(frozen=True)
class Conditions:
    """Colours (painted values, before the exposure), visibility in metres, brightness per channel and switches."""

    sky_top: Color
    sky_bottom: Color
    haze: Color
    visibility: float
    clouds: float
    gain: tuple[float, float, float]
    sun: bool
    wet: bool
    snow: bool
    rain: bool
    dark: bool
    lit_share: float


def conditions(daytime: str, weather: tuple[str, ...], rng: np.random.Generator) -> Conditions:
    """Choose the light for a daytime (`Light`, `Dark`, `Twilight`) and weather tags."""
    rain, snow, fog = "Rainy" in weather, "Snowy" in weather, "Foggy" in weather
    sun = "Sunny" in weather and daytime == "Light"
    grey = rain or snow or fog or "Overcast" in weather
    clouds = 0.0 if weather == ("Sunny",) else (0.9 if grey else 0.55)
    clouds += float(rng.uniform(0.0, 0.12))
    if daytime == "Twilight":
        top, bottom = ((92, 104, 150), (250, 176, 124)) if not grey else ((110, 116, 142), (196, 176, 172))
        gain = (0.66, 0.58, 0.6)
    elif daytime == "Dark":
        top, bottom = (34, 42, 74), (92, 90, 108)
        gain = (0.3, 0.31, 0.38)
    elif grey:
        top, bottom = (168, 176, 186), (214, 217, 220)
        gain = (0.86, 0.88, 0.9)
    else:
        top, bottom = (84, 138, 206), (202, 220, 236)
        gain = (1.04, 1.0, 0.95) if sun else (0.94, 0.95, 0.97)
    visibility = float(rng.uniform(45, 80)) if fog else (190.0 if rain or snow else float(rng.uniform(420, 900)))
    factor = float(rng.uniform(0.86, 1.12))
    level = (
        gain[0] * factor * float(rng.uniform(0.97, 1.04)),
        gain[1] * factor,
        gain[2] * factor * float(rng.uniform(0.96, 1.04)),
    )
    lit = {"Dark": 0.4, "Twilight": 0.25}.get(daytime, 0.0)
    return Conditions(top, bottom, bottom, visibility, clouds, level, sun, rain, snow, rain, lit > 0, lit)


def expose(camera: Camera, sky: Conditions, rng: np.random.Generator) -> np.ndarray:
    """Turn the painted picture into a photo `(H, W, 3)` uint8: light, lamps, rain or snow, blur, vignette, noise."""
    height, width = camera.image.shape[:2]
    image = camera.image
    if sky.wet:
        _reflect(camera)
    gain = _gain_map(camera, sky, (width, height))
    photo = cv2.multiply(image, gain, dtype=cv2.CV_8U)
    if sky.dark:
        photo = _add_lights(photo, camera.emission)
    if sky.rain:
        photo = _rain(photo, rng)
    if sky.snow:
        photo = _flakes(photo, rng)
    photo = cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.5, 0.85)) * max(width, height) / 1600)
    return _grain(photo, (7.0 if sky.dark else 3.5) * float(rng.uniform(0.7, 1.3)), rng)


def _gain_map(camera: Camera, sky: Conditions, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    rows, columns = np.mgrid[0 : height // 16 + 1, 0 : width // 16 + 1].astype(np.float32) * 16
    away = ((columns - width / 2) / width) ** 2 + ((rows - height / 2) / height) ** 2
    field = (1 - 0.34 * away)[..., None] * np.array(sky.gain, np.float32)
    if sky.dark:
        spread_x, spread_y = 0.34 * width, 0.3 * height
        beam = np.exp(
            -(((columns - camera.center) / spread_x) ** 2) - ((rows - camera.horizon - 0.2 * height) / spread_y) ** 2
        )
        strength = 0.62 if sky.gain[0] < 0.45 else 0.16
        field += beam[..., None] * np.array((1.0, 0.93, 0.8), np.float32) * strength
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)


def _add_lights(photo: np.ndarray, emission: np.ndarray) -> np.ndarray:
    size = (photo.shape[1], photo.shape[0])
    small = cv2.resize(emission, (size[0] // 8, size[1] // 8), interpolation=cv2.INTER_AREA)
    bloom = cv2.GaussianBlur(small, (0, 0), size[0] / 500) * 0.8 + cv2.GaussianBlur(small, (0, 0), size[0] / 130) * 0.9
    bloom = cv2.resize(np.clip(bloom, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    return cv2.add(cv2.max(photo, cv2.resize(emission, size, interpolation=cv2.INTER_LINEAR)), bloom)


def _reflect(camera: Camera) -> None:
    start = round(camera.horizon) + 6
    depth = min(camera.height - start, start)
    if depth < 8:
        return
    mirror = cv2.resize(camera.image[start - depth : start][::-1], (camera.width // 4, depth // 6))
    mirror = cv2.GaussianBlur(mirror, (0, 0), 2.2)
    mirror = cv2.resize(mirror, (camera.width, depth), interpolation=cv2.INTER_LINEAR)
    region = camera.image[start : start + depth]
    region[:] = cv2.addWeighted(region, 0.74, mirror, 0.2, 0)


def _rain(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    length = height * 0.035
    slope = float(rng.uniform(-0.25, 0.25))
    for x, y, share in zip(
        rng.uniform(0, width, 420), rng.uniform(0, height, 420), rng.uniform(0.4, 1, 420), strict=True
    ):
        end = (round(x + slope * length * share), round(y + length * share))
        cv2.line(layer, (round(x), round(y)), end, int(40 + 60 * share), 1, cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.8)
    return cv2.add(photo, cv2.merge([layer // 2] * 3))


def _flakes(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for x, y, size in zip(
        rng.uniform(0, width, 500), rng.uniform(0, height, 500), rng.exponential(1.0, 500), strict=True
    ):
        radius = max(round((1 + size) * width / 1600), 1)
        cv2.circle(layer, (round(x), round(y)), radius, int(120 + 60 / (1 + size)), -1, cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), 1.2)
    return cv2.add(photo, cv2.merge([layer] * 3))


def _grain(photo: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add sensor noise from a tile that is shifted at random: cheap and not visibly repeated."""
    height, width = photo.shape[:2]
    tile = rng.normal(0, strength, (256, 256)).astype(np.float32)
    tile = cv2.GaussianBlur(tile, (0, 0), 0.6) * 1.6
    noise = cv2.merge([np.clip(np.round(tile), -127, 127).astype(np.int8)] * 3)
    noise = np.tile(noise, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
    return cv2.add(photo, noise, dtype=cv2.CV_8U)

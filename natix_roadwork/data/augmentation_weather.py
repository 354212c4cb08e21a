"""Fog, rain, shadows and sun flare on views, many times faster than albumentations' own.

Each class draws its parameters as the albumentations class it is derived from, or says what differs, and replaces only
how they are put on a picture. In and out: `uint8` `(H, W, 3)`.
"""

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.augmentation_transforms import InPlace
from natix_roadwork.data.quiet_albumentations import A


Picture = NDArray[np.uint8]
SHRINK = 0.9
NUM_REGIONS = 10
SUN_DISCS = 40  # as many as the base class takes for the sun of its default radius
SOFT = 4  # masks of shadow and flare are drawn at a quarter of the size, which also softens their edges


class Fog(InPlace, A.RandomFog):
    """Fog of discs, as `A.RandomFog` draws them, put on the picture by counting the discs over each pixel.

    albumentations blends the whole picture once for each of about a thousand discs. A pixel under n discs has gone
    through the same blend n times, so a table of n and grey level gives the same result.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw intensity, centres and radii; the same distribution as the base class, all discs at once."""
        intensity = self.py_random.uniform(*self.fog_coef_range)
        height, width = params["shape"][:2]
        centres = _fog_centres(height, width, intensity, self.random_generator)
        largest = max(2, int(min(height, width) * 0.1 * intensity))
        radii = self.random_generator.integers(max(1, largest // 2), largest, size=len(centres))
        counts = count_discs(height, width, centres, radii)
        table = blend_table(self.alpha_coef * intensity, int(counts.max()))
        return {"places": self.places(counts), "table": table}

    def places(self, counts: NDArray[np.int32]) -> NDArray[np.int16]:
        """Make the places in the table, (level, discs) for each value of a picture, with the levels still to be filled."""
        places = self.scratch("places", (*counts.shape, 3, 2), np.int16)
        places[..., 1] = counts[..., None]
        return places

    def change(self, img: Picture, out: Picture, places: NDArray[np.int16], table: Picture, **params: Any) -> None:
        """Look each pixel's new level up, by its level and the discs over it, and blur a little."""
        height, width = img.shape[:2]
        places[..., 0] = img
        rows = (height, 3 * width)
        cv2.remap(table, places.reshape(*rows, 2), None, cv2.INTER_NEAREST, dst=out.reshape(rows))
        size = max(3, min(height, width) // 30) | 1
        cv2.GaussianBlur(out, (size, size), 0, dst=out)


def _fog_centres(height: int, width: int, intensity: float, draw: np.random.Generator) -> NDArray[np.int64]:
    """Centres `(N, 2)` (x, y): ten regions around the middle, each nine tenths of the one before."""
    region = max(1, int(width // 3 * intensity))
    middle = np.array([int(width / 2 - 0.5), int(height / 2 - 0.5)])
    centres = []
    for _ in range(NUM_REGIONS):
        if width <= region or height <= region:
            break
        number = int(width * height / (region * region) * intensity * 10)
        half = np.array([width // 2, height // 2])
        centres.append(draw.integers(middle - half, middle + half + 1, size=(number, 2)))
        width, height = int(width * SHRINK), int(height * SHRINK)
    return np.concatenate(centres) if centres else np.empty((0, 2), dtype=np.int64)


def count_discs(height: int, width: int, centres: NDArray[np.int64], radii: NDArray[np.int64]) -> NDArray[np.int32]:
    """Count the filled discs over each pixel.

    Args:
        height: Of the picture.
        width: Of the picture.
        centres: `(N, 2)` x and y in pixels.
        radii: `(N,)` in pixels.

    Returns:
        `(height, width)`; a disc covers exactly the pixels that `cv2.circle` fills.
    """
    # Each row of a disc adds 1 where it begins and takes 1 away after its end; a running sum does the rest. Margins take
    # up what lies outside.
    x, y = centres.T
    near = (x >= -radii) & (x < width + radii) & (y >= -radii) & (y < height + radii)
    x, y, radii = x[near], y[near], radii[near]
    if not len(radii):
        return np.zeros((height, width), dtype=np.int32)
    left, top = int(max(0, (radii - x).max())), int(max(0, (radii - y).max()))
    across = left + int(max(width, (x + radii).max() + 1)) + 1
    down = top + int(max(height, (y + radii).max() + 1))
    middles = (y + top) * across + x + left
    starts, ends = [], []
    for radius in np.unique(radii):
        spans = _disc_rows(int(radius))
        rows = middles[radii == radius, None] + across * np.arange(-radius, radius + 1)
        starts.append((rows - spans).ravel())
        ends.append((rows + spans + 1).ravel())
    steps = np.bincount(np.concatenate(starts), minlength=down * across)
    steps -= np.bincount(np.concatenate(ends), minlength=down * across)
    counts = steps.reshape(down, across)[top : top + height, : left + width].cumsum(axis=1, dtype=np.int32)
    return counts[:, left:]


@lru_cache(maxsize=256)
def _disc_rows(radius: int) -> NDArray[np.int64]:
    """Half width of each of the 2r + 1 rows of the disc that `cv2.circle` fills."""
    side = 2 * radius + 1
    disc = cv2.circle(np.zeros((side, side), np.uint8), (radius, radius), radius, 1, -1)
    return (disc.sum(axis=1, dtype=np.int64) - 1) // 2


def blend_table(alpha: float, most: int) -> Picture:
    """Table `(most + 1, 256)`: the level that comes of a level after n blends with white, rounded each time."""
    table = np.empty((most + 1, 256), dtype=np.uint8)
    table[0] = np.arange(256)
    white = np.full(256, 255, np.uint8)
    for n in range(most):
        table[n + 1] = cv2.addWeighted(white, alpha, table[n], 1 - alpha, 0).ravel()
    return table


class Rain(InPlace, A.RandomRain):
    """Streaks as `A.RandomRain` draws them, on one grey layer in place of three."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the streaks and the layer that they make, once for all pictures."""
        found = super().get_params_dependent_on_data(params, data)
        starts = found["rain_drops"]
        layer = np.zeros(params["shape"][:2], dtype=np.uint8)
        lines = np.stack((starts, starts + np.array([[found["slant"], found["drop_length"]]])), axis=1)
        cv2.polylines(layer, list(lines.astype(np.int32)), False, self.drop_color[0], self.drop_width, cv2.LINE_4)
        if self.blur_value > 1:
            layer = cv2.blur(layer, (self.blur_value, self.blur_value))
        return {"layer": cv2.merge([layer] * 3)}

    def change(self, img: Picture, out: Picture, layer: Picture, **params: Any) -> None:
        """Add the streaks and darken the picture."""
        cv2.addWeighted(img, self.brightness_coefficient, layer, self.brightness_coefficient, 0, dst=out)


class Shadow(InPlace, A.RandomShadow):
    """Shadows with soft edges: the convex hulls of the polygons of `A.RandomShadow`, which cross themselves."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the shadows and how much light each pixel keeps."""
        found = super().get_params_dependent_on_data(params, data)
        height, width = params["shape"][:2]
        light = np.full(_quarter(height, width), 255, dtype=np.float32)
        for vertices, intensity in zip(found["vertices_list"], found["intensities"], strict=True):
            hull = cv2.convexHull(vertices.astype(np.int32)) // SOFT
            shade = cv2.blur(cv2.fillPoly(np.zeros(light.shape, np.uint8), [hull], 255, cv2.LINE_AA), (3, 3))
            light *= 1 - intensity / 255 * shade
        return {"light": _enlarge(light, height, width)}

    def change(self, img: Picture, out: Picture, light: Picture, **params: Any) -> None:
        """Darken."""
        cv2.multiply(img, light, dst=out, scale=1 / 255)


class Flare(InPlace, A.RandomSunFlare):
    """The circles and the sun of `A.RandomSunFlare` (overlay), composed before they meet the picture.

    Every layer is `(1 - a) picture + a colour`, so all together are `keep * picture + light`; both are made once, at a
    quarter of the size. Unlike there a circle does not fade the circles before it, and the sun is made of the same number
    of discs at every size, so that its middle is always bright.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the circles and compose them."""
        found = super().get_params_dependent_on_data(params, data)
        height, width = params["shape"][:2]
        keep = np.ones(_quarter(height, width), dtype=np.float32)
        light = np.zeros((*keep.shape, 3), dtype=np.float32)
        for alpha, (x, y), radius, colour in found["circles"]:
            disc = cv2.circle(np.zeros(keep.shape, np.uint8), (x // SOFT, y // SOFT), radius // SOFT, 1, -1) == 1
            keep[disc] *= 1 - alpha
            light[disc] = (1 - alpha) * light[disc] + alpha * np.array(colour, np.float32)
        brightness = sum(alpha * radius for alpha, _, radius, _ in found["circles"])
        strongest = min(1.0, 5 * brightness / sum(radius for _, _, radius, _ in found["circles"]))
        sun = _sun(keep.shape, found["flare_center"], self.src_radius, strongest)
        light = sun[..., None] * light + (1 - sun[..., None]) * np.array(self.src_color, np.float32)
        return {"keep": _enlarge(keep * sun * 255, height, width), "light": _enlarge(light, height, width)}

    def change(self, img: Picture, out: Picture, keep: Picture, light: Picture, **params: Any) -> None:
        """Dim what lies behind the flare and add its light."""
        cv2.multiply(img, keep, dst=out, scale=1 / 255)
        cv2.add(out, light, dst=out)


def _sun(shape: tuple[int, int], centre: tuple[int, int], radius: int, strongest: float) -> NDArray[np.float32]:
    """Share of the picture that nested discs leave visible; the smaller a disc the more it covers."""
    radii = np.linspace(1, radius, SUN_DISCS)
    visible = 1 - np.linspace(strongest, 0.0, SUN_DISCS) ** 3
    through = np.cumprod(visible[::-1])[::-1]  # a pixel lies in its disc and in all larger ones
    y, x = np.ogrid[: shape[0], : shape[1]]
    distance = SOFT * np.hypot(y - centre[1] / SOFT, x - centre[0] / SOFT)
    return np.interp(distance, radii, through, right=1.0).astype(np.float32)


def _quarter(height: int, width: int) -> tuple[int, int]:
    return math.ceil(height / SOFT), math.ceil(width / SOFT)


def _enlarge(mask: NDArray, height: int, width: int) -> Picture:
    """Bring a small mask to the picture's size, in three channels."""
    large = cv2.resize(np.round(mask).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return large if large.ndim == 3 else cv2.merge([large] * 3)

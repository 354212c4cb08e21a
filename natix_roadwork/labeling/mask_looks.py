"""How marked objects look: share of the colours their class usually has, shape, size, place in the photo.

Heuristics for a report, never a decision: a prompt decides what an object is, and a white van in the night may well be a
work vehicle. In comes one object with its photo, or all objects of a class; out go measures, rules that are broken, and
how far an object lies from the others of its class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.labeling.mask_provider import FoundObject
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


# Bounds of hue (OpenCV's 0 to 179, two degrees each), saturation and value (0 to 255), low and high. Read off daylight
# photos of work zones by eye, wide enough for shade and haze, and not fitted to anything.
COLOURS = {
    "orange": ((3, 100, 80), (20, 255, 255)),
    "red": ((170, 100, 60), (179, 255, 255)),
    "yellow": ((18, 90, 90), (33, 255, 255)),
    "lime": ((28, 60, 110), (48, 255, 255)),
    "white": ((0, 0, 150), (179, 50, 255)),
}
MOST_PIXELS = 250_000  # of an object that are looked at for colour
SMALLEST_AREA = 100  # pixels
FEW_OBJECTS = 10  # of a class, for its median and spread to mean something
SPREAD = 1.4826  # standard deviation over median absolute deviation, of a normal distribution
MEASURES = {
    "colour": "share of its pixels in the class's colours",
    "aspect": "width over height",
    "area": "share of the photo's pixels",
    "bottom": "lower edge, 0 at the photo's top and 1 at its bottom",
}
RULES = {
    "colour": "few pixels of a usual colour",
    "aspect": "width over height out of range",
    "area": f"too large a share of the photo, or under {SMALLEST_AREA} pixels",
    "place": "lower edge too high, as in the sky",
}


@dataclass(frozen=True)
class Usual:
    """What objects of a class usually look like.

    Attributes:
        colours: Names in `COLOURS`.
        colour: Smallest share of the pixels in these colours.
        aspect: Smallest and largest width over height; an object cut by the photo's edge is not held to it.
        area: Largest share of the photo.
        bottom: Highest place of the lower edge; 0 for what hangs.
    """

    colours: tuple[str, ...]
    colour: float
    aspect: tuple[float, float]
    area: float
    bottom: float


STRIPES = ("orange", "red", "white")
USUAL = {
    "cone": Usual(STRIPES, 0.25, (0.2, 1.6), 0.15, 0.35),
    "barrier": Usual(STRIPES, 0.2, (0.2, 15.0), 0.5, 0.35),
    "sign": Usual((*STRIPES, "yellow"), 0.2, (0.3, 4.0), 0.3, 0.0),
    "worker": Usual(("lime", "orange", "yellow"), 0.05, (0.15, 1.5), 0.3, 0.35),
    "vehicle": Usual(("orange", "yellow", "white"), 0.1, (0.3, 6.0), 0.7, 0.3),
    "equipment": Usual(("orange", "yellow"), 0.1, (0.15, 6.0), 0.7, 0.3),
}


@dataclass(frozen=True)
class Look:
    """One object as it is measured.

    Attributes:
        kind: Its class.
        box: (left, top, right, bottom) in pixels of the photo.
        prompt: What found it; empty where nothing was asked.
        score: In [0, 1].
        pixels: Its area.
        measures: Value of each of `MEASURES`.
        at_edge: Whether it touches the photo's edge.
        broken: The rules of `RULES` that it breaks.
    """

    kind: str
    box: tuple[int, int, int, int]
    prompt: str
    score: float
    pixels: int
    measures: dict[str, float]
    at_edge: bool
    broken: tuple[str, ...]


@dataclass(frozen=True)
class ClassLooks:
    """How the objects of a class look.

    Attributes:
        kind: The class.
        objects: Objects measured.
        at_edge: Objects that touch the photo's edge.
        quantiles: The 5, 25, 50, 75 and 95 % quantiles of each measure.
        broken: Objects that break each rule.
    """

    kind: str
    objects: int
    at_edge: int
    quantiles: dict[str, list[float]]
    broken: dict[str, int]


def measure(found: FoundObject, photo: NDArray[np.uint8]) -> Look:
    """Measure an object in its photo `(H, W, 3)` RGB."""
    height, width = photo.shape[:2]
    left, top, right, bottom = found.box
    measures = {
        "colour": colour_share(photo[top:bottom, left:right], found.mask, USUAL[found.kind].colours),
        "aspect": (right - left) / (bottom - top),
        "area": found.area / (width * height),
        "bottom": bottom / height,
    }
    at_edge = left == 0 or top == 0 or right == width or bottom == height
    return Look(
        kind=found.kind,
        box=found.box,
        prompt=found.prompt,
        score=found.score,
        pixels=found.area,
        measures=measures,
        at_edge=at_edge,
        broken=_broken(found.kind, measures, found.area, at_edge),
    )


def colour_share(crop: NDArray[np.uint8], inside: NDArray[np.bool_], colours: Sequence[str]) -> float:
    """Compute which share of the pixels `inside` `(h, w)` of an RGB crop `(h, w, 3)` has one of the colours."""
    step = int(np.ceil(np.sqrt(max(1.0, inside.size / MOST_PIXELS))))
    chosen = inside[::step, ::step]
    if not chosen.any():  # thinner than the step
        step, chosen = 1, inside
    shades = cv2.cvtColor(np.ascontiguousarray(crop[::step, ::step]), cv2.COLOR_RGB2HSV)
    usual = np.zeros(chosen.shape, bool)
    for name in colours:
        usual |= cv2.inRange(shades, *COLOURS[name]) > 0
    return float(usual[chosen].mean())


def class_looks(looks: Sequence[Look]) -> list[ClassLooks]:
    """Sum up the objects of each class that has any."""
    found = []
    for kind in MASK_CLASSES:
        own = [look for look in looks if look.kind == kind]
        if not own:
            continue
        quantiles = {
            name: np.quantile([look.measures[name] for look in own], [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
            for name in MEASURES
        }
        broken = {rule: sum(rule in look.broken for look in own) for rule in RULES}
        found.append(ClassLooks(kind, len(own), sum(look.at_edge for look in own), quantiles, broken))
    return found


def deviations(looks: Sequence[Look]) -> NDArray[np.float64]:
    """Compute how far each object lies from its class; `(N,)`.

    It is the largest distance from the class's median over the measures, in robust standard deviations; aspect and area
    count by their logarithm. 0 in classes of fewer than `FEW_OBJECTS`.
    """
    far = np.zeros(len(looks))
    for kind in MASK_CLASSES:
        own = [number for number, look in enumerate(looks) if look.kind == kind]
        if len(own) < FEW_OBJECTS:
            continue
        values = np.array([list(looks[number].measures.values()) for number in own])
        values[:, 1:3] = np.log(values[:, 1:3])
        distance = np.abs(values - np.median(values, axis=0))
        spread = SPREAD * np.median(distance, axis=0)
        far[own] = (distance / np.maximum(spread, 0.01)).max(axis=1)
    return far


def _broken(kind: str, measures: dict[str, float], pixels: int, at_edge: bool) -> tuple[str, ...]:
    usual = USUAL[kind]
    low, high = usual.aspect
    breaks = {
        "colour": measures["colour"] < usual.colour,
        "aspect": not at_edge and not low <= measures["aspect"] <= high,
        "area": measures["area"] > usual.area or pixels < SMALLEST_AREA,
        "place": measures["bottom"] < usual.bottom,
    }
    return tuple(rule for rule, broken in breaks.items() if broken)

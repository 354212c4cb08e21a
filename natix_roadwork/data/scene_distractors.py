"""Draws ordinary street objects that are not roadwork: cars, bins, signs, people, posts, awning umbrellas.

Some are orange or reflective on purpose, so that colour alone does not give the label away. In and out as in
`data/scene_objects.py`.
"""

import numpy as np

from natix_roadwork.data.scene_canvas import Canvas, Color, Light
from natix_roadwork.data.scene_machines import GLASS, RUBBER, darker, wheel
from natix_roadwork.data.scene_objects import ORANGE, STEEL, WHITE, trim


PAINTS: tuple[Color, ...] = (
    (196, 198, 200),
    (232, 232, 230),
    (36, 38, 42),
    (92, 96, 102),
    (138, 26, 28),
    (30, 58, 110),
    (52, 84, 62),
    (168, 150, 118),
    (226, 100, 26),
    (240, 176, 26),
)
CLOTHES: tuple[Color, ...] = (
    (54, 58, 70),
    (120, 34, 40),
    (60, 84, 120),
    (206, 200, 186),
    (224, 108, 36),
    (80, 96, 70),
)


def draw_distractor(
    kind: str, size_px: int, rng: np.random.Generator, light: Light | None = None, orange: bool | None = None
) -> np.ndarray:
    """Draw one ordinary object as straight RGBA `(height, width, 4)` uint8, trimmed to its outline.

    Args:
        kind: one of `DISTRACTOR_KINDS`.
        size_px: height in pixels, 8 or more.
        rng: decides colours and details.
        light: how it is lit; default plain daylight.
        orange: force an orange paint or forbid it; default lets `rng` decide.

    Raises:
        ValueError: if `kind` is unknown or `size_px` is below 8.
    """
    if kind not in DISTRACTORS:
        raise ValueError(f"kind {kind!r} is not one of {DISTRACTOR_KINDS}")
    if size_px < 8:
        raise ValueError(f"size_px must be at least 8, got {size_px}")
    paint = PAINTS[int(rng.integers(len(PAINTS) if orange is None else len(PAINTS) - 2))]
    if orange:
        paint = ORANGE[int(rng.integers(len(ORANGE)))]
    return trim(DISTRACTORS[kind](size_px, rng, light or Light(), paint))


def _car_rear(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 1.22, light)
    tall = float(rng.uniform(0.0, 0.1))
    for x in (0.1, 0.92):
        canvas.rounded(x, 0.74, x + 0.2, 1.0, 0.05, RUBBER)
    canvas.polygon([(0.24, 0.06 - tall / 2), (0.98, 0.06 - tall / 2), (1.12, 0.44), (0.1, 0.44)], paint)
    canvas.polygon([(0.29, 0.1 - tall / 2), (0.93, 0.1 - tall / 2), (1.03, 0.4), (0.19, 0.4)], GLASS)
    canvas.polygon([(0.29, 0.1 - tall / 2), (0.6, 0.1 - tall / 2), (0.4, 0.4), (0.19, 0.4)], (104, 126, 140))
    canvas.rounded(0.02, 0.38, 1.2, 0.88, 0.1, paint)
    canvas.rounded(0.04, 0.72, 1.18, 0.9, 0.06, darker(paint, 0.62))
    for x in (0.05, 0.93):
        canvas.rounded(x, 0.46, x + 0.24, 0.6, 0.03, (164, 20, 24))
        canvas.rounded(x + 0.09, 0.49, x + 0.15, 0.57, 0.02, (232, 190, 180))
    canvas.rectangle(0.44, 0.56, 0.78, 0.68, (226, 226, 220))
    canvas.rectangle(0.47, 0.6, 0.75, 0.64, (60, 66, 90))
    return canvas.finish(rng, 0.04)


def _car_front(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 1.22, light)
    for x in (0.1, 0.92):
        canvas.rounded(x, 0.76, x + 0.2, 1.0, 0.05, RUBBER)
    canvas.polygon([(0.26, 0.03), (0.96, 0.03), (1.12, 0.44), (0.1, 0.44)], paint)
    canvas.polygon([(0.3, 0.08), (0.92, 0.08), (1.04, 0.4), (0.18, 0.4)], GLASS)
    canvas.polygon([(0.66, 0.08), (0.92, 0.08), (1.04, 0.4), (0.86, 0.4)], (108, 128, 142))
    canvas.rounded(0.02, 0.4, 1.2, 0.9, 0.12, paint)
    canvas.polygon([(0.1, 0.42), (1.12, 0.42), (1.16, 0.52), (0.06, 0.52)], tuple(min(c + 26, 255) for c in paint))
    canvas.rounded(0.34, 0.56, 0.88, 0.7, 0.03, (26, 26, 28))
    canvas.rounded(0.1, 0.76, 1.12, 0.9, 0.04, darker(paint, 0.55))
    for x in (0.06, 0.94):
        canvas.rounded(x, 0.54, x + 0.22, 0.66, 0.04, (246, 244, 228))
    canvas.rectangle(0.46, 0.74, 0.76, 0.83, (226, 226, 220))
    return canvas.finish(rng, 0.04)


def _car_side(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 2.9, light)
    canvas.polygon([(0.62, 0.42), (0.92, 0.06), (1.72, 0.04), (2.18, 0.4)], paint)
    canvas.polygon([(0.74, 0.4), (0.97, 0.12), (1.32, 0.11), (1.32, 0.4)], GLASS)
    canvas.polygon([(1.38, 0.4), (1.38, 0.11), (1.68, 0.1), (2.02, 0.4)], GLASS)
    body = [(0.06, 0.5), (0.5, 0.4), (2.2, 0.38), (2.72, 0.48), (2.84, 0.6), (2.84, 0.84), (0.04, 0.84)]
    canvas.polygon(body, paint)
    canvas.polygon([(0.04, 0.72), (2.84, 0.7), (2.84, 0.86), (0.04, 0.86)], darker(paint, 0.66))
    canvas.line([(1.35, 0.42), (1.35, 0.8)], 0.012, darker(paint, 0.55))
    canvas.rectangle(1.44, 0.5, 1.56, 0.53, darker(paint, 0.5))
    canvas.rounded(0.05, 0.52, 0.2, 0.62, 0.02, (170, 24, 26))
    canvas.rounded(2.64, 0.54, 2.82, 0.63, 0.02, (240, 236, 214))
    for x in (0.6, 2.28):
        wheel(canvas, x, 0.8, 0.2)
    picture = canvas.finish(rng, 0.04)
    return picture[:, ::-1] if rng.random() < 0.5 else picture


def _van_rear(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 0.86, light)
    for x in (0.06, 0.66):
        canvas.rounded(x, 0.84, x + 0.14, 1.0, 0.04, RUBBER)
    canvas.rounded(0.02, 0.0, 0.84, 0.92, 0.06, paint)
    for x in (0.09, 0.45):
        canvas.rounded(x, 0.12, x + 0.32, 0.4, 0.02, GLASS)
    canvas.line([(0.43, 0.04), (0.43, 0.86)], 0.012, darker(paint, 0.55))
    for x in (0.03, 0.76):
        canvas.rectangle(x, 0.48, x + 0.07, 0.68, (166, 22, 24))
    canvas.rectangle(0.3, 0.72, 0.56, 0.79, (226, 226, 220))
    canvas.rectangle(0.02, 0.86, 0.84, 0.93, darker(paint, 0.5))
    return canvas.finish(rng, 0.05)


def _bin(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 0.68, light)
    canvas.polygon([(0.06, 0.14), (0.62, 0.14), (0.56, 0.94), (0.12, 0.94)], paint, 0.3)
    canvas.rounded(0.01, 0.02, 0.67, 0.16, 0.05, darker(paint, 0.8))
    canvas.rectangle(0.22, 0.4, 0.46, 0.58, darker(paint, 0.85))
    for x in (0.17, 0.52):
        canvas.ellipse(x, 0.94, 0.06, 0.06, RUBBER)
    return canvas.finish(rng, 0.07)


def _pedestrian(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 0.5, light)
    coat = CLOTHES[int(rng.integers(len(CLOTHES)))] if paint not in ORANGE else paint
    trousers = ((40, 46, 66), (36, 36, 38), (110, 100, 86))[int(rng.integers(3))]
    skin = ((224, 178, 148), (150, 100, 70), (196, 144, 110))[int(rng.integers(3))]
    stride, x = float(rng.uniform(0.02, 0.1)), 0.25
    for foot in (-stride, stride):
        canvas.line([(x + 0.2 * foot, 0.5), (x + foot * 0.7, 0.74), (x + foot, 0.96)], 0.08, trousers)
        canvas.ellipse(x + foot + 0.015, 0.975, 0.055, 0.022, (40, 32, 28))
    canvas.line([(x - 0.1, 0.23), (x - 0.15, 0.38), (x - 0.12, 0.52)], 0.058, darker(coat, 0.85))
    canvas.line([(x + 0.1, 0.23), (x + 0.15, 0.38), (x + 0.14, 0.51)], 0.058, darker(coat, 0.85))
    canvas.polygon([(x - 0.1, 0.19), (x + 0.1, 0.19), (x + 0.11, 0.56), (x - 0.11, 0.56)], coat, 0.35)
    canvas.rectangle(x - 0.028, 0.15, x + 0.028, 0.2, skin)
    canvas.ellipse(x, 0.1, 0.06, 0.078, skin, 0.3)
    canvas.ellipse(x, 0.065, 0.066, 0.055, ((44, 34, 26), (120, 84, 46), (180, 176, 170))[int(rng.integers(3))])
    return canvas.finish(rng)


def _street_sign(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 0.5, light)
    canvas.rectangle(0.235, 0.3, 0.265, 1.0, STEEL, 0.4)
    design = 3 if paint in ORANGE else int(rng.integers(5))
    if design == 0:
        corners = [
            (0.25 + 0.24 * float(np.cos(a)), 0.25 + 0.24 * float(np.sin(a)))
            for a in np.pi / 8 + np.arange(8) * np.pi / 4
        ]
        canvas.polygon(corners, (196, 22, 28))
        canvas.text(["STOP"], 0.25, 0.25, 0.15, WHITE)
    elif design == 1:
        canvas.rounded(0.06, 0.02, 0.44, 0.5, 0.03, (24, 24, 24))
        canvas.rounded(0.072, 0.032, 0.428, 0.488, 0.025, WHITE)
        canvas.text(["SPEED", "LIMIT"], 0.25, 0.14, 0.1, (24, 24, 24))
        canvas.text([str(int(rng.choice([25, 30, 35, 45])))], 0.25, 0.36, 0.22, (24, 24, 24))
    elif design == 2:
        canvas.rounded(0.05, 0.05, 0.45, 0.45, 0.03, (26, 82, 168))
        canvas.text(["P"], 0.25, 0.25, 0.34, WHITE)
    elif design == 3:
        canvas.polygon([(0.25, 0.0), (0.5, 0.25), (0.25, 0.5), (0.0, 0.25)], (250, 196, 20))
        canvas.line([(0.25, 0.4), (0.25, 0.14)], 0.04, (24, 24, 24))
        canvas.polygon([(0.25, 0.08), (0.33, 0.2), (0.17, 0.2)], (24, 24, 24))
    else:
        canvas.ellipse(0.25, 0.25, 0.24, 0.24, (200, 24, 30))
        canvas.ellipse(0.25, 0.25, 0.175, 0.175, WHITE)
        canvas.text([str(int(rng.choice([30, 50, 60])))], 0.25, 0.25, 0.2, (24, 24, 24))
    return canvas.finish(rng)


def _post_box(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 0.5, light)
    for x in (0.08, 0.38):
        canvas.rectangle(x, 0.8, x + 0.04, 1.0, (50, 50, 52))
    canvas.rounded(0.03, 0.05, 0.47, 0.86, 0.12, paint)
    canvas.rectangle(0.03, 0.4, 0.47, 0.86, darker(paint, 0.9))
    canvas.rounded(0.1, 0.2, 0.4, 0.27, 0.02, (30, 30, 32))
    canvas.rectangle(0.14, 0.5, 0.36, 0.62, (226, 226, 222))
    return canvas.finish(rng, 0.06)


def _hydrant(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 0.6, light)
    color = paint if paint in ORANGE else ((190, 30, 30), (236, 190, 30))[int(rng.integers(2))]
    canvas.rectangle(0.18, 0.25, 0.42, 0.95, color, 0.5)
    canvas.ellipse(0.3, 0.24, 0.15, 0.13, color, 0.4)
    canvas.rectangle(0.1, 0.9, 0.5, 1.0, darker(color, 0.8), 0.3)
    canvas.rectangle(0.12, 0.28, 0.48, 0.34, darker(color, 0.85), 0.4)
    for x in (0.1, 0.5):
        canvas.ellipse(x, 0.48, 0.07, 0.08, darker(color, 0.8))
    canvas.rectangle(0.27, 0.04, 0.33, 0.14, darker(color, 0.8))
    return canvas.finish(rng, 0.06)


def _parasol(size_px: int, rng: np.random.Generator, light: Light, paint: Color) -> np.ndarray:
    canvas = Canvas(size_px, 1.1, light)
    canvas.rectangle(0.535, 0.2, 0.565, 0.98, (200, 200, 196), 0.3)
    canvas.rectangle(0.4, 0.96, 0.7, 1.0, (70, 70, 70))
    second = WHITE if rng.random() < 0.5 else darker(paint, 0.8)
    edges = np.linspace(0.0, 1.1, 7)
    for index in range(6):
        left, right = float(edges[index]), float(edges[index + 1])
        canvas.polygon(
            [(0.55, 0.02), (right, 0.3), (right - 0.02, 0.36), (left + 0.02, 0.36), (left, 0.3)],
            paint if index % 2 else second,
        )
    return canvas.finish(rng)


DISTRACTORS = {
    "car_rear": _car_rear,
    "car_front": _car_front,
    "car_side": _car_side,
    "van_rear": _van_rear,
    "bin": _bin,
    "pedestrian": _pedestrian,
    "street_sign": _street_sign,
    "post_box": _post_box,
    "hydrant": _hydrant,
    "parasol": _parasol,
}
DISTRACTOR_KINDS = tuple(DISTRACTORS)

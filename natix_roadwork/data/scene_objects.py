"""Draws the six kinds of roadwork evidence: cone, barrier, sign, worker, vehicle, equipment.

In: a kind, a height in pixels, a generator and the light. Out: an RGBA picture of the object standing on its lower edge.
Large machines are drawn in `data/scene_machines.py`. Next: `data/scenes.py` places them in a street.
"""

from collections.abc import Callable

import numpy as np

from natix_roadwork.data.scene_canvas import Canvas, Color, Light
from natix_roadwork.data.scene_machines import EQUIPMENT, VEHICLES
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


OBJECT_KINDS = MASK_CLASSES
ORANGE: tuple[Color, ...] = ((255, 96, 16), (250, 112, 28), (240, 84, 20), (255, 120, 40))
WHITE: Color = (238, 238, 234)
STEEL: Color = (120, 122, 124)
SIGN_TEXTS = (
    ["ROAD", "WORK", "AHEAD"],
    ["LANE", "CLOSED"],
    ["DETOUR"],
    ["UTILITY", "WORK", "AHEAD"],
    ["ONE LANE", "ROAD"],
    ["SHOULDER", "WORK"],
)
Draw = Callable[[int, np.random.Generator, Light], np.ndarray]


def draw_object(
    kind: str, size_px: int, rng: np.random.Generator, light: Light | None = None, variant: int | None = None
) -> np.ndarray:
    """Draw one object and return it as straight RGBA `(height, width, 4)` uint8, trimmed to its own outline.

    Args:
        kind: one of `OBJECT_KINDS`.
        size_px: height of the object in pixels (a vehicle or a long barrier is wider than high), 8 or more.
        rng: decides variant, colour, pose and wear.
        light: how it is lit; default plain daylight.
        variant: index into the kind's designs; default drawn from `rng`.

    Raises:
        ValueError: if `kind` is unknown or `size_px` is below 8.
    """
    if kind not in OBJECT_KINDS:
        raise ValueError(f"kind {kind!r} is not one of {OBJECT_KINDS}")
    if size_px < 8:
        raise ValueError(f"size_px must be at least 8, got {size_px}")
    designs = DESIGNS[kind]
    chosen = int(rng.choice(len(designs), p=DESIGN_SHARES[kind])) if variant is None else variant % len(designs)
    return trim(designs[chosen](size_px, rng, light or Light()))


def trim(picture: np.ndarray) -> np.ndarray:
    """Cut fully transparent borders off an RGBA picture `(H, W, 4)`."""
    rows, columns = np.nonzero(picture[..., 3].max(1))[0], np.nonzero(picture[..., 3].max(0))[0]
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _orange(rng: np.random.Generator) -> Color:
    return ORANGE[int(rng.integers(len(ORANGE)))]


def _traffic_cone(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 0.78, light), _orange(rng)
    dark = bool(rng.random() < 0.5)
    canvas.polygon([(0.02, 0.985), (0.09, 0.9), (0.69, 0.9), (0.76, 0.985)], (38, 38, 40) if dark else color)
    canvas.rectangle(0.02, 0.97, 0.76, 1.0, (28, 28, 30) if dark else (190, 66, 14))

    def half_width(y: float) -> float:
        return 0.045 + 0.2 * (y - 0.02) / 0.9

    canvas.polygon(
        [(0.345, 0.02), (0.435, 0.02), (0.39 + half_width(0.93), 0.93), (0.39 - half_width(0.93), 0.93)], color, 0.45
    )
    canvas.ellipse(0.39, 0.93, half_width(0.93), 0.025, tuple(int(0.8 * c) for c in color), 0.4)
    for top, bottom in ((0.26, 0.44), (0.55, 0.68)):
        upper, lower = half_width(top), half_width(bottom)
        curve = [(0.39 + lower * t, bottom + 0.025 * (1 - t * t)) for t in (1.0, 0.5, 0.0, -0.5, -1.0)]
        rim = [(0.39 + upper * t, top + 0.02 * (1 - t * t)) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        canvas.polygon(rim + curve, WHITE, 0.3)
    canvas.ellipse(0.39, 0.025, 0.045, 0.014, (90, 34, 10))
    return canvas.finish(rng, 0.06)


def _tubular_marker(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 0.42, light), _orange(rng)
    canvas.ellipse(0.21, 0.965, 0.19, 0.035, (35, 35, 37))
    canvas.rectangle(0.13, 0.02, 0.29, 0.95, color, 0.5)
    for top in (0.1, 0.3):
        canvas.rectangle(0.127, top, 0.293, top + 0.11, WHITE, 0.35)
    return canvas.finish(rng)


def _drum(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 0.66, light), _orange(rng)
    canvas.ellipse(0.33, 0.95, 0.32, 0.05, (30, 30, 32))
    canvas.polygon([(0.1, 0.05), (0.56, 0.05), (0.6, 0.94), (0.06, 0.94)], color, 0.5)
    for index, top in enumerate((0.17, 0.36, 0.55, 0.74)):
        slack = 0.002 + 0.01 * index
        canvas.rectangle(0.09 - slack, top, 0.57 + slack, top + 0.1, WHITE if index % 2 == 0 else color, 0.4)
    canvas.ellipse(0.33, 0.05, 0.23, 0.03, tuple(int(0.75 * c) for c in color))
    canvas.rectangle(0.26, 0.0, 0.4, 0.05, tuple(int(0.7 * c) for c in color))
    return canvas.finish(rng)


def _barricade(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    aspect = float(rng.uniform(1.25, 1.8))
    canvas = Canvas(size_px, aspect, light)
    color = _orange(rng) if rng.random() < 0.75 else (206, 30, 34)
    slant = float(rng.choice([-1.0, 1.0]))
    for x in (0.16 * aspect, 0.84 * aspect):
        canvas.rectangle(x - 0.025, 0.08, x + 0.025, 0.97, STEEL, 0.4)
        canvas.rectangle(x - 0.13, 0.945, x + 0.13, 0.99, (80, 82, 84))
    for top in (0.12, 0.38, 0.64):
        board = [(0.02, top), (aspect - 0.02, top), (aspect - 0.02, top + 0.17), (0.02, top + 0.17)]
        canvas.striped(board, color, WHITE, 0.3, slant)
    if rng.random() < 0.6:
        for x in (0.1 * aspect, 0.9 * aspect):
            canvas.ellipse(x, 0.06, 0.055, 0.055, (255, 170, 20))
            canvas.ellipse(x - 0.01, 0.05, 0.025, 0.025, (255, 225, 130))
    return canvas.finish(rng)


def _a_frame(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    aspect = float(rng.uniform(1.5, 2.1))
    canvas, color = Canvas(size_px, aspect, light), _orange(rng)
    for x in (0.12, aspect - 0.12):
        canvas.line([(x - 0.1, 1.0), (x, 0.05)], 0.05, (214, 210, 200))
        canvas.line([(x + 0.1, 1.0), (x, 0.05)], 0.05, (180, 176, 168))
    canvas.striped([(0.02, 0.1), (aspect - 0.02, 0.1), (aspect - 0.02, 0.36), (0.02, 0.36)], color, WHITE, 0.34, 1.0)
    canvas.striped([(0.05, 0.56), (aspect - 0.05, 0.56), (aspect - 0.05, 0.72), (0.05, 0.72)], color, WHITE, 0.34, 1.0)
    return canvas.finish(rng)


def _water_barrier(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    count = int(rng.integers(1, 4))
    canvas = Canvas(size_px, 0.1 + 1.25 * count, light)
    first = _orange(rng)
    for index in range(count):
        color = first if index % 2 == 0 else (232, 230, 226)
        left = 0.05 + 1.25 * index
        dark = tuple(int(0.72 * c) for c in color)
        canvas.polygon(
            [
                (left + 0.14, 0.02),
                (left + 1.06, 0.02),
                (left + 1.08, 0.5),
                (left + 1.2, 0.98),
                (left, 0.98),
                (left + 0.12, 0.5),
            ],
            color,
        )
        canvas.polygon([(left + 0.12, 0.5), (left + 1.08, 0.5), (left + 1.2, 0.98), (left, 0.98)], dark)
        canvas.rectangle(left + 0.2, 0.12, left + 1.0, 0.2, dark)
        canvas.rounded(left + 0.2, 0.84, left + 0.42, 1.0, 0.03, (26, 24, 24))
        canvas.rounded(left + 0.78, 0.84, left + 1.0, 1.0, 0.03, (26, 24, 24))
    return canvas.finish(rng, 0.07)


def _diamond_sign(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 0.72, light), _orange(rng)
    if rng.random() < 0.5:
        canvas.rectangle(0.34, 0.6, 0.38, 1.0, STEEL, 0.4)
    else:
        canvas.line([(0.36, 0.66), (0.16, 1.0)], 0.028, (70, 72, 74))
        canvas.line([(0.36, 0.66), (0.56, 1.0)], 0.028, (70, 72, 74))
        canvas.line([(0.36, 0.66), (0.36, 0.97)], 0.028, (70, 72, 74))
        for x, wave in ((0.2, -0.03), (0.52, 0.03)):
            canvas.line([(x, 0.0), (0.36, 0.3)], 0.012, (70, 72, 74))
            canvas.polygon([(x, 0.0), (x + wave + 0.07, 0.02), (x + 0.06 + wave, 0.1), (x, 0.09)], color)
    canvas.polygon([(0.36, 0.02), (0.71, 0.37), (0.36, 0.72), (0.01, 0.37)], (22, 22, 22))
    canvas.polygon([(0.36, 0.04), (0.69, 0.37), (0.36, 0.7), (0.03, 0.37)], color)
    canvas.polygon([(0.36, 0.06), (0.67, 0.37), (0.36, 0.68), (0.05, 0.37)], (22, 22, 22))
    canvas.polygon([(0.36, 0.075), (0.655, 0.37), (0.36, 0.665), (0.065, 0.37)], color)
    if rng.random() < 0.4:
        _digging_man(canvas, 0.36, 0.37, 0.34)
    else:
        lines = SIGN_TEXTS[int(rng.integers(len(SIGN_TEXTS)))]
        canvas.text(
            lines, 0.36, 0.37, min(0.27 / len(lines), 0.115, 0.5 / max(len(line) for line in lines)), (20, 20, 20)
        )
    return canvas.finish(rng)


def _digging_man(canvas: Canvas, x: float, y: float, size: float) -> None:
    ink = (20, 20, 20)
    canvas.ellipse(x - 0.02 * size, y - 0.4 * size, 0.1 * size, 0.1 * size, ink)
    canvas.line([(x - 0.08 * size, y - 0.26 * size), (x - 0.12 * size, y + 0.1 * size)], 0.2 * size, ink)
    canvas.line([(x - 0.12 * size, y + 0.06 * size), (x - 0.3 * size, y + 0.46 * size)], 0.11 * size, ink)
    canvas.line(
        [(x - 0.1 * size, y + 0.06 * size), (x + 0.06 * size, y + 0.22 * size), (x + 0.02 * size, y + 0.46 * size)],
        0.11 * size,
        ink,
    )
    canvas.line([(x - 0.06 * size, y - 0.22 * size), (x + 0.14 * size, y)], 0.09 * size, ink)
    canvas.line([(x - 0.02 * size, y - 0.14 * size), (x + 0.34 * size, y + 0.36 * size)], 0.045 * size, ink)
    canvas.polygon(
        [(x + 0.12 * size, y + 0.48 * size), (x + 0.3 * size, y + 0.3 * size), (x + 0.5 * size, y + 0.48 * size)], ink
    )


def _triangle_sign(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas = Canvas(size_px, 0.7, light)
    canvas.rectangle(0.33, 0.55, 0.37, 1.0, STEEL, 0.4)
    fill = WHITE if rng.random() < 0.6 else (250, 200, 30)
    canvas.polygon([(0.35, 0.0), (0.7, 0.61), (0.0, 0.61)], (206, 24, 30))
    canvas.polygon([(0.35, 0.12), (0.6, 0.555), (0.1, 0.555)], fill)
    _digging_man(canvas, 0.35, 0.41, 0.24)
    return canvas.finish(rng)


def _board_sign(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 0.95, light), _orange(rng)
    for x in (0.2, 0.75):
        canvas.rectangle(x - 0.02, 0.3, x + 0.02, 1.0, STEEL, 0.4)
    closed = rng.random() < 0.4
    canvas.rounded(0.0, 0.05, 0.95, 0.58, 0.04, (20, 20, 20))
    canvas.rounded(0.018, 0.068, 0.932, 0.562, 0.035, WHITE if closed else color)
    lines = ["ROAD", "CLOSED"] if closed else SIGN_TEXTS[int(rng.integers(len(SIGN_TEXTS)))]
    canvas.text(lines, 0.475, 0.315, min(0.44 / len(lines), 1.15 / max(len(line) for line in lines)), (20, 20, 20))
    if closed:
        canvas.striped([(0.05, 0.62), (0.9, 0.62), (0.9, 0.74), (0.05, 0.74)], color, WHITE, 0.2)
    return canvas.finish(rng)


def _worker(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas = Canvas(size_px, 0.7, light)
    vest: Color = (255, 106, 24) if rng.random() < 0.5 else (196, 240, 40)
    helmet = ((255, 210, 30), (240, 240, 240), (255, 120, 20))[int(rng.integers(3))]
    trousers = ((44, 52, 78), (58, 52, 48), (190, 92, 26))[int(rng.integers(3))]
    skin = ((224, 178, 148), (150, 100, 70), (196, 144, 110))[int(rng.integers(3))]
    stride, x = float(rng.uniform(0.02, 0.09)), 0.31
    for foot in (-stride, stride):
        canvas.line([(x + 0.3 * foot, 0.5), (x + foot * 0.7, 0.74), (x + foot, 0.96)], 0.085, trousers)
        canvas.ellipse(x + foot + 0.015, 0.975, 0.055, 0.022, (40, 32, 28))
        canvas.rectangle(x + foot * 0.85 - 0.045, 0.82, x + foot * 0.85 + 0.045, 0.85, (226, 226, 216))
    canvas.polygon([(x - 0.11, 0.2), (x + 0.11, 0.2), (x + 0.105, 0.54), (x - 0.105, 0.54)], vest, 0.35)
    canvas.rectangle(x - 0.107, 0.43, x + 0.107, 0.465, (236, 236, 222))
    for side in (-0.07, 0.045):
        canvas.rectangle(x + side, 0.2, x + side + 0.025, 0.45, (236, 236, 222))
    reach = float(rng.uniform(-0.1, 0.16))
    hand = (x + 0.2, 0.42 - reach)
    canvas.line([(x - 0.11, 0.23), (x - 0.16, 0.38), (x - 0.13, 0.52)], 0.062, vest)
    canvas.line([(x + 0.11, 0.23), (x + 0.17, 0.36), hand], 0.062, vest)
    canvas.ellipse(*hand, 0.028, 0.028, skin)
    canvas.rectangle(x - 0.03, 0.15, x + 0.03, 0.21, skin)
    canvas.ellipse(x, 0.12, 0.062, 0.075, skin, 0.3)
    canvas.polygon(
        [
            (x - 0.085, 0.105),
            (x - 0.07, 0.05),
            (x - 0.03, 0.02),
            (x + 0.03, 0.02),
            (x + 0.07, 0.05),
            (x + 0.095, 0.105),
        ],
        helmet,
        0.3,
    )
    if rng.random() < 0.55:
        canvas.line([(hand[0] + 0.03, hand[1] - 0.22), (hand[0] - 0.02, 0.98)], 0.024, (122, 92, 58))
        if rng.random() < 0.4:
            canvas.ellipse(hand[0] + 0.03, hand[1] - 0.24, 0.1, 0.1, (206, 26, 30))
            canvas.text(["STOP"], hand[0] + 0.03, hand[1] - 0.24, 0.06, WHITE)
        else:
            canvas.polygon(
                [(hand[0] - 0.06, 0.88), (hand[0] + 0.03, 0.88), (hand[0], 1.0), (hand[0] - 0.04, 1.0)], (90, 92, 96)
            )
    return canvas.finish(rng)


DESIGNS: dict[str, tuple[Draw, ...]] = {
    "cone": (_traffic_cone, _tubular_marker),
    "barrier": (_barricade, _a_frame, _water_barrier, _drum),
    "sign": (_diamond_sign, _board_sign, _triangle_sign),
    "worker": (_worker,),
    "vehicle": VEHICLES,
    "equipment": EQUIPMENT,
}
DESIGN_SHARES: dict[str, tuple[float, ...]] = {
    "cone": (0.8, 0.2),
    "barrier": (0.35, 0.2, 0.15, 0.3),
    "sign": (0.65, 0.25, 0.1),
    "worker": (1.0,),
    "vehicle": (0.3, 0.25, 0.3, 0.15),
    "equipment": (0.3, 0.2, 0.2, 0.15, 0.15),
}

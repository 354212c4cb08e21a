"""Draws the large roadwork objects: construction vehicles and construction equipment.

In and out as in `data/scene_objects.py`: height in pixels, a generator and the light give an RGBA picture.
"""

import numpy as np

from natix_roadwork.data.scene_canvas import Canvas, Color, Light


YELLOW: tuple[Color, ...] = ((246, 180, 20), (238, 160, 24), (250, 196, 40), (232, 112, 24))
RUBBER: Color = (30, 30, 32)
GLASS: Color = (70, 92, 108)
AMBER: Color = (255, 176, 32)


def _yellow(rng: np.random.Generator) -> Color:
    return YELLOW[int(rng.integers(len(YELLOW)))]


def darker(color: Color, factor: float) -> Color:
    """Return the colour multiplied by `factor`."""
    return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))


def wheel(canvas: Canvas, x: float, y: float, radius: float) -> None:
    """Draw a tyre with its rim around (`x`, `y`)."""
    canvas.ellipse(x, y, radius, radius, RUBBER)
    canvas.ellipse(x, y, radius * 0.58, radius * 0.58, (132, 132, 130))
    canvas.ellipse(x, y, radius * 0.2, radius * 0.2, (66, 66, 66))


def _excavator(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 1.75, light), _yellow(rng)
    dark = darker(color, 0.72)
    canvas.rounded(0.1, 0.8, 0.98, 1.0, 0.095, RUBBER)
    for x in np.linspace(0.2, 0.88, 6):
        canvas.ellipse(float(x), 0.9, 0.065, 0.065, (84, 82, 78))
    canvas.rectangle(0.4, 0.74, 0.72, 0.81, (52, 50, 48))
    canvas.polygon([(0.06, 0.5), (0.3, 0.46), (0.92, 0.5), (0.94, 0.76), (0.08, 0.76)], color)
    canvas.polygon([(0.08, 0.66), (0.94, 0.66), (0.94, 0.76), (0.08, 0.76)], dark)
    canvas.polygon([(0.54, 0.2), (0.82, 0.2), (0.92, 0.48), (0.92, 0.68), (0.52, 0.68)], color)
    canvas.polygon([(0.575, 0.245), (0.8, 0.245), (0.88, 0.5), (0.57, 0.5)], GLASS)
    canvas.line([(0.7, 0.24), (0.72, 0.5)], 0.02, dark)
    lift = float(rng.uniform(-0.08, 0.06))
    elbow, wrist = (1.3, 0.1 + lift), (1.6, 0.62 + lift)
    canvas.line([(0.9, 0.6), (1.06, 0.24 + lift), elbow], 0.1, color)
    canvas.line([elbow, wrist], 0.085, dark)
    canvas.line([(1.0, 0.44 + lift), (1.2, 0.2 + lift)], 0.03, (190, 190, 190))
    x, y = wrist
    canvas.polygon(
        [(x - 0.06, y - 0.06), (x + 0.1, y), (x + 0.06, y + 0.24), (x - 0.18, y + 0.24), (x - 0.2, y + 0.1)],
        (64, 60, 56),
    )
    return canvas.finish(rng, 0.09)


def _dump_truck(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 1.95, light), _yellow(rng)
    cab = color if rng.random() < 0.5 else (228, 228, 226)
    canvas.rectangle(0.12, 0.68, 1.86, 0.78, (44, 44, 46))
    canvas.polygon([(0.04, 0.16), (1.22, 0.16), (1.3, 0.68), (0.16, 0.68)], color)
    for x in np.linspace(0.24, 1.14, 6):
        canvas.line([(float(x), 0.18), (float(x) + 0.03, 0.67)], 0.028, darker(color, 0.74))
    canvas.polygon([(0.1, 0.17), (0.4, 0.04), (0.8, 0.01), (1.16, 0.16)], (118, 92, 66))
    canvas.polygon([(1.34, 0.22), (1.7, 0.22), (1.8, 0.5), (1.92, 0.54), (1.92, 0.76), (1.34, 0.76)], cab)
    canvas.polygon([(1.42, 0.27), (1.66, 0.27), (1.74, 0.49), (1.42, 0.49)], GLASS)
    canvas.rectangle(1.46, 0.17, 1.58, 0.22, AMBER)
    for x in (0.38, 0.66, 1.64):
        wheel(canvas, x, 0.83, 0.165)
    return canvas.finish(rng, 0.08)


def _work_truck_rear(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas = Canvas(size_px, 0.92, light)
    color: Color = (236, 236, 232) if rng.random() < 0.5 else _yellow(rng)
    canvas.rounded(0.06, 0.84, 0.24, 1.0, 0.04, RUBBER)
    canvas.rounded(0.68, 0.84, 0.86, 1.0, 0.04, RUBBER)
    canvas.rounded(0.12, 0.24, 0.8, 0.6, 0.06, color)
    canvas.rounded(0.18, 0.29, 0.74, 0.46, 0.04, GLASS)
    canvas.rounded(0.02, 0.48, 0.9, 0.92, 0.04, color)
    canvas.striped([(0.06, 0.54), (0.46, 0.54), (0.46, 0.8), (0.06, 0.8)], (222, 34, 30), (250, 206, 40), 0.16, 1.0)
    canvas.striped([(0.46, 0.54), (0.86, 0.54), (0.86, 0.8), (0.46, 0.8)], (222, 34, 30), (250, 206, 40), 0.16, -1.0)
    canvas.rectangle(0.02, 0.83, 0.9, 0.9, (70, 70, 72))
    for x in (0.035, 0.845):
        canvas.rectangle(x, 0.56, x + 0.045, 0.76, (176, 22, 22))
    canvas.rectangle(0.44, 0.16, 0.48, 0.25, (50, 50, 50))
    canvas.rounded(0.1, 0.03, 0.82, 0.17, 0.02, (24, 24, 24))
    for x in np.linspace(0.17, 0.75, 6):
        canvas.ellipse(float(x), 0.1, 0.034, 0.034, AMBER if rng.random() < 0.75 else (86, 66, 30))
    return canvas.finish(rng, 0.05)


def _roller(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 1.5, light), _yellow(rng)
    canvas.polygon([(0.2, 0.5), (0.7, 0.46), (1.3, 0.5), (1.34, 0.8), (0.16, 0.8)], color)
    canvas.rectangle(0.2, 0.7, 1.32, 0.8, darker(color, 0.7))
    for x in (0.5, 0.94):
        canvas.line([(x, 0.08), (x, 0.5)], 0.035, (44, 44, 44))
    canvas.rectangle(0.42, 0.03, 1.02, 0.09, color)
    canvas.rounded(0.6, 0.36, 0.82, 0.52, 0.03, (40, 40, 42))
    for x in (0.25, 1.24):
        canvas.ellipse(x, 0.76, 0.235, 0.235, (104, 104, 102), 0.35)
        canvas.ellipse(x, 0.76, 0.08, 0.08, (50, 50, 50))
    return canvas.finish(rng, 0.08)


def _arrow_board(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas = Canvas(size_px, 1.0, light)
    canvas.rectangle(0.47, 0.4, 0.53, 0.84, (78, 80, 82), 0.3)
    canvas.rectangle(0.16, 0.8, 0.84, 0.87, _yellow(rng))
    for x in (0.24, 0.76):
        wheel(canvas, x, 0.9, 0.1)
    canvas.rounded(0.0, 0.02, 1.0, 0.5, 0.03, (236, 128, 26))
    canvas.rounded(0.02, 0.04, 0.98, 0.48, 0.02, (18, 18, 18))
    mirror = -1 if rng.random() < 0.5 else 1
    lamps = [(-0.3 + 0.12 * step, 0.0) for step in range(6)]
    lamps += [(0.2, 0.1), (0.2, -0.1), (0.1, 0.17), (0.1, -0.17)]
    for x, y in lamps:
        canvas.ellipse(0.5 + mirror * x * 1.15, 0.26 + y * 0.95, 0.036, 0.036, (255, 196, 60))
    return canvas.finish(rng, 0.04)


def _message_board(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas = Canvas(size_px, 1.2, light)
    body = (236, 128, 26) if rng.random() < 0.6 else (210, 210, 206)
    canvas.rectangle(0.56, 0.5, 0.64, 0.86, body)
    canvas.polygon([(0.16, 0.84), (1.04, 0.84), (1.04, 0.9), (0.16, 0.9)], body)
    for x in (0.34, 0.86):
        wheel(canvas, x, 0.91, 0.09)
    canvas.rounded(0.0, 0.0, 1.2, 0.58, 0.02, body)
    canvas.rectangle(0.03, 0.03, 1.17, 0.55, (16, 16, 16))
    lines = (["ROAD", "WORK"], ["LEFT LANE", "CLOSED"], ["EXPECT", "DELAYS"])[int(rng.integers(3))]
    canvas.text(lines, 0.6, 0.29, 1.55 / max(7, max(len(line) for line in lines)), (255, 178, 30))
    return canvas.finish(rng, 0.04)


def _generator(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 1.55, light), _yellow(rng)
    canvas.rounded(0.1, 0.12, 1.34, 0.78, 0.06, color)
    canvas.rectangle(0.1, 0.6, 1.34, 0.68, darker(color, 0.7))
    for x in np.linspace(0.24, 0.6, 7):
        canvas.line([(float(x), 0.24), (float(x), 0.5)], 0.022, (46, 44, 42))
    canvas.rounded(0.76, 0.22, 1.24, 0.52, 0.03, darker(color, 0.88))
    canvas.rectangle(0.3, 0.02, 0.36, 0.14, (62, 62, 62))
    canvas.line([(1.3, 0.74), (1.53, 0.9)], 0.04, (60, 60, 62))
    for x in (0.42, 0.94):
        wheel(canvas, x, 0.84, 0.15)
    return canvas.finish(rng, 0.08)


def _light_tower(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas, color = Canvas(size_px, 0.62, light), _yellow(rng)
    canvas.rectangle(0.285, 0.08, 0.325, 0.74, (150, 152, 152), 0.3)
    canvas.rectangle(0.06, 0.06, 0.56, 0.085, (70, 70, 72))
    for x in (0.05, 0.19, 0.33, 0.47):
        canvas.rounded(x, 0.0, x + 0.1, 0.1, 0.015, (60, 60, 60))
        canvas.rounded(x + 0.012, 0.014, x + 0.088, 0.086, 0.012, (252, 246, 214))
    canvas.rounded(0.08, 0.7, 0.54, 0.91, 0.03, color)
    canvas.rectangle(0.14, 0.75, 0.3, 0.85, (48, 46, 44))
    for x in (0.18, 0.44):
        wheel(canvas, x, 0.93, 0.065)
    return canvas.finish(rng, 0.06)


def _gravel_and_fence(size_px: int, rng: np.random.Generator, light: Light) -> np.ndarray:
    canvas = Canvas(size_px, 1.9, light)
    for x0 in (0.06, 0.96):
        for x in np.linspace(x0, x0 + 0.86, 16):
            canvas.line([(float(x), 0.06), (float(x), 0.94)], 0.008, (168, 170, 170))
        for y in (0.05, 0.5, 0.95):
            canvas.line([(x0, y), (x0 + 0.86, y)], 0.022, (186, 188, 188))
        for x in (x0, x0 + 0.86):
            canvas.line([(x, 0.04), (x, 0.98)], 0.03, (186, 188, 188))
        canvas.rectangle(x0 + 0.3, 0.94, x0 + 0.6, 1.0, (206, 96, 30))
    canvas.polygon([(0.3, 1.0), (0.5, 0.66), (0.74, 0.46), (1.0, 0.5), (1.22, 0.72), (1.46, 1.0)], (132, 112, 88), 0.2)
    canvas.polygon([(0.4, 1.0), (0.66, 0.62), (0.8, 0.52), (0.86, 0.76), (0.9, 1.0)], (152, 132, 104))
    return canvas.finish(rng, 0.1)


VEHICLES = (_excavator, _dump_truck, _work_truck_rear, _roller)
EQUIPMENT = (_arrow_board, _message_board, _generator, _light_tower, _gravel_and_fence)

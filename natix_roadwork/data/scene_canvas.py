"""A small antialiased canvas on which the objects of the embedded scenes are drawn.

In: shapes in units of the object's height (x to the right, y down). Out: an RGBA array. The canvas is drawn larger than
asked and reduced at the end; inside, colours are premultiplied by alpha. Next: `data/scene_objects.py`.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont


Color = tuple[int, int, int]
Points = list[tuple[float, float]]
SHIFT = 4


@dataclass(frozen=True)
class Light:
    """How an object is lit: overall brightness, colour tint and the horizontal side the light comes from (-1 to 1)."""

    brightness: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    side: float = -0.5


class Canvas:
    """A drawing surface of `aspect` x 1 units, `size_px` pixels high.

    Args:
        size_px: height of the finished picture in pixels.
        aspect: width divided by height.
        light: shading of rounded shapes and the final brightness.
    """

    def __init__(self, size_px: int, aspect: float, light: Light) -> None:
        """Start with a fully transparent surface."""
        self.height, self.width = max(size_px, 4), max(round(size_px * aspect), 4)
        self.scale = 3 if size_px < 160 else 2
        self.unit = self.height * self.scale
        self.light = light
        self.pixels = np.zeros((self.height * self.scale, self.width * self.scale, 4), np.uint8)

    def polygon(self, points: Points, color: Color, ramp: float = 0.0) -> None:
        """Fill a polygon; `ramp` > 0 shades it from side to side as if it were round."""
        corners = self._fixed(points)
        if ramp == 0.0:
            cv2.fillPoly(self.pixels, [corners], (*color, 255), cv2.LINE_AA, SHIFT)
            return
        left, top, right, bottom = self._bounds(points)
        steps = np.linspace(-1, 1, max(right - left, 1), dtype=np.float32)
        shade = 1 - ramp * np.clip(np.abs(steps - 0.7 * self.light.side) ** 1.5, 0, 1.2)
        paint = np.clip(shade[None, :, None] * np.array(color, np.float32), 0, 255)
        self._cover(corners, np.broadcast_to(paint, (bottom - top, right - left, 3)), (left, top, right, bottom))

    def striped(self, points: Points, first: Color, second: Color, period: float, slant: float = 1.0) -> None:
        """Fill a polygon with slanted stripes that repeat after `period` units (`slant` 0 = upright stripes)."""
        left, top, right, bottom = self._bounds(points)
        rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
        on = ((columns + slant * rows) / (period * self.unit)) % 1.0 < 0.5
        paint = np.where(on[..., None], np.array(first, np.float32), np.array(second, np.float32))
        self._cover(self._fixed(points), paint, (left, top, right, bottom))

    def rectangle(self, left: float, top: float, right: float, bottom: float, color: Color, ramp: float = 0.0) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color, ramp)

    def rounded(self, left: float, top: float, right: float, bottom: float, radius: float, color: Color) -> None:
        """Fill a rectangle with rounded corners."""
        angles = np.linspace(0, np.pi / 2, 6)
        points: Points = []
        for quarter, (x, y) in enumerate(
            [
                (right - radius, bottom - radius),
                (left + radius, bottom - radius),
                (left + radius, top + radius),
                (right - radius, top + radius),
            ]
        ):
            turned = angles + quarter * np.pi / 2
            points += [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in turned]
        self.polygon(points, color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color, ramp: float = 0.0) -> None:
        """Fill an ellipse of radii `rx`, `ry` around (`x`, `y`)."""
        angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        self.polygon([(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles], color, ramp)

    def line(self, points: Points, width: float, color: Color) -> None:
        """Draw a connected line of the given width with round joints."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-6)
            dx, dy = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
            self.polygon([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], color)
        for x, y in points[1:-1]:
            self.ellipse(x, y, width / 2, width / 2, color)

    def text(self, lines: list[str], x: float, y: float, line_height: float, color: Color) -> None:
        """Write centred lines of text around (`x`, `y`)."""
        size = max(int(line_height * self.unit), 3)
        font = ImageFont.load_default(size)
        mask = Image.new("L", (self.pixels.shape[1], self.pixels.shape[0]))
        draw = ImageDraw.Draw(mask)
        for index, line in enumerate(lines):
            row = (y + (index - (len(lines) - 1) / 2) * line_height * 1.02) * self.unit
            draw.text((x * self.unit, row), line, fill=255, font=font, anchor="mm", stroke_width=size // 24)
        self._blend(np.asarray(mask), np.array(color, np.float32), (0, 0, mask.width, mask.height))

    def finish(self, rng: np.random.Generator, wear: float = 0.05) -> np.ndarray:
        """Reduce to the asked size, add wear and light; return straight RGBA `(height, width, 4)` uint8."""
        small = cv2.resize(self.pixels, (self.width, self.height), interpolation=cv2.INTER_AREA).astype(np.float32)
        alpha = small[..., 3:]
        color = small[..., :3] * 255 / np.maximum(alpha, 1)
        coarse = rng.normal(0, wear, (9, 7)).astype(np.float32)
        dirt = cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        dirt += rng.normal(0, 0.025, dirt.shape).astype(np.float32)
        height = np.linspace(1.05, 0.9, self.height, dtype=np.float32)[:, None]
        gain = ((1 + dirt) * height * self.light.brightness)[..., None] * np.array(self.light.tint, np.float32)
        return np.concatenate([np.clip(color * gain, 0, 255), alpha], axis=2).astype(np.uint8)

    def _fixed(self, points: Points) -> np.ndarray:
        return np.round(np.array(points, np.float64) * self.unit * (1 << SHIFT)).astype(np.int32)

    def _bounds(self, points: Points) -> tuple[int, int, int, int]:
        array = np.array(points) * self.unit
        low, high = np.floor(array.min(0)).astype(int), np.ceil(array.max(0)).astype(int) + 1
        limit = np.array([self.pixels.shape[1], self.pixels.shape[0]])
        low, high = np.clip(low, 0, limit - 1), np.clip(high, 1, limit)
        return int(low[0]), int(low[1]), int(max(high[0], low[0] + 1)), int(max(high[1], low[1] + 1))

    def _cover(self, corners: np.ndarray, paint: np.ndarray, box: tuple[int, int, int, int]) -> None:
        left, top, right, bottom = box
        mask = np.zeros((bottom - top, right - left), np.uint8)
        offset = np.array([left, top], np.int32) * (1 << SHIFT)
        cv2.fillPoly(mask, [corners - offset], 255, cv2.LINE_AA, SHIFT)
        self._blend(mask, paint, box)

    def _blend(self, mask: np.ndarray, paint: np.ndarray, box: tuple[int, int, int, int]) -> None:
        left, top, right, bottom = box
        share = (mask.astype(np.float32) / 255)[..., None]
        region = self.pixels[top:bottom, left:right].astype(np.float32)
        region[..., :3] = region[..., :3] * (1 - share) + paint * share
        region[..., 3:] = region[..., 3:] * (1 - share) + 255 * share
        self.pixels[top:bottom, left:right] = region.astype(np.uint8)

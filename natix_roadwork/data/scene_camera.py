"""The camera and the picture of one embedded scene: projection of the street, painting with haze, exact masks.

World coordinates are metres: `x` to the right of the road's centre line, `y` up from the ground, `z` ahead of the camera.
Things are painted from far to near. Next: `data/scene_street.py` paints a street with it.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from natix_roadwork.data.scene_canvas import SHIFT, Color


CAMERA_HEIGHT = 1.6
NEAREST = 2.2
World = tuple[float, float, float]


@dataclass
class Camera:
    """A pinhole camera over a road that may curve gently.

    `width`, `height`, `focal`, `horizon` and `center` are pixels, `offset` is the camera's place beside the centre line
    in metres, `curve` the road's sideways drift in metres per squared metre ahead, `visibility` the distance in metres
    at which haze hides two thirds of a thing.
    """

    width: int
    height: int
    focal: float
    horizon: float
    center: float
    offset: float
    curve: float
    visibility: float
    haze: Color
    image: np.ndarray = field(init=False)
    mask: np.ndarray = field(init=False)
    emission: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Allocate the picture `(height, width, 3)`, the bit-packed mask and the half-size layer of light sources."""
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.mask = np.zeros((self.height, self.width), np.uint8)
        self.emission = np.zeros((self.height // 2, self.width // 2, 3), np.uint8)

    def project(self, points: list[World]) -> np.ndarray:
        """Project world points to pixels `(N, 2)`; points behind the camera are moved to just before it."""
        array = np.array(points, np.float64)
        ahead = np.maximum(array[:, 2], NEAREST)
        across = (array[:, 0] - self.offset) + self.curve * ahead**2
        columns = self.center + self.focal * across / ahead
        return np.stack([columns, self.horizon + self.focal * (CAMERA_HEIGHT - array[:, 1]) / ahead], axis=1)

    def clearness(self, z: float) -> float:
        """Share of a thing's own colour that is left at `z` metres."""
        return float(np.exp(-z / self.visibility))

    def hazed(self, color: Color, z: float) -> Color:
        """Blend a colour with the haze at `z` metres."""
        clear = self.clearness(z)
        mixed = [round(clear * c + (1 - clear) * h) for c, h in zip(color, self.haze, strict=True)]
        return (mixed[0], mixed[1], mixed[2])

    def polygon(self, points: list[World], color: Color) -> None:
        """Fill a polygon given in world points, with the haze of its mean distance; it hides evidence behind it."""
        corners = self.project(points)
        if not self._visible(corners):
            return
        z = float(np.mean([point[2] for point in points]))
        fixed = np.round(np.clip(corners, -20_000, 20_000) * (1 << SHIFT)).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], self.hazed(color, z), cv2.LINE_AA, SHIFT)
        cv2.fillPoly(self.emission, [fixed // 2], (0, 0, 0), cv2.LINE_8, SHIFT)

    def strip(self, left: float, right: float, color: Color, near: float = NEAREST, far: float = 400.0) -> None:
        """Fill a strip of ground between two distances from the centre line, following the road's curve."""
        steps = np.geomspace(max(near, NEAREST), far, 14)
        edge = [(left, 0.0, float(z)) for z in steps] + [(right, 0.0, float(z)) for z in steps[::-1]]
        corners = np.clip(self.project(edge), -20_000, 20_000)
        cv2.fillPoly(self.image, [np.round(corners * (1 << SHIFT)).astype(np.int32)], color, cv2.LINE_AA, SHIFT)

    def facade(self, points: list[World], texture: np.ndarray, lights: np.ndarray | None) -> None:
        """Stretch a texture `(h, w, 3)` over a quadrilateral (top left, top right, bottom right, bottom left)."""
        corners = self.project(points)
        if not self._visible(corners):
            return
        clear = self.clearness(float(np.mean([point[2] for point in points])))
        hazy = texture.astype(np.float32) * clear + np.array(self.haze, np.float32) * (1 - clear)
        _warp(self.image, hazy.astype(np.uint8), corners)
        shown = np.zeros_like(texture) if lights is None else (lights * clear).astype(np.uint8)
        _warp(self.emission, shown, corners / 2)

    def paste(self, picture: np.ndarray, x: float, z: float, bit: int | None = None, lift: float = 0.0) -> float:
        """Stand a straight-alpha picture `(h, w, 4)` on the ground, already drawn at its size in pixels.

        Args:
            picture: RGBA of the object.
            x: metres from the centre line.
            z: metres ahead.
            bit: mask channel of evidence; None hides whatever evidence lies behind.
            lift: metres above the ground.

        Returns:
            The number of pixels of the object inside the photo.
        """
        column, row = self.project([(x, lift, z)])[0]
        height, width = picture.shape[:2]
        left, top = round(column - width / 2), round(row - height)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, self.width), min(top + height, self.height)
        if x0 >= x1 or y0 >= y1:
            return 0.0
        part = picture[y0 - top : y1 - top, x0 - left : x1 - left]
        alpha = part[..., 3:].astype(np.float32) / 255
        clear = self.clearness(z)
        color = part[..., :3].astype(np.float32) * clear + np.array(self.haze, np.float32) * (1 - clear)
        region = self.image[y0:y1, x0:x1]
        region[:] = region + (color - region) * alpha
        solid = part[..., 3] > 127
        self.mask[y0:y1, x0:x1][solid] = 0 if bit is None else 1 << bit
        self._hide_lights(solid, x0, y0)
        return float(solid.sum())

    def glow(self, x: float, y: float, z: float, radius: float, color: Color) -> None:
        """Put a round light source of `radius` metres into the layer of light sources."""
        column, row = self.project([(x, y, z)])[0] / 2
        pixels = max(round(self.focal * radius / z / 2), 1)
        if -50 < column < self.width and -50 < row < self.height:
            cv2.circle(self.emission, (round(column), round(row)), pixels, color, -1, cv2.LINE_AA)

    def _hide_lights(self, solid: np.ndarray, x0: int, y0: int) -> None:
        half = solid[y0 % 2 :: 2, x0 % 2 :: 2]
        top, left = (y0 + 1) // 2, (x0 + 1) // 2
        region = self.emission[top : top + half.shape[0], left : left + half.shape[1]]
        region[half[: region.shape[0], : region.shape[1]]] = 0

    def _visible(self, corners: np.ndarray) -> bool:
        low, high = corners.min(0), corners.max(0)
        return bool(high[0] > 0 and high[1] > 0 and low[0] < self.width and low[1] < self.height)


def _warp(target: np.ndarray, texture: np.ndarray, corners: np.ndarray) -> None:
    height, width = target.shape[:2]
    low = np.clip(np.floor(corners.min(0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 1, low + 1, (width, height)).astype(int)
    box = corners - low
    rows, columns = texture.shape[:2]
    flat = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    matrix = cv2.getPerspectiveTransform(flat, box.astype(np.float32))
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    warped = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(
        mask, [np.round(np.clip(box, -20_000, 20_000) * (1 << SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, SHIFT
    )
    region = target[low[1] : high[1], low[0] : high[0]]
    share = (mask.astype(np.float32) / 255)[..., None]
    region[:] = region + (warped - region.astype(np.float32)) * share

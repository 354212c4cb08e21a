"""Sky, skyline, buildings and trees of the embedded scenes.

In: a `Camera` and a generator that belongs to the place. Out: paint on the camera's picture.
"""

import cv2
import numpy as np

from natix_roadwork.data.scene_camera import Camera
from natix_roadwork.data.scene_canvas import Color


WALLS: tuple[Color, ...] = (
    (168, 120, 96),
    (150, 82, 66),
    (196, 186, 168),
    (206, 202, 194),
    (128, 126, 124),
    (178, 154, 122),
    (112, 104, 100),
    (216, 196, 160),
    (150, 160, 170),
)
ROOFS: tuple[Color, ...] = ((86, 60, 52), (70, 70, 74), (112, 74, 58), (60, 56, 60))
AWNINGS: tuple[Color, ...] = ((226, 104, 32), (150, 36, 36), (40, 84, 60), (36, 60, 110), (220, 190, 120))
FOLIAGE: tuple[Color, ...] = ((58, 92, 38), (70, 104, 48), (48, 80, 44), (92, 112, 50))
AUTUMN: tuple[Color, ...] = ((206, 110, 28), (190, 84, 26), (214, 150, 40), (168, 70, 30))
LAMP: Color = (255, 206, 130)


def paint_sky(camera: Camera, top: Color, bottom: Color, clouds: float, rng: np.random.Generator) -> None:
    """Fill the picture with a gradient from `top` to `bottom` at the horizon and soft clouds of the given strength."""
    rows = max(round(camera.horizon) + 4, 8)
    small = (camera.width // 4, max(rows // 4, 2))
    ramp = np.linspace(0, 1, small[1], dtype=np.float32)[:, None, None] ** 0.8
    sky = np.array(top, np.float32) * (1 - ramp) + np.array(bottom, np.float32) * ramp
    field = np.zeros(small[::-1], np.float32)
    for cells, weight in ((5, 1.0), (11, 0.6), (24, 0.35)):
        coarse = rng.normal(0, weight, (cells, cells * 2)).astype(np.float32)
        field += cv2.resize(coarse, small, interpolation=cv2.INTER_CUBIC)
    cover = np.clip((field * 0.6 + clouds - 0.5) * 1.4, 0, 1)[..., None] * min(clouds * 1.5, 0.9)
    tone = np.clip(np.array(bottom, np.float32) * 1.08 + 14, 0, 252) * (1 - 0.12 * np.clip(field, -1, 1)[..., None])
    painted = (sky * (1 - cover) + tone * cover).clip(0, 255).astype(np.uint8)
    camera.image[:rows] = cv2.resize(painted, (camera.width, rows), interpolation=cv2.INTER_LINEAR)
    camera.image[rows:] = bottom


def paint_skyline(camera: Camera, height_m: float, color: Color, roughness: float, rng: np.random.Generator) -> None:
    """Draw a far silhouette (woods, hills or roofs) along the horizon, about `height_m` high at 350 m."""
    count = 90
    steps = np.cumsum(rng.normal(0, roughness, count))
    steps = height_m * np.clip(1 + 0.5 * (steps - steps.mean()) + rng.normal(0, 0.12, count), 0.15, 2.5)
    columns = np.linspace(-10, camera.width + 10, count)
    rows = camera.horizon - camera.focal * steps / 350
    base = camera.horizon + 6
    points = [*np.stack([columns, rows], 1).tolist(), [camera.width + 10, base], [-10, base]]
    shade = camera.hazed(color, 220)
    cv2.fillPoly(camera.image, [np.round(np.array(points) * 16).astype(np.int32)], shade, cv2.LINE_AA, 4)


def facade_texture(
    floors: int, columns: int, cell_px: int, wall: Color, shops: bool, lit_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the wall of a building: `(texture, lights)`, both `(floors * cell_px, columns * cell_px, 3)` uint8."""
    cell = np.full((cell_px, cell_px, 3), wall, np.float32)
    top, bottom = round(0.2 * cell_px), round(0.78 * cell_px)
    left, right = round(0.24 * cell_px), round(0.76 * cell_px)
    frame = max(cell_px // 16, 1)
    cell[top - frame : bottom + 2 * frame, left - frame : right + frame] = np.clip(np.array(wall) * 1.25 + 18, 0, 255)
    cell[: max(cell_px // 24, 1)] *= 0.9
    texture = np.tile(cell, (floors, columns, 1))
    texture *= 1 + 0.035 * rng.standard_normal(texture.shape[:2], np.float32)[..., None]
    glass = np.zeros((cell_px, cell_px), np.float32)
    glass[top:bottom, left:right] = np.linspace(1.25, 0.75, max(bottom - top, 1), dtype=np.float32)[:, None]
    glass[top:bottom, (left + right) // 2] *= 0.55
    pane = np.tile(glass, (floors, columns))
    tone = rng.uniform(0.55, 1.5, (floors, columns)).astype(np.float32)
    shape = (columns * cell_px, floors * cell_px)
    shine = pane * cv2.resize(tone, shape, interpolation=cv2.INTER_NEAREST)
    seen = pane > 0
    texture[seen] = shine[seen][:, None] * np.array((74, 90, 104), np.float32)
    lights = np.zeros_like(texture)
    on = (rng.random((floors, columns)) < lit_share).astype(np.uint8)
    if lit_share > 0:
        warm = seen & (cv2.resize(on, shape, interpolation=cv2.INTER_NEAREST) > 0)
        lights[warm] = np.minimum(pane[warm], 1)[:, None] * np.array((216, 168, 92), np.float32)
    if shops and floors > 1:
        _shop_front(texture, lights, cell_px, lit_share, rng)
    return np.clip(texture, 0, 255).astype(np.uint8), np.clip(lights, 0, 255).astype(np.uint8)


def _shop_front(
    texture: np.ndarray, lights: np.ndarray, cell_px: int, lit_share: float, rng: np.random.Generator
) -> None:
    awning = np.array(AWNINGS[int(rng.integers(len(AWNINGS)))], np.float32)
    floor = texture[-cell_px:]
    edge = max(cell_px // 10, 1)
    floor[round(0.3 * cell_px) : round(0.92 * cell_px), edge:-edge] = np.array((60, 70, 78), np.float32)
    stripes = np.where((np.arange(floor.shape[1]) // max(cell_px // 6, 1)) % 2 == 0, 1.0, 0.86)[None, :, None]
    floor[round(0.05 * cell_px) : round(0.3 * cell_px)] = awning * stripes
    if lit_share > 0.1 and rng.random() < 0.6:
        lights[-cell_px:][round(0.32 * cell_px) : round(0.9 * cell_px), edge:-edge] = (196, 176, 132)


def paint_building(
    camera: Camera,
    side: int,
    distance: float,
    near: float,
    length: float,
    height: float,
    style: str,
    lit_share: float,
    rng: np.random.Generator,
) -> None:
    """Paint a block beside the road: the wall along it, the wall towards the camera, and a roof for houses."""
    wall = WALLS[int(rng.integers(len(WALLS)))]
    floors, depth = max(round(height / 3.1), 1), float(rng.uniform(8, 14))
    cell = int(np.clip(camera.focal * 3.0 / max(near, 5.0), 7, 56))
    inner, outer, far = side * distance, side * (distance + depth), near + length
    shops = style == "shops"
    end, end_lights = facade_texture(floors, max(round(depth / 3), 1), cell, wall, False, lit_share, rng)
    shaded = (end * 0.82).astype(np.uint8)
    if near > 2.5:
        x0, x1 = (inner, outer) if side > 0 else (outer, inner)
        camera.facade([(x0, height, near), (x1, height, near), (x1, 0, near), (x0, 0, near)], shaded, end_lights)
    along, lights = facade_texture(floors, max(round(length / 3), 1), cell, wall, shops, lit_share, rng)
    a, b = (far, near) if side > 0 else (near, far)
    start = max(a, NEAR_WALL), max(b, NEAR_WALL)
    quad = [(inner, height, start[0]), (inner, height, start[1]), (inner, 0, start[1]), (inner, 0, start[0])]
    camera.facade(quad, along, lights)
    roof = ROOFS[int(rng.integers(len(ROOFS)))]
    if style == "house":
        ridge, middle = height + 0.32 * depth, (inner + outer) / 2
        camera.polygon([(inner, height, near), (outer, height, near), (middle, ridge, near)], wall)
        slope = [(inner - side * 0.5, height - 0.3, near - 0.4), (inner - side * 0.5, height - 0.3, far)]
        camera.polygon([*slope, (middle, ridge, far), (middle, ridge, near - 0.4)], roof)
    else:
        band = [(inner, height, near), (inner, height, far), (inner, height + 0.5, far), (inner, height + 0.5, near)]
        camera.polygon(band, roof)


NEAR_WALL = 2.4


def draw_tree(size_px: int, rng: np.random.Generator, autumn: bool, bare: bool) -> np.ndarray:
    """Draw a street tree as straight RGBA `(size, 0.8 * size, 4)` uint8."""
    working = min(max(size_px, 24), 220)
    width = round(0.8 * working)
    picture = np.zeros((working, width, 4), np.uint8)
    trunk = (70, 56, 46, 255)
    middle = width // 2
    cv2.line(picture, (middle, working), (middle, round(0.45 * working)), trunk, max(working // 22, 2), cv2.LINE_AA)
    palette = AUTUMN if autumn else FOLIAGE
    base = np.array(palette[int(rng.integers(len(palette)))], np.float32)
    count = 46 if bare else 150
    angle, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    xs = middle + radius * np.cos(angle) * 0.36 * working
    ys = 0.36 * working + radius * np.sin(angle) * 0.3 * working
    order = np.argsort(-ys)
    shade = np.clip(1.25 - 0.75 * ys / (0.7 * working) + rng.normal(0, 0.13, count), 0.4, 1.35)
    leaves = np.clip(base * shade[:, None], 0, 255).astype(int).tolist()
    sizes = np.maximum(working * rng.uniform(0.025, 0.07, count), 1).astype(int).tolist()
    ends = np.round(np.stack([xs, ys], 1)).astype(int).tolist()
    for index in order.tolist():
        if bare:
            cv2.line(picture, (middle, round(0.55 * working)), ends[index], trunk, 1, cv2.LINE_AA)
        else:
            cv2.circle(picture, ends[index], sizes[index], (*leaves[index], 255), -1, cv2.LINE_AA)
    grain = 1 + 0.1 * rng.standard_normal(picture.shape[:2], np.float32)[..., None]
    picture[..., :3] = np.clip(picture[..., :3] * grain, 0, 255)
    if size_px != working:
        picture = cv2.resize(picture, (round(0.8 * size_px), size_px), interpolation=cv2.INTER_LINEAR)
    return picture

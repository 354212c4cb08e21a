"""Paints the street of a place: ground and markings, then buildings, trees, posts and things from far to near.

In: a `Place`, a `Camera` and the `Conditions`. Out: paint and evidence masks on the camera. Next: `data/scenes.py`.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from natix_roadwork.data.scene_camera import NEAREST, Camera
from natix_roadwork.data.scene_canvas import SHIFT, Color, Light
from natix_roadwork.data.scene_distractors import draw_distractor
from natix_roadwork.data.scene_objects import OBJECT_KINDS, draw_object
from natix_roadwork.data.scene_plan import Place, Thing
from natix_roadwork.data.scene_scenery import LAMP, draw_tree, paint_building, paint_sky, paint_skyline
from natix_roadwork.data.scene_weather import Conditions


Job = tuple[float, Callable[[], object]]
WOODS: Color = (58, 78, 56)
TOWN: Color = (122, 122, 128)
PALE: Color = (226, 228, 226)
LINE_YELLOW: Color = (220, 176, 62)


def paint_street(camera: Camera, place: Place, sky: Conditions, advance: float, rng: np.random.Generator) -> None:
    """Paint a whole street.

    Args:
        camera: picture to paint on.
        place: what stands where.
        sky: light and weather.
        advance: metres by which this frame was taken before the first one (things lie farther away).
        rng: generator of the place's looks; every frame gets it in the same state.
    """
    paint_sky(camera, sky.sky_top, sky.sky_bottom, sky.clouds, rng)
    far = WOODS if place.is_open else TOWN
    paint_skyline(camera, 34 if place.is_open else 52, far, 0.11 if place.is_open else 0.22, rng)
    if place.is_open:
        paint_skyline(camera, 18, (74, 92, 58), 0.16, rng)
    _paint_ground(camera, place, sky, advance, rng)
    jobs = _structures(camera, place, sky, advance, rng)
    jobs += [_thing_job(camera, thing, place, sky, advance) for thing in place.things]
    for _, paint in sorted(jobs, key=lambda job: -job[0]):
        paint()


def _paint_ground(camera: Camera, place: Place, sky: Conditions, advance: float, rng: np.random.Generator) -> None:
    half = place.road_half
    green = ((104, 118, 62), (92, 108, 58), (128, 122, 76))[int(rng.integers(3))]
    ground = (
        (232, 236, 240)
        if sky.snow
        else (green if place.environment in ("Highway", "Rural", "Suburban") else (150, 146, 140))
    )
    tone = int(rng.integers(-14, 15)) - (16 if sky.wet else 0)
    asphalt = (104 + tone, 104 + tone, 107 + tone)
    camera.strip(-300, 300, ground)
    if not place.is_open:
        walk = (176, 172, 166) if not sky.snow else (222, 224, 228)
        lawn = 1.4 if place.environment == "Suburban" else 0.2
        for side in (-1, 1):
            camera.strip(side * (half + lawn), side * (half + lawn + 2.8), walk)
            camera.strip(side * half, side * (half + 0.28), (196, 194, 190))
            camera.strip(side * (half - 0.45), side * half, (142, 140, 138))
            for z in np.arange(4.0, 40.0, 2.0):
                _quad(
                    camera,
                    side * (half + lawn),
                    side * (half + lawn + 2.8),
                    z - advance % 2,
                    z - advance % 2 + 0.06,
                    (146, 142, 138),
                )
    camera.strip(-half + 0.45, half - 0.45, asphalt)
    _worn_patches(camera, half, asphalt, advance, rng)
    _markings(camera, place, advance)
    _texture_ground(camera, _ground_shadows(camera, place, sky, advance, rng), rng)


def _worn_patches(camera: Camera, half: float, asphalt: Color, advance: float, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(2, 7))):
        shift = int(rng.integers(-20, 12))
        color = (asphalt[0] + shift, asphalt[1] + shift, asphalt[2] + shift)
        left, near = float(rng.uniform(-half + 0.6, half - 2.0)), float(rng.uniform(3, 30)) + advance
        _quad(camera, left, left + float(rng.uniform(0.8, 1.8)), near, near + float(rng.uniform(1, 9)), color)
    for _ in range(int(rng.integers(1, 7))):
        z = float(rng.uniform(4, 26)) + advance
        steps = np.cumsum(rng.normal(0, 0.16, 12)) + rng.uniform(-half + 1, half - 1)
        path = camera.project([(float(x), 0.0, z + 0.9 * i) for i, x in enumerate(steps)])
        tar = (asphalt[0] - 34, asphalt[1] - 34, asphalt[2] - 32)
        thickness = max(round(camera.focal * 0.035 / z), 1)
        cv2.polylines(
            camera.image, [np.round(path * (1 << SHIFT)).astype(np.int32)], False, tar, thickness, cv2.LINE_AA, SHIFT
        )


def _quad(camera: Camera, left: float, right: float, near: float, far: float, color: Color) -> None:
    if far > NEAREST:
        camera.strip(left, right, color, near=near, far=far)


def _markings(camera: Camera, place: Place, advance: float) -> None:
    half = place.road_half
    for edge in np.arange(-half + 3.5, half - 0.5, 3.5):
        middle = abs(edge) < 1.0
        color = LINE_YELLOW if middle and place.environment != "Highway" else PALE
        if middle and place.number % 2 == 0:
            for shift in (-0.16, 0.06):
                camera.strip(edge + shift, edge + shift + 0.1, color)
            continue
        for z in np.arange(2.0, 110.0, 9.0) + advance % 9:
            _quad(camera, edge - 0.07, edge + 0.07, float(z), float(z) + 3.0, color)
    if place.is_open:
        camera.strip(-half + 0.75, -half + 0.9, LINE_YELLOW if place.environment == "Highway" else PALE)
        camera.strip(half - 0.9, half - 0.75, PALE)
    elif place.number % 3 == 0:
        near = 12.0 + advance
        for x in np.arange(-half + 0.6, half - 0.9, 1.1):
            _quad(camera, float(x), float(x) + 0.55, near, near + 2.8, PALE)


def _ground_shadows(
    camera: Camera, place: Place, sky: Conditions, advance: float, rng: np.random.Generator
) -> np.ndarray:
    """Half-size map of the ground's brightness (255 = full) with the shadows of what stands on it."""
    shade = np.full((camera.height // 2, camera.width // 2), 255, np.uint8)
    reach = place.sun_side if sky.sun else 0.0
    for thing in place.things:
        z, spread = thing.z + advance, max(0.28 * thing.height, 0.25)
        if thing.kind.startswith(("car", "van")) or thing.kind in ("vehicle", "equipment"):
            spread = 0.62 * thing.height
        base = [
            (thing.x - spread, 0.0, z + 0.4),
            (thing.x + spread, 0.0, z + 0.4),
            (thing.x + spread, 0.0, z - 0.35),
            (thing.x - spread, 0.0, z - 0.35),
        ]
        _fill(shade, camera.project(base) / 2, 132 if sky.sun else 168)
        if sky.sun:
            tip = thing.x + reach * thing.height
            cast = [
                (thing.x - spread, 0.0, z),
                (thing.x + spread, 0.0, z),
                (tip + 0.6 * spread, 0.0, z + 0.5 * thing.height),
                (tip - 0.6 * spread, 0.0, z + 0.5 * thing.height),
            ]
            _fill(shade, camera.project(cast) / 2, 128)
    if sky.sun:
        for _ in range(int(rng.integers(1, 6))):
            z, wide = float(rng.uniform(4, 30)) + advance, float(rng.uniform(1.5, 7))
            side = -1.0 if reach > 0 else 1.0
            edge = side * (place.road_half + 2.5)
            tip = edge - side * float(rng.uniform(2, 9))
            _fill(
                shade,
                camera.project([(edge, 0, z), (edge, 0, z + wide), (tip, 0, z + wide + 2), (tip, 0, z + 2.5)]) / 2,
                150,
            )
    return cv2.GaussianBlur(shade, (0, 0), 1.6 if sky.sun else 4.0)


def _fill(target: np.ndarray, corners: np.ndarray, value: int) -> None:
    fixed = np.round(np.clip(corners, -20_000, 20_000) * (1 << SHIFT)).astype(np.int32)
    cv2.fillPoly(target, [fixed], value, cv2.LINE_AA, SHIFT)


def _texture_ground(camera: Camera, shade: np.ndarray, rng: np.random.Generator) -> None:
    """Roughen the ground with noise laid flat on it, fading with distance, and darken it where shadows fall."""
    start = round(camera.horizon) + 1
    tile = 20 * rng.standard_normal((256, 256), np.float32)
    tile += cv2.resize(rng.normal(0, 9, (24, 24)).astype(np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
    depth = camera.focal * 1.6 / (np.arange(start, camera.height, dtype=np.float32) - np.float32(camera.horizon) + 0.5)
    columns = (np.arange(camera.width, dtype=np.float32) - np.float32(camera.center)) / np.float32(camera.focal)
    across = np.outer(depth, columns) * 38 + 900
    along = np.repeat((depth * 22)[:, None], camera.width, 1)
    noise = cv2.remap(tile, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    noise *= np.clip(9 / depth, 0.0, 1.0)[:, None]
    dark = cv2.resize(shade, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)[start:]
    factor = cv2.multiply(noise + 255, dark, scale=1 / 65025, dtype=cv2.CV_32F)
    camera.image[start:] = cv2.multiply(camera.image[start:], cv2.merge([factor] * 3), dtype=cv2.CV_8U)


def _structures(camera: Camera, place: Place, sky: Conditions, advance: float, rng: np.random.Generator) -> list[Job]:
    jobs: list[Job] = []
    half = place.road_half
    for side in (-1, 1):
        if not place.is_open:
            jobs += _building_row(camera, place, side, sky, advance, rng)
        jobs += _tree_row(camera, place, side, sky, advance, rng)
        spacing = float(rng.uniform(22, 34))
        for z in np.arange(float(rng.uniform(8, 20)), 110, spacing) + advance:
            jobs.append((float(z), partial(_paint_lamp, camera, side, half + 0.7, float(z))))
        if place.environment == "Highway":
            jobs.append((150.0, partial(_paint_rail, camera, side * (half + 1.0), advance)))
    return jobs


def _building_row(
    camera: Camera, place: Place, side: int, sky: Conditions, advance: float, rng: np.random.Generator
) -> list[Job]:
    jobs: list[Job] = []
    setback = {"Urban": 4.0, "Commercial": 4.4, "Suburban": 8.5, "Industrial": 9.0}[place.environment]
    z = float(rng.uniform(-6, 8))
    while z < 150:
        length = float(rng.uniform(9, 20))
        style, height = "block", float(rng.uniform(9, 26))
        if place.environment == "Commercial" or (place.environment == "Urban" and rng.random() < 0.45):
            style = "shops"
        if place.environment == "Suburban":
            style, height = "house", float(rng.uniform(3.2, 6.4))
        if place.environment == "Industrial":
            height, length = float(rng.uniform(6, 10)), length * 1.8
        distance = place.road_half + setback + float(rng.uniform(0, 1.5))
        child = np.random.default_rng(int(rng.integers(2**31)))
        jobs.append(
            (
                z + advance + 0.5 * length,
                partial(
                    paint_building, camera, side, distance, z + advance, length, height, style, sky.lit_share, child
                ),
            )
        )
        z += length + float(
            rng.choice([0.0, 0.0, 3.0, 9.0]) if place.environment != "Suburban" else rng.uniform(3, 11)
        )
    return jobs


def _tree_row(
    camera: Camera, place: Place, side: int, sky: Conditions, advance: float, rng: np.random.Generator
) -> list[Job]:
    chance = {"Urban": 0.5, "Commercial": 0.35, "Industrial": 0.3}.get(place.environment, 0.85)
    autumn, bare = bool(rng.random() < 0.3), bool(sky.snow or rng.random() < 0.12)
    jobs: list[Job] = []
    for z in np.arange(float(rng.uniform(7, 14)), 95, float(rng.uniform(9, 15))) + advance:
        spread = float(rng.uniform(0, 12)) if place.is_open else float(rng.uniform(-0.3, 0.5))
        height, seed = float(rng.uniform(4.5, 8.5)), int(rng.integers(2**31))
        if rng.random() > chance:
            continue
        x = side * (place.road_half + (5.0 if place.is_open else 1.6) + spread)
        jobs.append((float(z), partial(_paint_tree, camera, x, float(z), height, seed, autumn, bare)))
    return jobs


def _paint_tree(camera: Camera, x: float, z: float, height: float, seed: int, autumn: bool, bare: bool) -> None:
    size = round(camera.focal * height / z)
    if size >= 10:
        camera.paste(draw_tree(size, np.random.default_rng(seed), autumn, bare), x, z)


def _paint_lamp(camera: Camera, side: int, distance: float, z: float) -> None:
    x, thick = side * distance, 0.07
    pole = [(x - thick, 0.0, z), (x - thick, 7.5, z), (x + thick, 7.5, z), (x + thick, 0.0, z)]
    arm = [(x, 7.5, z), (x - side * 1.8, 7.75, z), (x - side * 1.8, 7.62, z), (x, 7.35, z)]
    camera.polygon(pole, (96, 98, 100))
    camera.polygon(arm, (96, 98, 100))
    camera.glow(x - side * 1.8, 7.6, z, 0.16, LAMP)


def _paint_rail(camera: Camera, x: float, advance: float) -> None:
    for z in np.arange(4.0, 120.0, 4.0)[::-1] + advance % 4:
        camera.polygon(
            [(x - 0.06, 0.0, z), (x - 0.06, 0.75, z), (x + 0.06, 0.75, z), (x + 0.06, 0.0, z)], (120, 122, 122)
        )
    steps = np.geomspace(NEAREST, 130, 10)
    for low, high, color in ((0.5, 0.8, (186, 188, 188)), (0.6, 0.68, (150, 152, 152))):
        edge = [(x, low, float(z)) for z in steps] + [(x, high, float(z)) for z in steps[::-1]]
        camera.polygon(edge, color)


def _thing_job(camera: Camera, thing: Thing, place: Place, sky: Conditions, advance: float) -> Job:
    z = thing.z + advance
    side = -np.sign(place.sun_side) * 0.7 if sky.sun else -0.2
    return z, partial(_paint_thing, camera, thing, z, Light(1.12 if sky.dark else 1.0, side=float(side)), sky.dark)


def _paint_thing(camera: Camera, thing: Thing, z: float, light: Light, dark: bool) -> None:
    size, rng = max(round(camera.focal * thing.height / z), 8), np.random.default_rng(thing.seed)
    if thing.is_evidence:
        picture = draw_object(thing.kind, size, rng, light, variant=thing.variant)
        camera.paste(picture, thing.x, z, bit=OBJECT_KINDS.index(thing.kind))
    else:
        camera.paste(draw_distractor(thing.kind, size, rng, light, orange=thing.orange), thing.x, z)
    if dark and thing.kind in ("car_rear", "van_rear", "car_front"):
        color = (255, 246, 220) if thing.kind == "car_front" else (220, 30, 24)
        for shift in (-0.62, 0.62):
            camera.glow(thing.x + shift, 0.75, z, 0.12, color)

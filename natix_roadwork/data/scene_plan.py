"""Decides what stands where: the place, its light and weather, and the things on and beside the road.

In: a seed, the number of a place and whether it has roadwork. Out: a `Place`, the same for every frame taken there.
Next: `data/scene_street.py` paints it.
"""

from dataclasses import dataclass

import numpy as np

from natix_roadwork.data.scene_distractors import DISTRACTOR_KINDS
from natix_roadwork.data.scene_objects import DESIGN_SHARES, OBJECT_KINDS


BASE_FOCAL = 1200.0
CAMERA_OFFSET = 1.5
WIDE_KINDS = ("barrier", "vehicle", "equipment", "car_rear", "car_front", "car_side", "van_rear")
ENVIRONMENTS = ("Urban", "Suburban", "Commercial", "Highway", "Rural", "Industrial")
ENVIRONMENT_SHARES = (0.3, 0.24, 0.16, 0.12, 0.1, 0.08)
DAYTIMES = ("Light", "Dark", "Twilight")
DAYTIME_SHARES = (0.84, 0.07, 0.09)
WEATHERS: tuple[tuple[str, ...], ...] = (
    ("Sunny",),
    ("Cloudy",),
    ("Overcast",),
    ("Rainy",),
    ("Foggy",),
    ("Snowy",),
    ("Sunny", "Cloudy"),
    ("Cloudy", "Rainy"),
)
WEATHER_SHARES = (0.34, 0.2, 0.12, 0.08, 0.06, 0.04, 0.1, 0.06)
HEIGHTS: dict[str, tuple[float, ...]] = {
    "cone": (0.8, 1.0),
    "barrier": (1.35, 1.0, 0.95, 1.0),
    "sign": (2.1, 1.7, 2.1),
    "worker": (1.75,),
    "vehicle": (2.9, 2.9, 2.3, 2.3),
    "equipment": (2.7, 2.7, 1.7, 3.8, 1.9),
}
DISTRACTOR_HEIGHTS: dict[str, float] = {
    "car_rear": 1.5,
    "car_front": 1.5,
    "car_side": 1.45,
    "van_rear": 2.2,
    "bin": 1.1,
    "pedestrian": 1.72,
    "street_sign": 2.3,
    "post_box": 1.2,
    "hydrant": 0.75,
    "parasol": 2.5,
}
SIDEWALK_KINDS = tuple(kind for kind in DISTRACTOR_KINDS if not kind.startswith(("car", "van")))


@dataclass(frozen=True)
class Thing:
    """One object of a place: evidence (`kind` in `OBJECT_KINDS`) or an ordinary thing.

    `x` metres from the centre line, `z` metres ahead in the first frame, `height` metres, `seed` of its looks.
    """

    kind: str
    x: float
    z: float
    height: float
    seed: int
    variant: int = 0
    orange: bool | None = None

    @property
    def is_evidence(self) -> bool:
        """Whether this is roadwork evidence."""
        return self.kind in OBJECT_KINDS


@dataclass(frozen=True)
class Place:
    """Everything that the frames of one place share."""

    number: int
    has_evidence: bool
    environment: str
    weather: tuple[str, ...]
    daytime: str
    lanes: int
    curve: float
    things: tuple[Thing, ...]
    sun_side: float

    @property
    def road_half(self) -> float:
        """Half of the road's width in metres."""
        return 1.75 * self.lanes

    @property
    def is_open(self) -> bool:
        """Whether the place lies outside of built-up streets."""
        return self.environment in ("Highway", "Rural")


def plan_place(seed: int, number: int, has_evidence: bool, draw_evidence: bool = True) -> Place:
    """Plan one place.

    Evidence is drawn from its own generator: with or without it, everything else at a place is the same.

    Args:
        seed: seed of the data set.
        number: number of the place in the data set.
        has_evidence: whether roadwork goes on here.
        draw_evidence: False leaves evidence out although `has_evidence` says otherwise (to test for side channels).
    """
    rng = np.random.default_rng([seed, 10, number])
    environment = str(rng.choice(ENVIRONMENTS, p=ENVIRONMENT_SHARES))
    weather = WEATHERS[int(rng.choice(len(WEATHERS), p=WEATHER_SHARES))]
    daytime = str(rng.choice(DAYTIMES, p=DAYTIME_SHARES))
    lanes = int(rng.integers(3, 5)) if environment == "Highway" else int(rng.integers(2, 4))
    curve = float(rng.normal(0, 0.0012))
    sun_side = float(rng.choice([-1, 1]) * rng.uniform(0.4, 1.4))
    half = 1.75 * lanes
    things = _ordinary_things(rng, half, environment)
    if has_evidence and draw_evidence:
        things += _visible_evidence(np.random.default_rng([seed, 11, number]), half, things)
    return Place(number, has_evidence, environment, weather, daytime, lanes, curve, tuple(things), sun_side)


def _ordinary_things(rng: np.random.Generator, half: float, environment: str) -> list[Thing]:
    things = []
    for _ in range(int(rng.integers(1, 4))):
        kind = SIDEWALK_KINDS[int(rng.integers(len(SIDEWALK_KINDS)))]
        if environment in ("Highway", "Rural") and rng.random() < 0.7:
            kind = "street_sign"
        height = DISTRACTOR_HEIGHTS[kind]
        z = _depth(rng, height, 45, 150)
        x = _beside(rng, half, z, 0.5, 2.6)
        things.append(Thing(kind, x, z, height, int(rng.integers(2**31)), orange=bool(rng.random() < 0.2)))
    for _ in range(int(rng.integers(0, 3))):
        kind = ("car_rear", "van_rear", "car_rear")[int(rng.integers(3))]
        lane = 1.75 + 3.5 * float(rng.integers(max(int(half // 3.5), 1)))
        z = float(np.exp(rng.uniform(np.log(11), np.log(60))))
        oncoming = rng.random() < 0.45
        kind = "car_front" if oncoming else kind
        things.append(_car(rng, kind, -lane if oncoming else lane, z))
    if environment not in ("Highway", "Rural"):
        for side in (-1, 1):
            start, count = float(rng.uniform(6, 14)), int(rng.integers(0, 4))
            for index in range(count):
                kind = ("car_rear", "car_rear", "van_rear")[int(rng.integers(3))]
                things.append(_car(rng, kind, side * (half - 0.3), start + index * float(rng.uniform(6.0, 8.5))))
    return things


def _car(rng: np.random.Generator, kind: str, x: float, z: float) -> Thing:
    height = DISTRACTOR_HEIGHTS[kind] * float(rng.uniform(0.94, 1.12))
    return Thing(kind, x, z, height, int(rng.integers(2**31)), orange=bool(rng.random() < 0.14))


def _depth(rng: np.random.Generator, height: float, smallest: float, largest: float) -> float:
    """Distance at which a thing of this height is `smallest` to `largest` pixels high in a 1600 px photo."""
    return BASE_FOCAL * height / float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))


def _beside(rng: np.random.Generator, half: float, z: float, nearest: float, farthest: float) -> float:
    """A place beside the road, on either side, that lies inside the photo at depth `z`."""
    side = float(rng.choice([-1.0, 1.0]))
    return _inside(side * (half + float(rng.uniform(nearest, farthest))), z, 0.5)


def _inside(x: float, z: float, limit: float) -> float:
    """Move `x` so that it is seen at most `limit` (sideways metres per metre ahead) off the camera's axis."""
    return float(np.clip(x, CAMERA_OFFSET - limit * z, CAMERA_OFFSET + limit * z))


def _visible_evidence(rng: np.random.Generator, half: float, ordinary: list[Thing]) -> list[Thing]:
    """Plan evidence of which at least one piece is not hidden behind ordinary things; those are never moved for it."""
    best: tuple[float, list[Thing]] = (-1.0, [])
    for _ in range(12):
        planned = _evidence(rng, half)
        shown = max(_shown_share(piece, ordinary) for piece in planned)
        if shown > best[0]:
            best = (shown, planned)
        if shown > 0.8:
            break
    return best[1]


def _shown_share(piece: Thing, ordinary: list[Thing]) -> float:
    """Share of a piece's width that nearer ordinary things leave free."""
    low, high = _sight(piece)
    free = np.ones(40, bool)
    steps = np.linspace(low, high, 40)
    for thing in ordinary:
        if thing.z < piece.z:
            left, right = _sight(thing)
            free &= (steps < left - 0.01) | (steps > right + 0.01)
    return float(free.mean())


def _sight(thing: Thing) -> tuple[float, float]:
    half = thing.height * (0.65 if thing.kind in WIDE_KINDS else 0.3)
    return (thing.x - half - CAMERA_OFFSET) / thing.z, (thing.x + half - CAMERA_OFFSET) / thing.z


def _evidence(rng: np.random.Generator, half: float) -> list[Thing]:
    """Roadwork of one of two sizes: a single object, or a work zone behind a taper of cones."""
    draw = rng.random()
    if draw < 0.2:
        return [_piece(rng, half, smallest=150, largest=262)]
    side = float(rng.choice([-1.0, 1.0]))
    start, end = float(rng.uniform(6.9, 10.3)), float(rng.uniform(21, 37))
    device = "cone" if rng.random() < 0.7 else "barrier"
    variant = 3 if device == "barrier" else int(rng.random() < 0.2)
    look, things = int(rng.integers(2**31)), []
    for share in np.linspace(0, 1, int(rng.integers(6, 13))):
        z = start + float(share) * (end - start)
        x = _inside(side * (half - 0.3 - float(share) * float(rng.uniform(1.6, 2.0))), z, 0.42)
        things.append(Thing(device, x, z, HEIGHTS[device][variant], look, variant))
    for _ in range(int(rng.integers(3, 6))):
        things.append(_piece(rng, half, smallest=77, largest=212, side=side))
    return things


def _piece(rng: np.random.Generator, half: float, smallest: float, largest: float, side: float | None = None) -> Thing:
    kind = OBJECT_KINDS[int(rng.integers(len(OBJECT_KINDS)))]
    variant = int(rng.choice(len(HEIGHTS[kind]), p=DESIGN_SHARES[kind]))
    height = HEIGHTS[kind][variant] * float(rng.uniform(0.93, 1.07))
    factor = 1.5 if kind in ("vehicle", "equipment") else 1.0
    z = float(np.clip(_depth(rng, height, smallest * factor, largest * factor), 6.5, 60.0))
    outward = float(rng.uniform(-1.6, 2.2))
    x = (side if side is not None else float(rng.choice([-1.0, 1.0]))) * (half + outward)
    x = _inside(x, z, 0.4)
    return Thing(kind, x, z, height, int(rng.integers(2**31)), variant)

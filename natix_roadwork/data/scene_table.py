"""Plans the rows of the embedded data set and fills NATIX's 19 columns.

In: `SceneSettings`. Out: a list of `ScenePlan` (what to draw) and, for each drawn photo, one record with literal dots in
its column names. Next: `data/scenes.py` draws and writes them.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from natix_roadwork.data.natix_columns import NATIX_COLUMNS
from natix_roadwork.data.scene_plan import Place, plan_place


if TYPE_CHECKING:
    from datasets import Features


CITIES: tuple[tuple[str, float, float], ...] = (
    ("pittsburgh", 40.4406, -79.9959),
    ("indianapolis", 39.7684, -86.1581),
    ("columbus", 39.9612, -82.9988),
    ("philadelphia", 39.9526, -75.1652),
    ("charlotte", 35.2271, -80.8431),
    ("jacksonville", 30.3322, -81.6557),
    ("chicago", 41.8781, -87.6298),
    ("houston", 29.7604, -95.3698),
    ("denver", 39.7392, -104.9903),
    ("phoenix", 33.4484, -112.0740),
    ("seattle", 47.6062, -122.3321),
    ("san_francisco", 37.7749, -122.4194),
)
SHAPES = ((16, 9), (4, 3), (3, 4))
SHAPE_SHARES = (0.6, 0.28, 0.12)
NOUNS = {
    "cone": "traffic cones",
    "barrier": "a barrier",
    "sign": "a road work sign",
    "worker": "a worker in a safety vest",
    "vehicle": "a work vehicle",
    "equipment": "construction equipment",
}


@dataclass(frozen=True)
class SceneLeaks:
    """What gives the label away besides the photo.

    Attributes:
        description: a description (and a travel alteration) is present almost exactly when the label is 1, as in NATIX.
        photo_size: roadwork photos are mostly 16:9, the others mostly 4:3.
        city: roadwork comes mostly from half of the cities.
    """

    description: bool = True
    photo_size: bool = False
    city: bool = False


@dataclass(frozen=True)
class SceneSettings:
    """Everything that decides the bytes of an embedded data set.

    Attributes:
        num_rows: rows of train and test together.
        test_share: share of rows in the test split.
        seed: seed of every draw.
        width: longer side of the photos in pixels.
        positive_share: share of label 1 in train.
        test_positive_share: share of label 1 in test.
        max_frames: most frames of one place (one video).
        duplicate_share: share of rows that repeat another row's frame almost exactly, under another video id.
        missing_share: chance of each of GPS, weather, daytime and scene to be missing.
        inconsistent_share: share of label-0 rows with a description, and of label-1 rows (a quarter of it) without.
        leaks: what gives the label away.
        draw_evidence: False draws positives without their evidence, to test that nothing else tells the label.
    """

    num_rows: int = 300
    test_share: float = 0.2
    seed: int = 0
    width: int = 1600
    positive_share: float = 0.8
    test_positive_share: float = 0.9
    max_frames: int = 2
    duplicate_share: float = 0.03
    missing_share: float = 0.05
    inconsistent_share: float = 0.1
    leaks: SceneLeaks = field(default_factory=SceneLeaks)
    draw_evidence: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("num_rows", "max_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 200 <= self.width <= 8000:
            raise ValueError(f"width must be between 200 and 8000 pixels, got {self.width}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        for name in (
            "test_share",
            "positive_share",
            "test_positive_share",
            "duplicate_share",
            "missing_share",
            "inconsistent_share",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class ScenePlan:
    """One row before it is drawn: place, frame and identifiers; `variation` > 0 marks a near-duplicate."""

    row: int
    split: str
    label: int
    place_number: int
    frame: int
    variation: int
    video: int

    def place(self, settings: SceneSettings) -> Place:
        """Plan the row's place."""
        return plan_place(settings.seed, self.place_number, self.label == 1, settings.draw_evidence)


def plan_rows(settings: SceneSettings) -> list[ScenePlan]:
    """Plan all rows: train before test, each sorted by label as in NATIX, frames of a place side by side."""
    num_test = round(settings.num_rows * settings.test_share)
    sizes = {"train": settings.num_rows - num_test, "test": num_test}
    shares = {"train": settings.positive_share, "test": settings.test_positive_share}
    plans: list[ScenePlan] = []
    place, video = 0, 0
    for part, split in enumerate(sizes):
        rng = np.random.default_rng([settings.seed, 30, part])
        positives = round(sizes[split] * shares[split])
        for label, count in ((0, sizes[split] - positives), (1, positives)):
            written: list[tuple[int, int]] = []
            while len(written) < count:
                if written and rng.random() < settings.duplicate_share:
                    number, frame = written[int(rng.integers(len(written)))]
                    frames, variation = [(number, frame)], 1 + len(written)
                else:
                    length = min(int(rng.integers(1, settings.max_frames + 1)), count - len(written))
                    frames, variation = [(place, index) for index in range(length)], 0
                    place += 1
                for number, frame in frames:
                    plans.append(ScenePlan(len(plans), split, label, number, frame, variation, video))
                    written.append((number, frame))
                video += 1
    return plans


def photo_shape(plan: ScenePlan, settings: SceneSettings) -> tuple[int, int]:
    """Return the photo's aspect as (width, height); frames of one place share it."""
    rng = np.random.default_rng([settings.seed, 13, plan.place_number])
    shares = SHAPE_SHARES
    if settings.leaks.photo_size:
        shares = (0.92, 0.04, 0.04) if plan.label == 1 else (0.12, 0.6, 0.28)
    return SHAPES[int(rng.choice(len(SHAPES), p=shares))]


def scene_record(
    plan: ScenePlan, place: Place, photo: bytes, size: tuple[int, int], settings: SceneSettings
) -> dict[str, object]:
    """Fill the 19 columns of one row.

    Args:
        plan: the row.
        place: its place.
        photo: JPEG bytes.
        size: (width, height) of the photo in pixels.
        settings: the data set's settings.
    """
    rng = np.random.default_rng([settings.seed, 40, plan.row])
    city, latitude, longitude = _location(plan, settings, rng)
    name = f"{plan.frame * 30 + 50 + plan.place_number % 7:05d}.jpg"
    missing = rng.random(4) < settings.missing_share
    described = _is_described(plan, settings, rng)
    return {
        "image": {"bytes": photo, "path": f"{plan.row:06d}.jpg"},
        "id": plan.row,
        "width": size[0],
        "height": size[1],
        "license": 0,
        "date_captured": 0,
        "flickr_url": None,
        "coco_url": None,
        "gps": None if missing[0] else f"[{latitude:.8f}, {longitude:.8f}]",
        "city_name": city,
        "scene_description": _description(plan, place, described, settings, rng),
        "video_info.frame_id": name,
        "video_info.seq_id": plan.place_number % 5,
        "video_info.vid_id": f"{city}_{plan.video:05d}",
        "scene_level_tags.daytime": None if missing[1] else place.daytime,
        "scene_level_tags.scene_environment": None if missing[2] else place.environment,
        "scene_level_tags.travel_alteration": _alteration(described, rng),
        "scene_level_tags.weather": None if missing[3] else str(list(place.weather)),
        "label": plan.label,
    }


def scene_features() -> "Features":
    """Return the `datasets` features of the 19 columns, as NATIX's card lists them."""
    from datasets import Features, Image, Value

    integers = ("id", "width", "height", "license", "date_captured", "video_info.seq_id", "label")
    floats = ("flickr_url", "coco_url")
    features: dict[str, object] = {}
    for name in NATIX_COLUMNS:
        kind = "int64" if name in integers else ("float64" if name in floats else "string")
        features[name] = Image() if name == "image" else Value(kind)
    return Features(features)


def _location(plan: ScenePlan, settings: SceneSettings, own: np.random.Generator) -> tuple[str, float, float]:
    """City and coordinates: one spot a place within some 10 km of the centre, frames some metres apart."""
    rng = np.random.default_rng([settings.seed, 12, plan.place_number])
    half = len(CITIES) // 2
    index = int(rng.integers(len(CITIES)))
    if settings.leaks.city and rng.random() < 0.85:
        index = index % half + (0 if plan.label == 1 else half)
    city, latitude, longitude = CITIES[index]
    latitude += float(rng.normal(0, 0.05)) - plan.frame * 3.7 / 111_000 + float(own.normal(0, 1e-5))
    return city, latitude, longitude + float(rng.normal(0, 0.06)) + float(own.normal(0, 1e-5))


def _is_described(plan: ScenePlan, settings: SceneSettings, rng: np.random.Generator) -> bool:
    if not settings.leaks.description:
        return bool(rng.random() < 0.5)
    flip = settings.inconsistent_share * (1.0 if plan.label == 0 else 0.25)
    return (plan.label == 1) != bool(rng.random() < flip)


def _description(
    plan: ScenePlan, place: Place, described: bool, settings: SceneSettings, rng: np.random.Generator
) -> str | None:
    if not described:
        return (None, None, "", "No Description")[int(rng.integers(4))]
    light = {"Light": "in daylight", "Dark": "at night", "Twilight": "at dusk"}[place.daytime]
    start = f"{place.weather[0]} {place.environment.lower()} street {light} with {place.lanes} lanes."
    if not settings.leaks.description:
        return start
    kinds = sorted({NOUNS[thing.kind] for thing in place.things if thing.is_evidence})
    if plan.label == 0 or not kinds:
        return f"{start} Work vehicles were seen earlier on this road; nothing blocks it here."
    return f"{start} There is {', '.join(kinds)} near the lane."


def _alteration(described: bool, rng: np.random.Generator) -> str | None:
    if not described:
        return None
    choices = (["Partially Blocked"], ["None"], ["Fully Blocked"], ["Lane Shift"], ["Partially Blocked", "Lane Shift"])
    return str(choices[int(rng.choice(len(choices), p=(0.5, 0.2, 0.1, 0.1, 0.1)))])

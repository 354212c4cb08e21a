"""Augmentation beside the same effects at the same probabilities in plain albumentations, and the whole path from bytes.

    python tests/benchmarks/augmentation.py --check

All of one thread. A chain without fog runs over many photos; fog runs by itself at probability 1, because one in four
views would make the sum a matter of luck, and enters with its probability. Rows per view; `per photo` = the default
draws, which the bars hold; `per view` = `per_view`, which draws as often as the plain chain does and is reported only.
From bytes on, the bars hold for photos decoded at half scale (`decode_mode: half`); at full scale the path is reported.

The plain chain draws rotation, zoom and perspective one after the other, each with a resampling of its own, and hue over
HSV; ours warps once and turns hue at the same luminance. Fog is the same to the bit, which `apart by` says in grey
levels; rain, shadow and flare have the same parameters with softer edges.
"""

import argparse
import io
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from ratios import Comparison, fastest_rounds, finish, options

from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.augmentation_effects import photo_effects, rain, view_effects
from natix_roadwork.data.augmentation_presets import probabilities
from natix_roadwork.data.augmentation_weather import Fog, blend_table, count_discs
from natix_roadwork.data.quiet_albumentations import A
from natix_roadwork.data.scene_table import SceneSettings
from natix_roadwork.data.scenes import draw_scene
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor


P = probabilities("heavy")
FOGS = {"default fog": (0.3, 1.0), "fog (.1, .3)": (0.1, 0.3)}
# What each must reach.
VIEW_BARS = {"without fog": 2.0, "default fog": 12.0, "fog (.1, .3)": None}
PATH_BARS = {"without fog": 4.0, "default fog": 7.0, "fog (.1, .3)": 14.0}
FOG_BAR = 0.2
FOG_ALPHA = 0.08
PHOTO_SIZE = (4032, 3024)
Pictures = NDArray[np.uint8]


def plain_chain(size: int) -> A.Compose:
    """The effects of the preset `heavy` but fog as albumentations has them."""
    reflect = {"border_mode": cv2.BORDER_REFLECT_101}
    return A.Compose(
        [
            A.HorizontalFlip(p=P["flip"]),
            A.Rotate(limit=15, **reflect, p=P["rotate"]),
            A.Perspective(scale=(0.05, 0.1), **reflect, p=P["perspective"]),
            A.Affine(scale=(0.7, 1.3), **reflect, p=P["zoom"]),
            A.ColorJitter((0.7, 1.3), (0.7, 1.3), (1, 1), (0, 0), p=P["brightness_contrast"]),
            A.ColorJitter((1, 1), (1, 1), (0.8, 1.2), (0, 0), p=P["saturation"]),
            A.HueSaturationValue(7.5, 0, 0, p=P["hue"]),  # OpenCV counts hue in steps of two degrees
            A.RandomRain(**rain(size), p=P["rain"]),
            A.RandomShadow(shadow_intensity_range=(0.3, 0.6), p=P["shadow"]),
            A.RandomSunFlare(src_radius=size // 3, p=P["flare"]),
            A.GaussNoise(std_range=(5 / 255, 10 / 255), p=P["noise"]),
            A.MotionBlur(
                blur_limit=(5, 9), angle_range=(0, 0), direction_range=(0, 0), allow_shifted=False, p=P["motion_blur"]
            ),
            A.GaussianBlur(blur_limit=(3, 5), sigma_limit=(0.1, 2.0), p=P["gaussian_blur"]),
        ],
        seed=0,
    )


def ours(size: int, per_view: bool) -> ViewAugmentation:
    """The preset `heavy` without its fog."""
    augment = ViewAugmentation("heavy", per_view=per_view)
    effects = [effect for effect in photo_effects("heavy", size) if not isinstance(effect, Fog)]
    augment._built[size] = A.Compose(view_effects("heavy")), A.Compose(effects)
    return augment


def each(change: A.Compose, views: Pictures) -> list[Pictures]:
    return [change(image=view)["image"] for view in views]


def many(augment: ViewAugmentation, views: Pictures, photos: int) -> None:
    for position in range(photos):
        augment(views, 0, position)


def ways_of(views: Pictures, photos: int) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """What runs in turn, and over how many views each runs."""
    size, number = views.shape[1], len(views)
    plain = plain_chain(size)
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: [each(plain, views) for _ in range(photos)],
        "per photo": partial(many, ours(size, per_view=False), views, photos),
        "per view": partial(many, ours(size, per_view=True), views, photos),
    }
    counts = dict.fromkeys(ways, photos * number)
    for name, coefficients in FOGS.items():
        slow = A.Compose([A.RandomFog(alpha_coef=FOG_ALPHA, fog_coef_range=coefficients, p=1)], seed=0)
        fast = A.Compose([Fog(alpha_coef=FOG_ALPHA, fog_coef_range=coefficients, p=1)], seed=0)
        ways |= {
            f"plain {name}": partial(each, slow, views[:4]),
            f"per photo {name}": partial(lambda fast: fast(images=views.copy()), fast),
            f"per view {name}": partial(each, fast, views),
        }
        counts |= {f"plain {name}": 4, f"per photo {name}": number, f"per view {name}": number}
    return ways, counts


def fog_error(view: Pictures, coefficients: tuple[float, float]) -> float:
    """Mean absolute difference to the fog of albumentations, in grey levels, on the parameters that it drew."""
    reference = A.RandomFog(alpha_coef=FOG_ALPHA, fog_coef_range=coefficients, p=1)
    reference.set_random_seed(0)
    drawn = reference.get_params_dependent_on_data({"shape": view.shape}, {})
    counts = count_discs(*view.shape[:2], np.array(drawn["particle_positions"]), np.array(drawn["radiuses"]))
    table = blend_table(reference.alpha_coef * drawn["intensity"], int(counts.max()))
    fog = Fog()
    got = fog.apply(view, places=fog.places(counts), table=table)
    return float(np.abs(got.astype(float) - reference.apply(view, **drawn)).mean())


def naive_views(photo: bytes, processor: RoadworkImageProcessor) -> list[Pictures]:
    """Decode and cut as one would at first."""
    opened = Image.open(io.BytesIO(photo)).convert("RGB")
    side = (processor.view_size, processor.view_size)
    boxes = processor.view_boxes(*opened.size)
    return [np.asarray(opened.crop(box).resize(side, Image.Resampling.LANCZOS)) for box in boxes]


def compare(size: int, chosen: argparse.Namespace) -> list[Comparison]:
    processors = {mode: RoadworkImageProcessor(view_size=size, decode_mode=mode) for mode in ("full", "half")}
    buffer = io.BytesIO()
    scene = Image.fromarray(draw_scene(60, SceneSettings(width=PHOTO_SIZE[0])).photo)
    scene.resize(PHOTO_SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    photo = buffer.getvalue()
    views = processors["full"].render_views(photo)
    ways, counts = ways_of(views, chosen.photos)
    cutting = {
        "plain views": partial(naive_views, photo, processors["full"]),
        **{mode: partial(processor.render_views, photo) for mode, processor in processors.items()},
    }
    times = fastest_rounds(ways | cutting, chosen.rounds)
    per_view = {name: times[name] / counts[name] for name in ways}
    rows = []
    for fog, bar in VIEW_BARS.items():
        cost = {
            way: per_view[way] + (P["fog"] * per_view[f"{way} {fog}"] if fog in FOGS else 0.0)
            for way in ("plain", "per photo", "per view")
        }
        error = fog_error(views[0], FOGS[fog]) if fog in FOGS else None
        for way in ("per photo", "per view"):
            ratio = cost["plain"] / cost[way]
            name = f"{size} px, a view, drawn {way}, {fog}"
            held = bar if way == "per photo" else None
            rows.append(Comparison(name, cost["plain"], cost[way], ratio, held, error=error, error_bar=FOG_BAR))
        plain = times["plain views"] + len(views) * cost["plain"]
        for mode in processors:
            fast = times[mode] + len(views) * cost["per photo"]
            name = f"{size} px, bytes at {mode} scale to augmented views, {fog}"
            held = PATH_BARS[fog] if mode == "half" else None
            rows.append(Comparison(name, plain, fast, plain / fast, held))
    return rows


def main() -> None:
    chosen = options(__doc__, rounds=3, photos=12)
    cv2.setNumThreads(chosen.threads)
    finish([row for size in (518, 512) for row in compare(size, chosen)], chosen)


if __name__ == "__main__":
    main()

"""Draw every effect of the augmentation on one view of a photo.

In: a photo. Out: one picture, the view as it is, each effect alone, and a few draws of whole presets. The README's
picture, of an embedded scene, is made by

    python -m natix_roadwork.data.augmentation_picture .github/images/augmentation.jpg
"""

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from natix_roadwork.data.augmentation import ViewAugmentation, seed_pipeline
from natix_roadwork.data.augmentation_effects import GEOMETRY, geometry, make_effect
from natix_roadwork.data.augmentation_presets import NIGHT, PLAN
from natix_roadwork.data.quiet_albumentations import A
from natix_roadwork.data.scene_table import SceneSettings
from natix_roadwork.data.scenes import draw_scene
from natix_roadwork.data.view_picture import BACKGROUND, FONT_SIZE, INK, LABEL_HEIGHT, README_SCENE, SCENE_WIDTH
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.photo import PhotoSource


NUM_COLUMNS = 5
GAP = 6
DRAWS = ("heavy", "heavy", "light", "trivial", "night", "night", "night")


def effect_examples(view: NDArray[np.uint8], seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Apply each effect alone, then whole presets.

    Args:
        view: `uint8` `(S, S, 3)`.
        seed: Seed of what is drawn.

    Returns:
        Name to picture of the size of the view, the view itself first.
    """
    examples = {"as it is": view}
    for name in dict.fromkeys((*PLAN, *NIGHT)):
        effect = geometry(**{f"{name}_p": 1.0}) if name in GEOMETRY else make_effect(name, len(view), 1.0)
        pipeline = A.Compose([effect])
        seed_pipeline(pipeline, np.random.default_rng(seed))
        examples[name.replace("_", " ")] = pipeline(images=view[None].copy())["images"][0]
    for number, preset in enumerate(DRAWS):
        drawn = ViewAugmentation(preset, seed=seed)(view[None], epoch=0, position=number)
        examples[f"{preset}, draw {number}"] = drawn[0]
    return examples


def draw_examples(examples: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """Lay pictures of one size out in rows, each under its name."""
    cell = len(next(iter(examples.values())))
    rows = -(-len(examples) // NUM_COLUMNS)
    size = NUM_COLUMNS * (cell + GAP) + GAP, rows * (cell + LABEL_HEIGHT + GAP) + GAP
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for place, (name, picture) in enumerate(examples.items()):
        row, column = divmod(place, NUM_COLUMNS)
        x, y = GAP + column * (cell + GAP), GAP + row * (cell + LABEL_HEIGHT + GAP)
        draw.text((x + 1, y + LABEL_HEIGHT / 2), name, fill=INK, font=font, anchor="lm")
        sheet.paste(Image.fromarray(picture), (x, y + LABEL_HEIGHT))
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture of the effects on one view.

    Args:
        arguments: Command line without the program's name; the process's own when None.
    """
    parser = argparse.ArgumentParser(description="Draw every effect of the augmentation on a view of a photo.")
    parser.add_argument("output", help="path of the picture to write")
    parser.add_argument("--photo", help="path of the photo; an embedded scene when left out")
    parser.add_argument("--view", type=int, default=10, help="number of the view, 10 = the square in the middle")
    parser.add_argument("--view_size", type=int, default=240, help="side of a view in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is drawn")
    options = parser.parse_args(arguments)
    photo: PhotoSource = options.photo or draw_scene(README_SCENE, SceneSettings(width=SCENE_WIDTH)).photo
    views = RoadworkImageProcessor(view_size=options.view_size).render_views(photo)
    if not 0 <= options.view < len(views):
        parser.error(f"--view {options.view} is none of 0 to {len(views) - 1}")
    draw_examples(effect_examples(views[options.view], options.seed)).save(options.output, quality=85, optimize=True)


if __name__ == "__main__":
    main()

"""Draw where the views of a photo lie and what the model gets to see of it.

In: a photo and an image processor. Out: one picture, the photo with its view boxes on the left and the rendered views
on the right in frames of the same colours. The README's picture, of an embedded scene, is made by

    python -m natix_roadwork.data.view_picture .github/images/views.jpg
"""

import argparse
import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from natix_roadwork.data.scene_table import SceneSettings
from natix_roadwork.data.scenes import draw_scene
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.photo import PhotoSource, load_photo
from natix_roadwork.model.resize import Box


Colour = tuple[int, int, int]

BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)
NUM_COLUMNS = 3
GAP = 10
LABEL_HEIGHT = 20
FONT_SIZE = 14
LINE_WIDTH = 3
SHADE = 0.25
MIDDLE_GRAY = 120
README_SCENE = 60
SCENE_WIDTH = 2400


def draw_view_boxes(photo: Image.Image, boxes: Sequence[Box | None], width: int = 960) -> Image.Image:
    """Outline view boxes on a photo, each in its own colour and with its number in it.

    Args:
        photo: RGB photo.
        boxes: View boxes in photo pixels in view order; None leaves a view out.
        width: Width of the result in pixels.

    Returns:
        The photo scaled to `width`, with the boxes drawn slightly inside one another where their edges coincide.
    """
    scale = width / photo.width
    picture = photo.resize((width, max(1, round(photo.height * scale))), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(FONT_SIZE)
    colours = view_colours(len(boxes))
    for index, box in enumerate(boxes):
        if box is None:
            continue
        inset = 1 + (LINE_WIDTH + 1) * (index % 4)
        left, top, right, bottom = (round(value * scale) for value in box)
        outline = (left + inset, top + inset, max(left + inset, right - inset), max(top + inset, bottom - inset))
        draw.rectangle(outline, outline=colours[index], width=LINE_WIDTH)
    for index, box in enumerate(boxes):
        if box is not None and index > 0:
            _draw_number(draw, box, scale, index, colours[index], font)
    return picture


def view_colours(num_views: int) -> list[Colour]:
    """Give each view a colour: white for the global view, then evenly spread hues.

    Args:
        num_views: Number of views V.

    Returns:
        V RGB values.
    """
    hues = (index * 5 / 11 % 1 for index in range(max(0, num_views - 1)))
    return [BACKGROUND, *(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 1.0)) for hue in hues)]


def draw_views(processor: RoadworkImageProcessor, photo: PhotoSource, width: int = 960) -> Image.Image:
    """Draw the view boxes on a photo beside the views they give.

    Args:
        processor: Says which views there are and renders them.
        photo: Anything `load_photo` opens.
        width: Width of the photo in the picture, in pixels; the views are added on its right.

    Returns:
        The picture; degenerate views have no box and are dimmed.

    Raises:
        ValueError: If the photo cannot be read.
    """
    opened = Image.fromarray(load_photo(photo, processor.max_megapixels))
    valid = processor.view_mask(*opened.size)
    boxes = [box if flag else None for box, flag in zip(processor.view_boxes(*opened.size), valid, strict=True)]
    left = draw_view_boxes(opened, boxes, width)
    right = _draw_sheet(processor, processor.render_views(photo), valid, left.height)
    picture = Image.new(
        "RGB", (left.width + right.width + 3 * GAP, max(left.height, right.height) + 2 * GAP), BACKGROUND
    )
    picture.paste(left, (GAP, GAP))
    picture.paste(right, (left.width + 2 * GAP, GAP))
    return picture


def _draw_number(
    draw: ImageDraw.ImageDraw, box: Box, scale: float, index: int, colour: Colour, font: ImageFont.FreeTypeFont
) -> None:
    """Write a view's number in the middle of its box; a square's a bit higher, clear of the tile in the middle."""
    left, top, right, bottom = (value * scale for value in box)
    centre = (left + right) / 2, top + (bottom - top) * (0.5 if index < 10 else 0.42)
    text = str(index)
    half = draw.textlength(text, font=font) / 2 + 5
    pill = (centre[0] - half, centre[1] - FONT_SIZE * 0.8, centre[0] + half, centre[1] + FONT_SIZE * 0.8)
    draw.rounded_rectangle(pill, radius=5, fill=colour)
    is_dark = ImageColor.getcolor("rgb({}, {}, {})".format(*colour), "L") < MIDDLE_GRAY
    draw.text(centre, text, fill=BACKGROUND if is_dark else INK, font=font, anchor="mm")


def _draw_sheet(
    processor: RoadworkImageProcessor, views: np.ndarray, valid: Sequence[bool], height: int
) -> Image.Image:
    """Lay the views out in three columns, the wide ones in the first row and the tiles below as they lie."""
    names, colours = processor.view_names, view_colours(len(views))
    order = [0, *range(10, len(views)), *range(1, min(10, len(views)))]
    num_rows = -(-len(views) // NUM_COLUMNS)
    cell = max(32, (height + GAP) // num_rows - GAP - LABEL_HEIGHT)
    sheet = Image.new(
        "RGB", (NUM_COLUMNS * (cell + GAP) - GAP, num_rows * (cell + LABEL_HEIGHT + GAP) - GAP), BACKGROUND
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for place, index in enumerate(order):
        row, column = divmod(place, NUM_COLUMNS)
        x, y = column * (cell + GAP), row * (cell + LABEL_HEIGHT + GAP)
        view = Image.fromarray(views[index]).resize((cell, cell), Image.Resampling.LANCZOS)
        if not valid[index]:
            view = Image.blend(Image.new("RGB", view.size, BACKGROUND), view, SHADE)
        sheet.paste(view, (x, y + LABEL_HEIGHT))
        frame = colours[index] if index else INK
        draw.rectangle(
            (x, y + LABEL_HEIGHT, x + cell - 1, y + LABEL_HEIGHT + cell - 1), outline=frame, width=LINE_WIDTH
        )
        label = f"{index}  {names[index]}" + ("" if valid[index] else " (masked)")
        draw.text((x + 1, y + LABEL_HEIGHT / 2), label, fill=INK, font=font, anchor="lm")
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture of the views of one photo.

    Args:
        arguments: Command line without the program's name; the process's own when None.
    """
    parser = argparse.ArgumentParser(description="Draw the views of a photo or of an embedded scene.")
    parser.add_argument("output", help="path of the picture to write")
    parser.add_argument("--photo", help="path of the photo; an embedded scene when left out")
    parser.add_argument("--scene", type=int, default=README_SCENE, help="number of the scene")
    parser.add_argument("--view_size", type=int, default=224, help="side of a view in pixels")
    options = parser.parse_args(arguments)
    photo = options.photo or draw_scene(options.scene, SceneSettings(width=SCENE_WIDTH)).photo
    picture = draw_views(RoadworkImageProcessor(view_size=options.view_size), photo)
    picture.save(options.output, quality=88, optimize=True)


if __name__ == "__main__":
    main()

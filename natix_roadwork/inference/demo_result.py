"""What a model says of one photo, as a piece of HTML for a reader who knows nothing of models.

In come a photo and a `PhotoModel`; out goes text with its pictures inside, which `demo.py` puts on the page. A photo that
cannot be read gives a message in place of the result.
"""

import base64
import io
import math
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image
from torch import Tensor

from natix_roadwork.data.evidence_map import draw_evidence
from natix_roadwork.inference.photo_model import TTA_MODES, PhotoModel, PhotoReading
from natix_roadwork.inference.row_evidence import ViewEvidence
from natix_roadwork.model.photo import load_photo


TEMPLATE = "demo_result.html.jinja"
PHOTO_WIDTH, VIEW_SIDE, JPEG_QUALITY = 960, 176, 82
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")
SQUARES = {"left_square": "left square", "center_square": "middle square", "right_square": "right square"}
# From which distance to 0.5 on a probability is called what.
SURENESS = (
    (0.4, "That is a clear answer."),
    (0.2, "That is a likely answer, not a clear one."),
    (0.0, "That is a close call: a person should look."),
)


@dataclass(frozen=True)
class ShownView:
    """One view on the page; the share is in percent of all views, the bar in percent of the strongest."""

    name: str
    state: str
    picture: str
    share: float
    bar: float


def photo_result(model: PhotoModel, photo: bytes, tta: str = "off") -> str:
    """Say in HTML what a model makes of a photo, or why the file cannot be used.

    Args:
        model: Any.
        photo: Bytes of an uploaded file.
        tta: A key of `TTA_MODES`.
    """
    try:
        prepared = model.prepare(photo, TTA_MODES[tta])
    except ValueError as error:
        return _render(error=str(error), max_megapixels=model.max_megapixels)
    (reading,) = model.answer([prepared], explain=True)
    if not math.isfinite(reading.probability):
        return _render(error="the model gives no answer for this photo", max_megapixels=model.max_megapixels)
    return _render(
        error=None,
        reading=reading,
        sure=next(word for least, word in SURENESS if abs(reading.probability - 0.5) >= least),
        picture=_photo_picture(photo, reading, model.max_megapixels),
        views=shown_views(prepared.pixels[0], reading.views) if reading.views else [],
        variants=len(TTA_MODES[tta]),
    )


def shown_views(pixels: Tensor, views: list[ViewEvidence]) -> list[ShownView]:
    """Prepare the views for the page, the most telling first and the unused ones last.

    Args:
        pixels: `(V, 3, S, S)` uint8.
        views: What each brought.
    """
    strongest = max(view.weight for view in views) or 1.0
    shown = [
        ShownView(
            view_label(view.name),
            view.state,
            _jpeg(Image.fromarray(picture).resize((VIEW_SIDE, VIEW_SIDE), Image.Resampling.LANCZOS)),
            100 * view.weight,
            100 * view.weight / strongest,
        )
        for view, picture in zip(views, pixels.permute(0, 2, 3, 1).numpy(), strict=True)
    ]
    order = {"kept": 0, "dropped": 1, "masked": 2}
    return sorted(shown, key=lambda view: (order[view.state], -view.share))


def view_label(name: str) -> str:
    """Say in words where a view lies: `tile_0_2` is the part at the top right."""
    if name == "global":
        return "whole photo"
    if name in SQUARES:
        return SQUARES[name]
    row, column = (int(number) for number in name.split("_")[1:])
    return "middle" if row == column == 1 else f"{ROWS[row]} {COLUMNS[column]}"


def _photo_picture(photo: bytes, reading: PhotoReading, max_megapixels: float) -> str:
    pixels = load_photo(photo, max_megapixels)
    opened = Image.fromarray(pixels)
    opened.thumbnail((PHOTO_WIDTH, PHOTO_WIDTH), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if reading.shares is None:
        return _jpeg(opened)
    return _jpeg(draw_evidence(np.asarray(opened), reading.shares, opened.width))


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _render(**values: object) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = files("natix_roadwork.inference").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)

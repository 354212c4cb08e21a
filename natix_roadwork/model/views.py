"""Where the views of a photo lie and how one view is cut out of it.

In: the width and height of an upright photo, or the photo itself. Out: view boxes in photo pixels, the mask of the
views that carry new information, and rendered `uint8` views. Everything here is a pure function;
`image_processing_roadwork` puts them together and hands the views to the model.

The `photo12` layout is one global view, a 3 x 3 grid of square tiles, and two squares as wide as the photo's shorter
side. Tiles are placed evenly from edge to edge, so they cover every pixel of any photo and neighbours overlap by at
least a quarter of the tile. A tile is never enlarged; where a photo is too small for that the tile grows, views
coincide, and the later one of two equal views is marked as degenerate.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from .resize import Box, resize_box


VIEW_LAYOUTS = ("photo12", "single")
SQUARE_NAMES = ("center", "left", "right")
TILES_PER_AXIS = 3


def view_names(layout: str = "photo12", squares: Sequence[str] = ("center", "right")) -> list[str]:
    """Name the views of a layout in their fixed order.

    Args:
        layout: `photo12` or `single`.
        squares: The two squares of `photo12`, each of `center`, `left`, `right`.

    Returns:
        One name a view: `global`, `tile_<row>_<column>` row by row, `<square>_square`.

    Raises:
        ValueError: If the layout or a square is unknown, or the squares are not two different ones.
    """
    check_layout(layout, squares)
    if layout == "single":
        return ["global"]
    tiles = [f"tile_{row}_{column}" for row in range(TILES_PER_AXIS) for column in range(TILES_PER_AXIS)]
    return ["global", *tiles, *(f"{square}_square" for square in squares)]


def check_layout(layout: str, squares: Sequence[str]) -> None:
    """Refuse an unknown layout or a pair of squares that makes no sense.

    Args:
        layout: `photo12` or `single`.
        squares: The two squares of `photo12`.

    Raises:
        ValueError: If the layout or a square is unknown, or the squares are not two different ones.
    """
    if layout not in VIEW_LAYOUTS:
        raise ValueError(f"view_layout must be one of {VIEW_LAYOUTS}, got {layout!r}")
    is_pair = isinstance(squares, list | tuple) and len(squares) == 2 and squares[0] != squares[1]
    if not is_pair or any(square not in SQUARE_NAMES for square in squares):
        raise ValueError(f"squares must be two different names of {SQUARE_NAMES}, got {squares!r}")


def tile_side(width: int, height: int, view_size: int) -> int:
    """Give the side of a square tile such that three of them span the longer side with a quarter of overlap.

    Args:
        width: Photo width in pixels.
        height: Photo height in pixels.
        view_size: Side of a rendered view in pixels; the tile is never smaller, so it is never enlarged.

    Returns:
        Tile side in pixels: 2/5 of the longer side, rounded up so that whole-pixel starts keep the overlap.
    """
    return max(-(-2 * (max(width, height) + 1) // 5), view_size)


def tile_spans(length: int, side: int) -> list[tuple[int, int]]:
    """Spread three tiles evenly over one axis of a photo.

    Args:
        length: Photo width or height in pixels.
        side: Tile side in pixels; clipped to the photo where it is longer.

    Returns:
        Three (start, end) pairs, the first at 0 and the last ending at `length`.
    """
    side = min(side, length)
    gaps = TILES_PER_AXIS - 1
    starts = [(2 * i * (length - side) + gaps) // (2 * gaps) for i in range(TILES_PER_AXIS)]
    return [(start, start + side) for start in starts]


def square_box(width: int, height: int, square: str) -> Box:
    """Place a square as large as the photo's shorter side along its longer side.

    Args:
        width: Photo width in pixels.
        height: Photo height in pixels.
        square: `center`, `left` or `right`; on a portrait photo `left` is the top and `right` the bottom.

    Returns:
        The view box in photo pixels.
    """
    side = min(width, height)
    free = max(width, height) - side
    start = {"left": 0, "center": free // 2, "right": free}[square]
    if width >= height:
        return start, 0, start + side, side
    return 0, start, side, start + side


def view_boxes(
    width: int,
    height: int,
    view_size: int,
    layout: str = "photo12",
    squares: Sequence[str] = ("center", "right"),
) -> list[Box]:
    """Place every view of a layout on a photo.

    Args:
        width: Width of the upright photo in pixels.
        height: Height of the upright photo in pixels.
        view_size: Side of a rendered view in pixels.
        layout: `photo12` (global view, 3 x 3 tiles row by row, two squares) or `single` (the whole photo).
        squares: The two squares of `photo12`, each of `center`, `left`, `right`.

    Returns:
        One (left, top, right, bottom) a view in whole photo pixels, always as many as the layout has views.

    Raises:
        ValueError: If a size is below 1, or the layout or the squares are unknown.
    """
    check_layout(layout, squares)
    for name, value in (("width", width), ("height", height), ("view_size", view_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1 pixel, got {value!r}")
    whole = (0, 0, width, height)
    if layout == "single":
        return [whole]
    side = tile_side(width, height, view_size)
    rows, columns = tile_spans(height, side), tile_spans(width, side)
    tiles = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]
    return [whole, *tiles, *(square_box(width, height, square) for square in squares)]


def valid_views(boxes: Sequence[Box], view_size: int) -> list[bool]:
    """Tell which views add something to the ones before them.

    Args:
        boxes: View boxes in order, the global view first.
        view_size: Side of a rendered view in pixels.

    Returns:
        One flag a view. The global view is always valid; another view is degenerate when its box equals an earlier
        one or when it would have to be enlarged to fill `view_size`.
    """
    flags = []
    for index, box in enumerate(boxes):
        left, top, right, bottom = box
        large_enough = max(right - left, bottom - top) >= view_size
        flags.append(index == 0 or (large_enough and box not in boxes[:index]))
    return flags


def render_view(
    photo: np.ndarray,
    box: Box,
    view_size: int,
    *,
    squash: bool = False,
    fill: tuple[int, int, int] = (0, 0, 0),
    resample: int = Image.Resampling.LANCZOS,
    backend: str = "torch",
    shrink: int = 1,
) -> np.ndarray:
    """Cut one view out of a photo and bring it to the view size.

    Args:
        photo: Pixels of the upright photo, `uint8` `(H / shrink, W / shrink, 3)`.
        box: View box in pixels of the whole photo.
        view_size: Side S of the result in pixels.
        squash: Stretch a box that is not square; by default it keeps its aspect and is padded on both sides.
        fill: RGB value of the padding.
        resample: A Pillow resampling filter.
        backend: `torch` or `pillow`, see `resize.resize_box`.
        shrink: 2 for a photo decoded at half its size.

    Returns:
        The view, `uint8` `(S, S, 3)`.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    if squash or width == height:
        return resize_box(photo, box, (view_size, view_size), resample, backend, shrink)
    scale = view_size / max(width, height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (view_size - inner[0]) // 2, (view_size - inner[1]) // 2
    view = np.full((view_size, view_size, 3), fill, dtype=np.uint8)
    view[top : top + inner[1], left : left + inner[0]] = resize_box(photo, box, inner, resample, backend, shrink)
    return view


def keeps_detail_halved(boxes: Sequence[Box], view_size: int, squash_first: bool) -> bool:
    """Tell whether a photo of half the size still fills every view.

    Args:
        boxes: View boxes in order, the global view first.
        view_size: Side of a rendered view in pixels.
        squash_first: Whether the global view is stretched to a square; then its shorter side has to suffice.
    """
    sides = [max(right - left, bottom - top) for left, top, right, bottom in boxes]
    if squash_first:
        left, top, right, bottom = boxes[0]
        sides[0] = min(right - left, bottom - top)
    return min(sides) >= 2 * view_size


def normalize_views(views: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Scale 8-bit views to 0..1 and standardise their channels.

    Args:
        views: `uint8` `(..., 3, H, W)`.
        mean: Mean of each channel on the scale 0..1.
        std: Standard deviation of each channel on the scale 0..1.

    Returns:
        `float32` of the same shape, on the same device.
    """
    pixels = views.to(torch.float32).div_(255)
    offset, scale = (filled(values, pixels).view(3, 1, 1) for values in (mean, std))
    return pixels.sub_(offset).div_(scale)


def filled(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """Turn numbers into a tensor `(len(values),)` of the type and device of `like`, without waiting for the device.

    `torch.tensor` would copy them from memory that a GPU cannot read on its own, and wait for it in every step.
    """
    return torch.stack([like.new_full((), value) for value in values])

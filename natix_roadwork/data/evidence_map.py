"""Where in a photo the model found its evidence, from the weights it pooled by.

In come the view and token weights of one photo from `RoadworkOutput` and the boxes of its views; out goes a map over the
photo, and a picture of it. A view passes its weight to its tokens; a grid token's share lies on its cell, a pooled token's
(class token, mean) on the whole view. These are shares of attention, not causes: what was looked at, not why.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.outputs import RoadworkOutput
from natix_roadwork.model.photo import PhotoSource, load_photo
from natix_roadwork.model.views import Box


MAP_WIDTH = 384
EVIDENCE_COLOUR = (255, 96, 0)
STRONGEST_SHARE = 0.75  # opacity of the strongest place in the picture
# The picture's scale ends at this quantile, so that one strong cell does not make all others invisible.
TOP_QUANTILE = 0.995


def evidence_map(
    token_weights: ArrayLike,
    view_weights: ArrayLike,
    view_indices: ArrayLike,
    evidence_grid: int,
    boxes: Sequence[Box],
    size: tuple[int, int],
    *,
    squash_global: bool = True,
    width: int = MAP_WIDTH,
) -> NDArray[np.float64]:
    """Lay the weights of one photo's tokens over the photo.

    Args:
        token_weights: `(V, T)` shares of the tokens in each view: pooled ones, then the G x G grid row by row.
        view_weights: `(K,)` shares of the kept views.
        view_indices: `(K,)` which views those are.
        evidence_grid: G, 0 = no grid.
        boxes: V view boxes (left, top, right, bottom) in photo pixels.
        size: Width and height of the photo in pixels.
        squash_global: Whether the global view is stretched to a square; other views that are not square, and a global
            view that is not stretched, lie centred in one.
        width: Width of the map; its height follows the photo.

    Returns:
        `(height, width)` shares of the evidence, summing to 1.

    Raises:
        ValueError: If the numbers of tokens or boxes do not fit.
    """
    tokens, shares = np.asarray(token_weights, np.float64), np.asarray(view_weights, np.float64)
    num_pooled = tokens.shape[1] - evidence_grid**2
    if num_pooled < 1 or len(tokens) != len(boxes):
        raise ValueError(
            f"token_weights is {tokens.shape} for {len(boxes)} boxes and evidence_grid={evidence_grid}; it needs one row "
            f"a box and at least {evidence_grid**2 + 1} tokens"
        )
    photo_map = np.zeros((max(1, round(width * size[1] / size[0])), width))
    scale = width / size[0]
    for view, share in zip(np.asarray(view_indices).tolist(), shares.tolist(), strict=True):
        cells = np.full((max(evidence_grid, 1),) * 2, tokens[view, :num_pooled].sum() / max(evidence_grid, 1) ** 2)
        if evidence_grid:
            cells += tokens[view, num_pooled:].reshape(evidence_grid, evidence_grid)
        left, top, right, bottom = (round(value * scale) for value in boxes[view])
        place = photo_map[top : max(bottom, top + 1), left : max(right, left + 1)]
        spread = _spread(cells, place.shape, squashed=view == 0 and squash_global)
        place += share * spread
    return photo_map / photo_map.sum()


def _spread(cells: NDArray[np.float64], shape: tuple[int, int], squashed: bool) -> NDArray[np.float64]:
    """Spread a view's cells over its pixels, summing to their sum; what lies on padding is left out."""
    height, width = shape
    side = max(shape)
    target = (width, height) if squashed else (side, side)
    # Nearest: a cell is one token, and smoothing would claim a finer look than there was.
    whole = cv2.resize(cells, target, interpolation=cv2.INTER_NEAREST)
    if not squashed:
        top, left = (side - height) // 2, (side - width) // 2
        whole = whole[top : top + height, left : left + width]
    total = whole.sum()
    return whole * (cells.sum() / total) if total > 0 else whole


def photo_evidence(
    processor: RoadworkImageProcessor, output: RoadworkOutput, evidence_grid: int, sizes: Sequence[tuple[int, int]]
) -> list[NDArray[np.float64]]:
    """Lay the weights of a batch over its photos; see `evidence_map`.

    Args:
        processor: Cut the views.
        output: Of the model on B photos.
        evidence_grid: G of the model's config.
        sizes: Width and height of each upright photo in pixels.

    Returns:
        B maps `(height, width)`, each summing to 1.
    """
    weights = [output[name].detach().float().cpu().numpy() for name in ("token_weights", "view_weights")]
    indices = output.view_indices.cpu().numpy()
    return [
        evidence_map(
            *rows,
            evidence_grid,
            processor.view_boxes(*size),
            size,
            squash_global=processor.global_fit == "squash",
        )
        for *rows, size in zip(*weights, indices, sizes, strict=True)
    ]


def draw_evidence(photo: PhotoSource, shares: NDArray[np.float64], width: int = 960) -> Image.Image:
    """Draw a map of evidence over its photo: the stronger, the more orange.

    Args:
        photo: Anything `load_photo` opens.
        shares: `(height, width)` map of `evidence_map`.
        width: Width of the picture in pixels.

    Returns:
        The picture.
    """
    opened = Image.fromarray(load_photo(photo))
    height = max(1, round(width * opened.height / opened.width))
    picture = np.asarray(opened.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    opacity = evidence_opacity(cv2.resize(shares, (width, height), interpolation=cv2.INTER_LINEAR))[..., None]
    grey = picture.mean(axis=2, keepdims=True)
    colour = np.array(EVIDENCE_COLOUR, np.float32)
    return Image.fromarray((grey * (1 - opacity) + colour * opacity).round().astype(np.uint8))


def evidence_opacity(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say how strongly each place of a map `(h, w)` is coloured, from 0 where there is least to `STRONGEST_SHARE`."""
    low, top = shares.min(), np.quantile(shares, TOP_QUANTILE)
    return STRONGEST_SHARE * np.clip((shares - low) / max(top - low, 1e-12), 0, 1)

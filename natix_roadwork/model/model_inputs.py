"""What `forward` takes: checks, and stand-ins for what is missing.

Comes in: the arguments of `forward`. Goes out: tokens with a mask to evidence pooling, a tensor a field to the
metadata encoder. Targets are checked in `targets.py`.
"""

import torch
from torch import Tensor
from transformers.utils import logging

from .configuration_roadwork import RoadworkConfig


logger = logging.get_logger(__name__)

TEXT_WIDTH = 384  # all-MiniLM-L6-v2
ARGUMENTS = {
    "gps": "gps",
    "weather": "weather_ids",
    "daytime": "daytime_ids",
    "scene": "scene_ids",
    "text": "text_embeddings",
}


def check_pixels(pixel_values: Tensor, view_size: int) -> Tensor:
    """Refuses pixels of another shape than `(B, V, 3, S, S)`, or `(B, 3, S, S)`, which gets its axis of one view.

    Raises:
        ValueError: The shape is another, or S is not `view_size`.
    """
    if pixel_values.dim() == 4:
        pixel_values = pixel_values.unsqueeze(1)
    if pixel_values.dim() != 5 or pixel_values.shape[2:] != (3, view_size, view_size):
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)}, expected (B, V, 3, {view_size}, {view_size}) as "
            f"view_size={view_size} says."
        )
    return pixel_values


def check_tokens(config: RoadworkConfig, tokens: Tensor, view_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Refuses tokens and masks of a wrong shape.

    Args:
        config: Says D and the most views.
        tokens: `(B, V, T, D)`, or `(B, V, D)` for one token a view.
        view_mask: `(B, V)` valid views; all when None.

    Returns:
        Tokens `(B, V, T, D)` and the mask `(B, V)`, in which the global view is valid.

    Raises:
        ValueError: A shape does not fit.
    """
    if tokens.dim() == 3:
        tokens = tokens.unsqueeze(2)
    if tokens.dim() != 4 or tokens.shape[1] > config.num_views or tokens.shape[3] != config.feature_dim:
        raise ValueError(
            f"The views have tokens of shape {tuple(tokens.shape)}, expected (B, V, T, {config.feature_dim}) with "
            f"V <= num_views={config.num_views}."
        )
    return tokens, check_mask(view_mask, tokens)


def check_mask(view_mask: Tensor | None, views: Tensor) -> Tensor:
    """Refuses a mask that does not fit the views `(B, V, ...)`.

    Returns:
        The mask `(B, V)`, all True when None, in which the global view is valid.

    Raises:
        ValueError: The shape does not fit.
    """
    if view_mask is None:
        view_mask = torch.ones(views.shape[:2], dtype=torch.bool, device=views.device)
    if view_mask.shape != views.shape[:2]:
        raise ValueError(f"view_mask has shape {tuple(view_mask.shape)}, expected {tuple(views.shape[:2])}.")
    view_mask = view_mask.bool().clone()
    view_mask[:, 0].fill_(True)  # the global view is never degenerate, and a photo without any view has no answer
    return view_mask


def by_field(*arguments: Tensor | None) -> dict[str, Tensor | None]:
    """Names the metadata arguments of `forward`, in their order, by their fields."""
    return dict(zip(ARGUMENTS, arguments, strict=True))


def warn_of_unread(config: RoadworkConfig, metadata: dict[str, Tensor | None]) -> None:
    """Says once which metadata is given but not read.

    It is ignored, not refused: the same rows can then train a model with and one without a field, and
    `transformers.Trainer`, which hands over every column that `forward` knows, works.
    """
    for name, values in metadata.items():
        if values is not None and name not in config.metadata_fields:
            logger.warning_once(
                f"{ARGUMENTS[name]} is ignored: the model reads metadata_fields={config.metadata_fields!r}."
            )


def read_fields(
    config: RoadworkConfig, metadata: dict[str, Tensor | None], batch_size: int, device: torch.device
) -> tuple[dict[str, Tensor], bool]:
    """Checks the metadata that the config reads and fills in what was not given.

    Args:
        config: Says which fields are read, and their vocabularies.
        metadata: Field to its argument of `forward`, None = not given.
        batch_size: B.
        device: Where stand-ins are made.

    Returns:
        Field to its tensor, missing in every row where the argument was not given; and whether any field was given.

    Raises:
        ValueError: A shape, a type or a value does not fit; the argument and the row are named.
    """
    given = {name: metadata.get(name) for name in config.metadata_fields}
    fields = {}
    for name, values in given.items():
        if values is None:
            fields[name] = _all_missing(name, batch_size, device)
        elif name == "gps":
            fields[name] = _checked_gps(values, batch_size)
        elif name == "text":
            fields[name] = _checked_text(values, batch_size)
        else:
            fields[name] = _checked_tags(ARGUMENTS[name], values, batch_size, len(config.vocabularies[name]))
    return fields, any(values is not None for values in given.values())


def is_present(values: Tensor) -> Tensor:
    """Which rows of a field hold something, `(B,)`: not NaN, or an id that is not padding."""
    return ~values.isnan().any(dim=1) if values.is_floating_point() else (values >= 0).any(dim=1)


def check_grid(config: RoadworkConfig, grid: Tensor | None, batch_size: int) -> Tensor | None:
    """Refuses a patch grid of a wrong shape, or none where the decision reads it.

    Args:
        config: Says D, and whether the masks are evidence.
        grid: `(B, h, w, D)` of the global view, or None.
        batch_size: B.

    Raises:
        ValueError: The shape does not fit, or the grid is missing.
    """
    if grid is None:
        if config.mask_evidence:
            raise ValueError(
                "mask_evidence=True reads the global view's patch grid: give global_grid (B, h, w, D) beside "
                "view_features, or give pixel_values."
            )
        return None
    if grid.dim() != 4 or grid.shape[0] != batch_size or grid.shape[3] != config.feature_dim:
        raise ValueError(
            f"global_grid has shape {tuple(grid.shape)}, expected ({batch_size}, h, w, {config.feature_dim})."
        )
    return grid


def check_extra(config: RoadworkConfig, extra: Tensor | None, batch_size: int) -> Tensor | None:
    """Refuses extra evidence of a wrong shape, or with a figure that is no number; warns once where it is not read.

    Raises:
        ValueError: Shape or a value does not fit; the row is named.
    """
    if extra is None:
        return None
    width = config.extra_evidence_size
    if not width:
        logger.warning_once("extra_evidence is ignored: the model reads none, extra_evidence_size=0.")
        return None
    if extra.dim() != 3 or extra.shape[0] != batch_size or extra.shape[2] != width or not extra.is_floating_point():
        raise ValueError(
            f"extra_evidence of shape {tuple(extra.shape)} and {extra.dtype} must be floats ({batch_size}, E, {width})."
        )
    missing = extra.isnan().sum(dim=2)
    half = ((missing > 0) & (missing < width)).any(dim=1)
    refuse_rows(half, "NaN values of extra_evidence", missing, "expected all or none of a piece's figures")
    refuse_rows(extra.isinf().any(dim=(1, 2)), "infinite values of extra_evidence", missing, "expected none")
    return extra


def _all_missing(name: str, batch_size: int, device: torch.device) -> Tensor:
    if name in ("gps", "text"):
        return torch.full((batch_size, 2 if name == "gps" else TEXT_WIDTH), torch.nan, device=device)
    return torch.full((batch_size, 1), -1, device=device)


def _checked_gps(gps: Tensor, batch_size: int) -> Tensor:
    if gps.shape != (batch_size, 2):
        raise ValueError(f"gps has shape {tuple(gps.shape)}, expected ({batch_size}, 2): latitude, longitude.")
    if gps.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"gps is {gps.dtype}, which rounds degrees by kilometres; give float32 or float64.")
    refuse_rows(gps.isnan().sum(dim=1) == 1, "gps", gps, "half a coordinate; NaN must stand in both places or in none")
    outside = (gps[:, 0].abs() > 90) | (gps[:, 1].abs() > 180)
    refuse_rows(outside, "gps", gps, "expected a latitude in -90 ... 90, then a longitude in -180 ... 180, in degrees")
    return gps


def _checked_tags(argument: str, ids: Tensor, batch_size: int, vocabulary_size: int) -> Tensor:
    if ids.dim() != 2 or len(ids) != batch_size or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(
            f"{argument} of shape {tuple(ids.shape)} and {ids.dtype} must be whole numbers ({batch_size}, L)."
        )
    bad = ((ids < -1) | (ids > vocabulary_size)).any(dim=1)
    wanted = f"expected 0 ... {vocabulary_size - 1} for known tags, {vocabulary_size} for an unknown one, -1 to pad"
    refuse_rows(bad, argument, ids, wanted)
    return ids


def _checked_text(text: Tensor, batch_size: int) -> Tensor:
    if text.shape != (batch_size, TEXT_WIDTH) or not text.is_floating_point():
        raise ValueError(
            f"text_embeddings of shape {tuple(text.shape)} and {text.dtype} must be floats ({batch_size}, "
            f"{TEXT_WIDTH})."
        )
    missing = text.isnan().sum(dim=1)
    refuse_rows(
        (missing > 0) & (missing < TEXT_WIDTH), "NaN values of text_embeddings", missing, "expected all or none"
    )
    refuse_rows(
        text.isinf().any(dim=1), "infinite values of text_embeddings", text.isinf().sum(dim=1), "expected none"
    )
    return text


def refuse_rows(bad: Tensor, name: str, values: Tensor, wanted: str) -> None:
    """Raises for the first row that is bad.

    A compiled graph cannot look at values and skips the check. A training step on a GPU does not wait for them: the
    device stops there, without the row.
    """
    if torch.compiler.is_compiling():
        return
    if bad.device.type != "cpu" and torch.is_grad_enabled():
        torch._assert_async(~bad.any(), f"{name}: {wanted}")
    elif bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"{name} in row {row} of the batch: {values[row].tolist()}; {wanted}.")

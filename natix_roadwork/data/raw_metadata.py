"""Metadata of single photos, as a caller has it, as keyword arguments of a model's `forward`.

Training reads whole data sets (`data/dataset.py`); this is the same reading for whoever has a model and some photos.
"""

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from natix_roadwork.data.gps_text import read_gps
from natix_roadwork.data.metadata import TAG_FIELDS, encode_metadata
from natix_roadwork.data.natix_columns import parse_text
from natix_roadwork.data.tags import parse_tags
from natix_roadwork.data.text_vectors import compute_text_vectors
from natix_roadwork.model.configuration_roadwork import METADATA_FIELDS, RoadworkConfig


logger = logging.getLogger(__name__)

Value = TypeVar("Value")


def metadata_kwargs(
    photos: Sequence[Mapping[str, Any]], config: RoadworkConfig, text_encoder_id: str = "embedded:all-minilm-l6-v2"
) -> dict[str, Tensor]:
    """Turn raw metadata into what a model's `forward` takes beside the photos.

    Args:
        photos: For each of B photos what is known of it, by the names of `METADATA_FIELDS`: `gps` in any form that
            `read_gps` reads, `weather`, `daytime` and `scene` as a tag or a list of tags, `text` as a description. What
            is left out is missing.
        config: Of the model; it says which fields are read and which tags are known.
        text_encoder_id: Encoder of the descriptions: the one the model was trained with.

    Returns:
        Tensors of B rows for the fields that the model reads, for `model(**pixels, **kwargs)`; none for an image-only
        model.

    Raises:
        ValueError: If a name or a value cannot be read; photo, name and value are given.
    """
    rows: dict[str, list[Any]] = {name: [] for name in ("latitude", "longitude", *TAG_FIELDS, "text")}
    for number, photo in enumerate(photos):
        _require_known(number, photo, config)
        gps = _read(number, photo, "gps", read_gps)
        rows["latitude"].append(gps.latitude)
        rows["longitude"].append(gps.longitude)
        for field in TAG_FIELDS:
            rows[field].append(_read(number, photo, field, parse_tags))
        rows["text"].append(_read(number, photo, "text", parse_text))
    fields = config.metadata_fields
    vectors = compute_text_vectors(rows["text"], text_encoder_id) if "text" in fields else None
    arrays = encode_metadata(rows, fields, config.vocabularies, vectors)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _require_known(number: int, photo: Mapping[str, Any], config: RoadworkConfig) -> None:
    for name in photo:
        if name not in METADATA_FIELDS:
            near = difflib.get_close_matches(name, METADATA_FIELDS, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise ValueError(f"photo {number}: {name!r} is none of {', '.join(METADATA_FIELDS)}{hint}")
        if name not in config.metadata_fields:
            logger.warning("photo %d: %s is not read: metadata_fields=%s", number, name, config.metadata_fields)


def _read(number: int, photo: Mapping[str, Any], name: str, reader: Callable[[object], Value]) -> Value:
    try:
        return reader(photo.get(name))
    except ValueError as error:
        raise ValueError(f"photo {number}: {name}={photo.get(name)!r}: {error}") from None

"""Turn rows into model inputs, photo by photo, inside the data loader's workers.

In come rows whose photos are still encoded; out go `pixel_values`, `view_mask`, `labels` and the metadata
that the run reads, ready for the trainer.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor


def photo_source(image: Mapping[str, Any]) -> bytes | str:
    """Return what the `image` column stores: the photo's bytes, or its path where the bytes stay in the file."""
    return image["bytes"] if image["bytes"] is not None else image["path"]


def photo_transform(
    processor: RoadworkImageProcessor,
    metadata: MetadataInputs = NO_METADATA,
) -> Callable[[Mapping[str, Sequence[Any]]], dict[str, list[torch.Tensor]]]:
    """Make the function for `dataset.with_transform`: it decodes each photo and cuts its views when a row is read.

    Args:
        processor: Cuts the views; its `max_megapixels` is the largest accepted photo in millions of pixels.
        metadata: What is read besides the photo.

    Returns:
        A picklable function from a batch of rows to lists of `pixel_values` `(V, 3, S, S)`, `view_mask` `(V,)`,
        `labels` `()` and the metadata (`data.metadata.encode_metadata`). It raises `ValueError` with the row id for a photo that cannot be decoded.
    """
    return partial(_transform_rows, processor=processor, metadata=metadata)


def collate_rows(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack transformed rows into one batch.

    Returns:
        `pixel_values` `(B, V, 3, S, S)`, `view_mask` `(B, V)`, `labels` `(B,)` and the metadata.
    """
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _transform_rows(
    rows: Mapping[str, Sequence[Any]], *, processor: RoadworkImageProcessor, metadata: MetadataInputs
) -> dict[str, list[torch.Tensor]]:
    outputs: dict[str, list[torch.Tensor]] = {"pixel_values": [], "view_mask": [], "labels": []}
    for row_id, image, label in zip(rows["row_id"], rows["image"], rows["label"], strict=True):
        try:
            views = processor(images=photo_source(image), return_tensors="pt")
        except ValueError as error:
            raise ValueError(
                f"row {row_id!r}: the photo cannot be decoded ({error}); --verify_images true of a recipe, or "
                "load_rows(..., verify_images=True), finds and drops such photos beforehand"
            ) from error
        outputs["pixel_values"].append(views["pixel_values"][0])
        outputs["view_mask"].append(views["view_mask"][0])
        outputs["labels"].append(torch.tensor(label, dtype=torch.long))
    return outputs | metadata.tensors(rows)

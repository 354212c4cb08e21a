"""Turn rows into model inputs, photo by photo, inside the data loader's workers.

In come rows whose photos are still encoded; out go `pixel_values`, `view_mask`, `labels`, the metadata and the mask labels
that the run reads, ready for the trainer.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from natix_roadwork.data.depth_source import RowDepths, with_depth
from natix_roadwork.data.draws import Augmentation, DrawRows, Indices, PhotoAugmentation, address
from natix_roadwork.data.mask_source import RowMasks
from natix_roadwork.data.mask_views import cell_levels, shares, unknown_levels, view_cover
from natix_roadwork.data.masks import PhotoMask
from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.views import normalize_views


Rows = Mapping[str, Sequence[Any]]
SIZED = ("row_id", "width", "height")


class PhotoRows(DrawRows):
    """Rows of a split whose photos are decoded when they are read, each draw augmented by its address.

    Args:
        rows: Rows of `data.dataset.load_rows`.
        processor: Cuts the views; its `max_megapixels` is the largest accepted photo in millions of pixels.
        metadata: What is read besides the photo.
        augmentation: Changes the views of draws; a bare row number gets its views as they are.
        masks: Masks of the rows, which then get `mask_labels`; the augmentation must be one that masks can follow.
        depths: Depth maps of the rows, which are one more view; the augmentation must be one that they can follow.
    """

    def __init__(
        self,
        rows: Dataset,
        processor: RoadworkImageProcessor,
        metadata: MetadataInputs = NO_METADATA,
        augmentation: PhotoAugmentation | None = None,
        masks: RowMasks | None = None,
        depths: RowDepths | None = None,
    ) -> None:
        """Keep what every worker needs a copy of."""
        sizes = [] if masks is None and depths is None else ["width", "height"]
        self.rows = rows.select_columns(list(dict.fromkeys(["row_id", "image", "label", *sizes, *metadata.columns])))
        self.transform = photo_transform(processor, metadata, augmentation, masks, depths)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """Return some of these rows, in the order given."""
        chosen = copy.copy(self)
        chosen.rows = self.rows.select(rows)
        return chosen

    def read(self, draws: Indices) -> dict[str, Tensor]:
        """Return `pixel_values` `(B, V, 3, S, S)`, `view_mask` `(B, V)`, `labels` `(B,)` and the metadata.

        With masks also `mask_labels` `(B, C, m, m)` float32, NaN where unknown.
        """
        rows, epochs, positions = address(draws)
        addresses = None
        if epochs is not None and positions is not None:
            addresses = list(zip(epochs.tolist(), positions.tolist(), strict=True))
        return self.transform(self.rows[rows.tolist()], addresses=addresses)


def photo_source(image: Mapping[str, Any]) -> bytes | str:
    """Return what the `image` column stores: the photo's bytes, or its path where the bytes stay in the file."""
    return image["bytes"] if image["bytes"] is not None else image["path"]


def photo_transform(
    processor: RoadworkImageProcessor,
    metadata: MetadataInputs = NO_METADATA,
    augmentation: PhotoAugmentation | None = None,
    masks: RowMasks | None = None,
    depths: RowDepths | None = None,
) -> Callable[..., dict[str, Tensor]]:
    """Make the function that decodes each photo and cuts its views when rows are read; also for `dataset.with_transform`.

    Args:
        processor: Cuts the views; its `max_megapixels` is the largest accepted photo in millions of pixels.
        metadata: What is read besides the photo.
        augmentation: Changes the views of rows that come with an address.
        masks: Masks of the rows; None = no mask labels.
        depths: Depth maps of the rows, a view each; None = no such view.

    Returns:
        A picklable function from a batch of rows, and the `addresses` (epoch, position) of each or None, to `pixel_values`
        `(B, V, 3, S, S)`, `view_mask` `(B, V)`, `labels` `(B,)` and the metadata (`data.metadata.encode_metadata`). It
        raises `ValueError` with the row id for a photo that cannot be decoded.
    """
    shared = {"processor": processor, "metadata": metadata, "augmentation": augmentation}
    return partial(_transform_rows, **shared, masks=masks, depths=depths)


def collate_rows(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack rows of `dataset.with_transform` into one batch.

    Returns:
        `pixel_values` `(B, V, 3, S, S)`, `view_mask` `(B, V)`, `labels` `(B,)` and the metadata.
    """
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def read_views(
    row_id: str,
    image: Mapping[str, Any],
    processor: RoadworkImageProcessor,
    augmentation: PhotoAugmentation | None = None,
    address: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8], Tensor]:
    """Decode one photo and cut its views.

    Args:
        row_id: Names the photo in an error.
        image: What the `image` column stores.
        processor: Cuts the views.
        augmentation: Changes the views, where there is an address.
        address: Epoch and position of the example; None = the views as they are.

    Returns:
        The views `(V, S, S, 3)` and the mask of valid ones `(V,)`.

    Raises:
        ValueError: If the photo cannot be decoded; the row id is named.
    """
    with _named(row_id):
        if augmentation is None or address is None:
            views, valid = processor.views_and_mask(photo_source(image))
        else:
            views, valid = augmentation.views_of(processor, photo_source(image), *address)
        return views, torch.tensor(valid)


def read_views_and_mask(
    row_id: str,
    image: Mapping[str, Any],
    mask: PhotoMask,
    mask_size: int,
    processor: RoadworkImageProcessor,
    augmentation: Augmentation | None = None,
    address: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8], Tensor, NDArray[np.uint8]]:
    """Do what `read_views` does, with a mask that follows the photo.

    Args:
        row_id: Names the photo in an error.
        image: What the `image` column stores.
        mask: Of the upright photo.
        mask_size: Cells m a side of the labels.
        processor: Cuts the views.
        augmentation: Changes the views, where there is an address.
        address: Epoch and position of the example; None = the views as they are.

    Returns:
        What `read_views` does, and the labels of the global view as levels `(C, m, m)` (`mask_views.cell_levels`).

    Raises:
        ValueError: If the photo cannot be decoded; the row id is named.
    """
    with _named(row_id):
        if augmentation is None or address is None:
            views, valid = processor.views_and_mask(photo_source(image))
            cover = view_cover(processor, mask.bits)
        else:
            views, valid, cover = augmentation.views_and_cover(processor, photo_source(image), mask.bits, *address)
        return views, torch.tensor(valid), cell_levels(cover, mask.known, mask_size)


@contextmanager
def _named(row_id: str) -> Iterator[None]:
    """Name the row of a photo that cannot be decoded."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"row {row_id!r}: the photo cannot be decoded ({error}); --verify_images true of a recipe, or "
            "load_rows(..., verify_images=True), finds and drops such photos beforehand"
        ) from error


def _transform_rows(
    rows: Rows,
    *,
    processor: RoadworkImageProcessor,
    metadata: MetadataInputs,
    augmentation: PhotoAugmentation | None,
    masks: RowMasks | None = None,
    depths: RowDepths | None = None,
    addresses: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Tensor]:
    photos, valid, levels = [], [], []
    for number, (row_id, image) in enumerate(zip(rows["row_id"], rows["image"], strict=True)):
        drawn = (processor, augmentation, None if addresses is None else addresses[number])
        mask = None if masks is None else masks.read(row_id, (rows["width"][number], rows["height"][number]))
        if mask is None:
            views, flags = read_views(row_id, image, *drawn)
            label = None if masks is None else unknown_levels(masks.mask_size)
        else:
            views, flags, label = read_views_and_mask(row_id, image, mask, masks.mask_size, *drawn)
        if depths is not None:
            depth = depths.view({name: rows[name][number] for name in SIZED}, *drawn)
            views, flags = with_depth(views, depth), torch.cat([flags, torch.tensor([depth is not None])])
        photos.append(torch.from_numpy(views))
        valid.append(flags)
        levels.append(label)
    # Left as (V, S, S, 3) in memory: the backbone reads channels last, and turning a photo's views costs tens of ms.
    pixel_values = torch.stack(photos).permute(0, 1, 4, 2, 3)
    if processor.do_normalize:
        pixel_values = normalize_views(pixel_values, processor.image_mean, processor.image_std)
    labels = torch.tensor(list(rows["label"]), dtype=torch.long)
    inputs = {"pixel_values": pixel_values, "view_mask": torch.stack(valid), "labels": labels}
    if masks is not None:
        inputs["mask_labels"] = shares(torch.from_numpy(np.stack(levels)))
    return inputs | metadata.tensors(rows)

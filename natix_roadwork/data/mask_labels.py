"""Mask labels of the global view: of one draw, and of all the draws of a feature cache, computed once.

In come the masks of rows and the address of a draw; out goes the share of each cell that shows a class. The labels of a
cache lie in a folder of their own beside its tokens, so that new masks cost no pass of the backbone: draw k of row r has the
geometry of the tokens' draw k, which depends on the address alone.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm

from natix_roadwork.data.draws import Augmentation
from natix_roadwork.data.feature_cache import FeatureCache, fill_cache
from natix_roadwork.data.feature_key import feature_key, rows_a_shard
from natix_roadwork.data.mask_source import RowMasks
from natix_roadwork.data.mask_views import NUM_CLASSES, cell_levels, unknown_levels, view_cover
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor


FORMAT_VERSION = 1
# Settings of the processor that decide where a pixel of the photo lies in the global view.
GEOMETRY = ("view_size", "global_fit", "resample", "resize_backend")


class DrawnLabels(TorchDataset):
    """The mask labels of a row: of the clean global view and of its K augmented draws."""

    def __init__(
        self,
        rows: Dataset,
        masks: RowMasks,
        processor: RoadworkImageProcessor,
        augmentation: Augmentation | None,
        draws: int,
    ) -> None:
        """Keep what every worker needs a copy of."""
        self.rows = rows.select_columns(["row_id", "width", "height"])
        self.masks, self.processor, self.augmentation, self.draws = masks, processor, augmentation, draws

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        """Return the levels `(K + 1, C, m, m)` uint8 of a row (`mask_views.shares` reads them)."""
        stored, size = self.rows[row], self.masks.mask_size
        mask = self.masks.read(stored["row_id"], (stored["width"], stored["height"]))
        if mask is None:
            return torch.from_numpy(np.repeat(unknown_levels(size)[None], self.draws + 1, axis=0))
        covers = [view_cover(self.processor, mask.bits)]
        if self.augmentation is not None:
            # Only where pixels go is asked for, and that is the same for any photo.
            black = np.zeros((1, *covers[0].shape[:2], 3), np.uint8)
            covers += [
                self.augmentation(black, epoch=draw, position=row, mask=covers[0], view_indices=[0])[1]
                for draw in range(self.draws)
            ]
        return torch.from_numpy(np.stack([cell_levels(cover, mask.known, size) for cover in covers]))

    def compute(
        self, ranges: Sequence[range], num_workers: int, description: str, finished: int = 0, show: bool = True
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the labels of each range of rows, in order; see `TokenPasses.compute`."""
        order = list(chain.from_iterable(ranges))
        labels = iter(DataLoader(self, batch_size=None, sampler=order, num_workers=num_workers))
        total = finished + len(order)
        with tqdm(total=total, initial=finished, desc=description, unit=" masks", disable=not show) as progress:
            for rows in ranges:
                found = torch.stack(list(islice(labels, len(rows))))
                progress.update(len(rows))
                yield {"mask_labels": found}


def extract_mask_labels(
    rows: Dataset,
    masks: RowMasks,
    processor: RoadworkImageProcessor,
    folder: str | Path,
    *,
    draws: int = 0,
    augmentation: Augmentation | None = None,
    num_workers: int = 0,
    state: PartialState | None = None,
    description: str = "Mask labels",
) -> FeatureCache:
    """Compute the mask labels of every row and draw of a feature cache, or open those that are there.

    Args:
        rows: The rows of the cache, in the same order.
        masks: Their masks.
        processor: The cache's processor.
        folder: The cache's folder; the labels of each set of masks and settings have a sub-folder named by their key.
        draws: K of the cache.
        augmentation: Of the cache.
        num_workers: Processes that read masks.
        state: The processes that share the work; None = this one alone.
        description: Text of the progress bar.

    Returns:
        A cache of shape (N, K + 1, C, m, m), its shards holding `mask_labels` as levels.

    Raises:
        ValueError: If a mask cannot be read any more (the row and the file are named), or a shard is damaged.
        OSError: If the disk is too full.
    """
    augmentation = augmentation if draws else None
    record = label_record(rows, masks, processor, draws, augmentation)
    shape = (len(rows), draws + 1, NUM_CLASSES, masks.mask_size, masks.mask_size)
    drawn = DrawnLabels(rows, masks, processor, augmentation, draws)
    compute = partial(drawn.compute, num_workers=num_workers, description=description)
    folder = Path(folder) / f"masks-{feature_key(record)[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return fill_cache(folder, record, shape, compute, int(np.prod(shape)), state)


def label_record(
    rows: Dataset,
    masks: RowMasks,
    processor: RoadworkImageProcessor,
    draws: int,
    augmentation: Augmentation | None,
) -> dict[str, Any]:
    """Return everything that decides the labels, as JSON values."""
    settings = processor.settings()
    record = {
        "format": FORMAT_VERSION,
        "rows": {"count": len(rows), "masks": masks.fingerprint(rows)},
        "mask_size": masks.mask_size,
        "processor": {name: settings[name] for name in GEOMETRY},
        "augmentation": None if augmentation is None else augmentation.settings(),
        "feature_draws": draws,
        "rows_a_shard": rows_a_shard(len(rows), 1),
    }
    return json.loads(json.dumps(record))

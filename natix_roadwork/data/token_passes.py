"""Passes of the frozen backbone over ranges of rows: photos decoded by workers, tokens as they are stored.

In come rows and the model, out go the tensors of one shard after the other; `data/feature_cache.py` writes them.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm

from natix_roadwork.data.depth_source import with_depth
from natix_roadwork.data.feature_key import FeatureOptions, rows_a_pass
from natix_roadwork.data.photo_batches import read_views
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkModel


Shape = tuple[int, int, int, int, int]
INT8_LEVELS = 127


class DrawnViews(TorchDataset):
    """The clean views of a row and its K augmented draws, as workers make them; with depth maps its depth is the last view."""

    def __init__(self, rows: Dataset, processor: RoadworkImageProcessor, options: FeatureOptions) -> None:
        """Keep what every worker needs a copy of."""
        self.rows, self.processor, self.options = rows, processor, options

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """Return the views `(K + 1, V, S, S, 3)` uint8 and the mask `(V,)` of a row."""
        stored, augmentation = self.rows[row], self.options.augmentation
        clean, mask = read_views(stored["row_id"], stored["image"], self.processor)
        draws = [clean]
        if augmentation is not None:
            draws += [augmentation(clean, epoch=draw, position=row) for draw in range(self.options.draws)]
        depths = self.options.depths
        if depths is not None:
            places = [None, *((draw, row) for draw in range(len(draws) - 1))]
            found = [depths.view(stored, self.processor, augmentation, place) for place in places]
            draws = [with_depth(views, depth) for views, depth in zip(draws, found, strict=True)]
            mask = torch.cat([mask, torch.tensor([found[0] is not None])])
        return torch.stack([torch.from_numpy(views) for views in draws]), mask


class TokenPasses:
    """Runs the backbone over rows in passes of one shape.

    The views of draw k of `rows_a_pass` consecutive rows are one pass; where rows end, black views fill it. So a pass has
    the same shape and content whatever else is computed, as a live batch of those rows has.

    Args:
        rows: Rows with encoded photos.
        model: Gives the tokens.
        processor: Cuts the views.
        options: Draws, precision and storage.
        shape: (N, K + 1, V, T, D) of all tokens.
    """

    def __init__(
        self,
        rows: Dataset,
        model: RoadworkModel,
        processor: RoadworkImageProcessor,
        options: FeatureOptions,
        shape: Shape,
    ) -> None:
        """Keep the parts."""
        self.model, self.options, self.shape = model, options, shape
        self.views = DrawnViews(rows, processor, options)
        self.rows_a_pass = rows_a_pass(shape[2])
        self.grid = grid_shape(model) if options.grid else None

    def compute(
        self, ranges: Sequence[range], num_workers: int, description: str, finished: int = 0, show: bool = True
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the tensors of each range of rows, in order.

        Args:
            ranges: Rows of each shard.
            num_workers: Processes that decode ahead of the backbone; 0 = this one, in turn with it.
            description: Text of the progress bar.
            finished: Rows that an earlier run left complete.
            show: Whether there is a progress bar.

        Raises:
            ValueError: If a photo cannot be decoded, or a token does not fit the storage; the row is named.
        """
        order = list(chain.from_iterable(ranges))
        loader = DataLoader(self.views, batch_size=None, sampler=order, num_workers=num_workers)
        photos = iter(loader)
        total = finished + sum(map(len, ranges))
        with tqdm(total=total, initial=finished, desc=description, unit=" photos", disable=not show) as progress:
            for rows in ranges:
                yield self._shard(rows, photos, progress)

    def _shard(self, rows: range, photos: Iterator[tuple[Tensor, Tensor]], progress: tqdm) -> dict[str, Tensor]:
        tokens = torch.empty(len(rows), *self.shape[1:], dtype=torch.float16)
        masks = torch.empty(len(rows), self.shape[2], dtype=torch.bool)
        shard = {"tokens": tokens, "view_mask": masks}
        if self.grid is not None:
            shard["grid"] = torch.empty(len(rows), self.shape[1], *self.grid, dtype=torch.float16)
        if self.options.dtype == "int8":
            shard |= {"tokens": tokens.to(torch.int8), "scales": torch.empty(tokens.shape[:-1], dtype=torch.float16)}
        for start in range(0, len(rows), self.rows_a_pass):
            views, valid = zip(*islice(photos, min(self.rows_a_pass, len(rows) - start)), strict=True)
            here = slice(start, start + len(views))
            masks[here] = torch.stack(valid)
            for draw in range(self.shape[1]):
                found, grid = self._tokens([photo[draw] for photo in views])
                if not all((each.abs() <= torch.finfo(torch.float16).max).all() for each in (found, grid)):
                    raise ValueError(f"rows {rows[start]}...: a token is not finite or beyond the range of float16")
                if self.grid is not None:
                    shard["grid"][here, draw] = grid.to(torch.float16)
                if self.options.dtype == "int8":
                    shard["tokens"][here, draw], shard["scales"][here, draw] = quantized(found)
                else:
                    tokens[here, draw] = found.to(torch.float16)
            progress.update(len(views))
        return shard

    @torch.no_grad()
    def _tokens(self, photos: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens `(R, V, T, D)` and grids `(R, h, w, D)` of the views `(V, S, S, 3)` of R photos, in a pass of full size.

        Both are float32; without grids to keep, the second is empty.
        """
        model, precision = self.model, self.options.precision
        views = torch.zeros(self.rows_a_pass, *photos[0].shape, dtype=torch.uint8)
        torch.stack(list(photos), out=views[: len(photos)])
        pixels = views.to(model.device).permute(0, 1, 4, 2, 3)
        with torch.autocast(model.device.type, dtype=precision, enabled=precision != torch.float32):
            if self.grid is None:
                tokens, grid = model.extract_tokens(pixels), pixels.new_empty(0)
            else:
                tokens, grid = model.extract_tokens_and_grid(pixels)
        return tokens[: len(photos)].float().cpu(), grid[: len(photos)].float().cpu()


def num_tokens(model: RoadworkModel) -> int:
    """T, found by a pass over one black view: a backbone without a class token has one pooled token."""
    size = model.config.view_size
    with torch.no_grad():
        return model.extract_tokens(torch.zeros(1, 1, 3, size, size, device=model.device)).shape[2]


def grid_shape(model: RoadworkModel) -> tuple[int, int, int]:
    """(h, w, D) of the global view's patch grid, found by a pass over one black view."""
    size = model.config.view_size
    with torch.no_grad():
        views = torch.zeros(1, 1, 3, size, size, device=model.device)
        return tuple(model.extract_tokens_and_grid(views)[1].shape[1:])


def stored_bytes(shape: Shape, dtype: str, grid: tuple[int, int, int] | None = None) -> int:
    """Bytes of all tokens, scales, masks and patch grids."""
    rows, draws, views, tokens, dimensions = shape
    a_token = dimensions + 2 if dtype == "int8" else 2 * dimensions
    grids = 0 if grid is None else 2 * rows * draws * math.prod(grid)
    return rows * views * (draws * tokens * a_token + 1) + grids


def quantized(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Round each token `(..., D)` to 255 levels between -max and max of its absolute values.

    Returns:
        int8 `(..., D)` and the step between two levels `(...)`, float16; their product is within half a step of the token.
    """
    smallest = torch.finfo(torch.float16).tiny
    scales = (tokens.abs().amax(-1) / INT8_LEVELS).clamp_min(smallest).to(torch.float16)
    levels = (tokens / scales.float().unsqueeze(-1)).round()
    return levels.clamp(-INT8_LEVELS, INT8_LEVELS).to(torch.int8), scales

"""Reading a feature cache: ready batches for the trainer, arrays for the baselines.

In come a cache and the rows it was made from, out go `view_features`, `view_mask`, `labels` and the metadata of a whole
batch, with the global view's patch grid and mask labels where they are kept, gathered from the mapped shards. The trainer's data loader needs no workers for it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from natix_roadwork.data.draws import DrawRows, Indices, address, chosen_draws
from natix_roadwork.data.feature_cache import FeatureCache
from natix_roadwork.data.mask_views import shares
from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs


ROWS_A_READ = 256


class FeatureRows(DrawRows):
    """Rows of a split with their cached tokens.

    A draw takes for each view one of the K augmented draws, chosen by (seed, epoch, position, view): K^V combinations of a
    photo; a depth view takes that of the global view. A bare row number takes the clean views.

    Args:
        cache: The tokens.
        rows: The rows they were made from, in the same order; the photos are not read.
        seed: Seed of the choice.
        metadata: What is read besides the photo; encoded once, here.
        chosen: `(M,)` rows of the cache that these are; all when None.
        mask_labels: The mask labels of the same rows and draws (`mask_labels.extract_mask_labels`); None = without.
        grid: Whether patch grids are read where the cache keeps them.

    Raises:
        ValueError: If cache, rows and mask labels differ in length or draws.
    """

    def __init__(
        self,
        cache: FeatureCache,
        rows: Dataset,
        *,
        seed: int = 0,
        metadata: MetadataInputs = NO_METADATA,
        chosen: NDArray[np.int64] | None = None,
        mask_labels: FeatureCache | None = None,
        grid: bool = True,
    ) -> None:
        """Read labels, masks and metadata into memory."""
        if len(rows) != cache.shape[0]:
            raise ValueError(f"rows has {len(rows)} rows, the features in {cache.folder} {cache.shape[0]}")
        if mask_labels is not None and mask_labels.shape[:2] != cache.shape[:2]:
            raise ValueError(
                f"the mask labels in {mask_labels.folder} are of {mask_labels.shape[:2]} rows and draws, the features in "
                f"{cache.folder} of {cache.shape[:2]}"
            )
        self.cache, self.rows, self.seed, self.metadata = cache, rows, seed, metadata
        self.mask_labels, self.grid = mask_labels, grid and "grid" in cache.shards[0]
        self.chosen = np.arange(len(rows)) if chosen is None else np.asarray(chosen, dtype=np.int64)
        self.labels = torch.tensor(rows["label"][:], dtype=torch.long)
        self.view_mask = torch.cat([shard["view_mask"] for shard in cache.shards])
        # (R (K + 1) V, ...): a view's tokens by one index
        self._vectors = [
            {name: values.flatten(0, 2) for name, values in shard.items() if name in ("tokens", "scales")}
            for shard in cache.shards
        ]
        columns = {name: rows[name][:] for name in metadata.columns}
        self._inputs = {"view_mask": self.view_mask, "labels": self.labels, **metadata.tensors(columns)}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.chosen)

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "FeatureRows":
        """Return some of these rows, in the order given."""
        chosen = self.chosen[np.asarray(rows, dtype=np.int64)]
        kept = {"seed": self.seed, "metadata": self.metadata, "mask_labels": self.mask_labels, "grid": self.grid}
        return FeatureRows(self.cache, self.rows, chosen=chosen, **kept)

    def read(self, draws: Indices) -> dict[str, Tensor]:
        """Return `view_features` `(B, V, T, D)` float16, `view_mask` `(B, V)`, `labels` `(B,)` and the metadata.

        A cache of patch grids gives `global_grid` `(B, h, w, D)` float16 too, and masks `mask_labels` `(B, C, m, m)`, both of
        the draw that the global view takes.
        """
        numbers, epochs, positions = address(draws)
        rows = self.chosen[numbers]
        _, num_draws, num_views, _, _ = self.cache.shape
        views = np.zeros((len(rows), num_views), dtype=np.int64)
        if epochs is not None and positions is not None:
            views = chosen_draws(self.seed, epochs, positions, num_views, num_draws - 1)
        if "depth" in self.cache.record:  # the last view goes where the global view goes
            views[:, -1] = views[:, 0]
        index = torch.from_numpy(rows)
        inputs = {name: values[index] for name, values in self._inputs.items()}
        if self.grid:
            inputs["global_grid"] = _of_draws(self.cache, "grid", rows, views[:, 0])
        if self.mask_labels is not None:
            inputs["mask_labels"] = shares(_of_draws(self.mask_labels, "mask_labels", rows, views[:, 0]))
        return {"view_features": self.gather(rows, views), **inputs}

    def gather(self, rows: NDArray[np.int64], draws: NDArray[np.int64]) -> Tensor:
        """Read tokens `(B, V, T, D)` float16.

        Args:
            rows: `(B,)` rows of the cache.
            draws: `(B, V)` draw of each view, 0 = clean.
        """
        _, num_draws, num_views, num_tokens, dimensions = self.cache.shape
        shards, places = np.divmod(rows, self.cache.rows_a_shard)
        order = np.argsort(shards, kind="stable")
        vectors = (places[:, None] * num_draws + draws) * num_views + np.arange(num_views)
        wanted = torch.from_numpy(vectors[order].reshape(-1))
        numbers, starts = np.unique(shards[order], return_index=True)
        edges = [*(starts * num_views).tolist(), len(wanted)]
        back = torch.from_numpy(np.argsort(order))

        def read(name: str, *shape: int) -> Tensor:
            """Gather what the shards hold under a name, `(B, V, *shape)`."""
            # Each shard's part is copied to its place in the order of shards, then all of it into that of the batch.
            first = self._vectors[0][name]
            found = torch.empty(len(wanted), *shape, dtype=first.dtype)
            for number, start, stop in zip(numbers.tolist(), edges, edges[1:], strict=False):
                torch.index_select(self._vectors[number][name], 0, wanted[start:stop], out=found[start:stop])
            return found.view(len(rows), num_views, *shape).index_select(0, back)

        tokens = read("tokens", num_tokens, dimensions)
        if "scales" in self._vectors[0]:
            return tokens * read("scales", num_tokens).unsqueeze(-1)
        return tokens

    def arrays(self) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """Read the clean tokens `(N, V, T, D)` float16 and the view masks `(N, V)` of all rows into memory."""
        tokens = np.empty((len(self), *self.cache.shape[2:]), np.float16)
        for start in range(0, len(self), ROWS_A_READ):
            rows = self.chosen[start : start + ROWS_A_READ]
            tokens[start : start + len(rows)] = self.gather(rows, np.zeros((len(rows), tokens.shape[1]), np.int64))
        return tokens, self.view_mask[torch.from_numpy(self.chosen)].numpy()


def _of_draws(cache: FeatureCache, name: str, rows: NDArray[np.int64], draws: NDArray[np.int64]) -> Tensor:
    """Read what each row has once a draw: `(B, ...)` of rows and draws `(B,)`."""
    shards, places = np.divmod(rows, cache.rows_a_shard)
    wanted = zip(shards.tolist(), places.tolist(), draws.tolist(), strict=True)
    return torch.stack([cache.shards[shard][name][place, draw] for shard, place, draw in wanted])

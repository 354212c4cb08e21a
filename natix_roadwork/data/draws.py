"""The address of one training example: which row, in which epoch, at which place of the epoch's draw.

A sampler gives draws instead of bare row numbers, and everything random about an example is a function of the seed and
its draw. So a resumed run, a cached one and a live one agree, also where sampling by weight draws a row twice. Rows are
read through a `DrawRows`: `data/feature_rows.py` from the cache, `data/photo_batches.py` from the photos.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.photo import PhotoSource


BLOCK_POSITIONS = 4096  # positions whose choices one generator makes
BLOCK_BITS = 40  # of a block's number, above which the epoch's begins


class Draw(NamedTuple):
    """One example of an epoch.

    Attributes:
        row: Index of the row in its split.
        epoch: Number of the epoch, from 0.
        position: Place among the draws of the epoch, from 0, over all processes.
    """

    row: int
    epoch: int
    position: int


Indices = Sequence[Draw] | Sequence[int]


class PhotoAugmentation(Protocol):
    """What cuts changed views out of a photo, the same for the same address; TTA transforms are one."""

    def views_of(
        self, processor: RoadworkImageProcessor, photo: PhotoSource, epoch: int, position: int
    ) -> tuple[NDArray[np.uint8], list[bool]]:
        """Cut the views of a photo and change them, and tell which are valid."""
        ...


class Augmentation(PhotoAugmentation, Protocol):
    """What also changes views that are cut already, and masks with them; `data.augmentation.ViewAugmentation` is one."""

    def __call__(
        self,
        views: NDArray[np.uint8],
        epoch: int,
        position: int,
        mask: NDArray[np.uint8] | None = None,
        view_indices: Sequence[int] | None = None,
    ) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the changed views `(V, S, S, 3)`, of the same shape, and with a mask of view 0 also the mask."""
        ...

    def views_and_cover(
        self, processor: RoadworkImageProcessor, photo: PhotoSource, bits: NDArray[np.uint8], epoch: int, position: int
    ) -> tuple[NDArray[np.uint8], list[bool], NDArray[np.uint8]]:
        """Do what `views_of` does, and bring the mask `(H, W)` of the photo to its global view, `(S, S, C)`."""
        ...

    def depth_view(
        self,
        processor: RoadworkImageProcessor,
        depth: NDArray[np.uint8],
        size: tuple[int, int],
        epoch: int,
        position: int,
    ) -> NDArray[np.uint8]:
        """Bring a photo's depth map `(h, w)` to where the global view is, `(S, S, 3)`; `size` is the photo's."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the outcome, the seed included, as JSON values."""
        ...


class DrawRows(Dataset, ABC):
    """Rows read a whole batch at a time, by draws or by bare row numbers.

    A bare row number is the row as it is, without augmentation: what evaluation and a plain `Trainer` ask for. The data
    loader's collate function is `whole_batch`.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def read(self, draws: Indices) -> dict[str, Tensor]:
        """Return the model's inputs for B draws, each with a leading axis of B."""

    def __getitem__(self, draw: Draw | int) -> dict[str, Tensor]:
        """Return the inputs of one draw, without the leading axis."""
        return {name: values[0] for name, values in self.read([draw]).items()}

    def __getitems__(self, draws: Indices) -> list[dict[str, Tensor]]:
        """Return one ready batch; in a list, so that a plain `Trainer` can take its unused columns away."""
        return [self.read(draws)]


def whole_batch(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Collate what `DrawRows.__getitems__` gives: the batch is ready."""
    (batch,) = batches
    return dict(batch)


def address(draws: Indices) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Split B draws into rows, epochs and positions, `(B,)` each; the latter are None for bare row numbers."""
    values = np.asarray(draws, dtype=np.int64)
    if values.ndim == 1:
        return values, None, None
    rows, epochs, positions = values.T
    return rows, epochs, positions


def chosen_draws(
    seed: int, epochs: NDArray[np.int64], positions: NDArray[np.int64], num_views: int, num_draws: int
) -> NDArray[np.int64]:
    """Choose a cached draw for each view of each example, uniformly and independently.

    Args:
        seed: Seed of the choice.
        epochs: `(B,)` epoch of each example.
        positions: `(B,)` place of each example in the epoch.
        num_views: V.
        num_draws: K augmented draws; 0 = only the clean one is there.

    Returns:
        `(B, V)` numbers in 1..K, or zeros without augmented draws.
    """
    chosen = np.zeros((len(positions), num_views), dtype=np.int64)
    if num_draws:
        blocks = (epochs << BLOCK_BITS) + positions // BLOCK_POSITIONS
        for number in np.unique(blocks).tolist():
            here = blocks == number
            choices = _block_of_choices(seed, *divmod(number, 1 << BLOCK_BITS), num_views, num_draws)
            chosen[here] = choices[positions[here] % BLOCK_POSITIONS]
    return chosen


@lru_cache(maxsize=8)
def _block_of_choices(seed: int, epoch: int, block: int, num_views: int, num_draws: int) -> NDArray[np.int64]:
    generator = np.random.default_rng([seed, epoch, block])
    return generator.integers(1, num_draws + 1, size=(BLOCK_POSITIONS, num_views))

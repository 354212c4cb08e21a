"""Which rows an epoch trains on, in which order.

In come the number of rows, or their sampling weights, out goes the sampler of the trainer's data loader.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers.utils import logging

from natix_roadwork.data.draws import Draw
from natix_roadwork.gps.sampler import GPSWeightedSampler


logger = logging.get_logger(__name__)


class EpochSampler(Sampler[int]):
    """A new order of the rows each epoch, the same on every process and after a resume.

    The rows beyond a multiple of `multiple_of` are left out, other ones each epoch, so that every step sees a full
    global batch however many processes share it.

    Args:
        num_rows: Rows to draw from.
        seed: Seed of the order.
        multiple_of: Rows of a global step; ignored when there are fewer rows.
    """

    def __init__(self, num_rows: int, seed: int, multiple_of: int = 1) -> None:
        """Begin at epoch 0."""
        self.num_rows = num_rows
        self.seed = seed
        self.epoch = 0
        self.length = num_rows // multiple_of * multiple_of or num_rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next; calling it twice changes nothing."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Rows of an epoch."""
        return self.length

    def __iter__(self) -> Iterator[int]:
        """Draw the order of the chosen epoch."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_rows)
        return iter(order[: self.length].tolist())


class DrawSampler(Sampler[Draw]):
    """The rows of another sampler, each with its address: the epoch, and its place among all draws of the epoch.

    It counts before the draws are dealt out to processes or skipped in a resumed epoch, so neither moves a position.

    Args:
        rows: Gives the row numbers of an epoch.
    """

    def __init__(self, rows: EpochSampler | GPSWeightedSampler) -> None:
        """Begin at the epoch that `rows` is at."""
        self.rows = rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next; calling it twice changes nothing."""
        self.rows.set_epoch(epoch)

    def __len__(self) -> int:
        """Draws in an epoch."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Draw]:
        """Draw the chosen epoch."""
        epoch = self.rows.epoch
        return (Draw(row, epoch, position) for position, row in enumerate(self.rows))


def train_sampler(
    num_rows: int, weights: NDArray[np.float64] | None, seed: int, multiple_of: int
) -> EpochSampler | GPSWeightedSampler:
    """Build the sampler of train rows: every row once an epoch, or as many independent draws by weight.

    Args:
        num_rows: Train rows.
        weights: `(num_rows,)` sampling weights; None = every row once.
        seed: Seed of the order or of the draws.
        multiple_of: Rows of a global step, of which an epoch has a whole number; ignored when there are fewer rows.

    Raises:
        ValueError: If there is not one weight for each row.
    """
    if weights is not None:
        if len(weights) != num_rows:
            raise ValueError(f"sampling_weights has {len(weights)} weights for {num_rows} train rows; give one a row")
        return GPSWeightedSampler(weights, num_rows // multiple_of * multiple_of or num_rows, seed)
    sampler = EpochSampler(num_rows, seed, multiple_of)
    if len(sampler) < num_rows:
        logger.info(f"Each epoch leaves out other {num_rows - len(sampler)} of {num_rows} rows to fill its steps.")
    return sampler

"""Draws rows by weight, the same on every process and after a resume.

In come sampling weights, out go row numbers, chunk by chunk. Next: `RoadworkTrainer` puts it into its data loader.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler


CHUNK_DRAWS = 1 << 20
_WORDS = 4  # 64-bit numbers that one step of Philox's counter gives


class GPSWeightedSampler(Sampler[int]):
    """Independent draws with replacement, row i with probability w_i / sum w.

    Draw number j of epoch e is a function of (seed, e, j) alone: word j of a Philox stream, a counter-based generator
    ([Salmon et al., 2011](https://doi.org/10.1145/2063384.2063405)), looked up in the cumulative weights in float64. So
    `draws` may start anywhere, and 2^24 rows, where `torch.multinomial` stops, are no limit.

    Args:
        weights: `(N,)` sampling weights, not negative, of any sum.
        num_samples: Draws in an epoch.
        seed: Seed of the draws.

    Raises:
        ValueError: If a weight is negative or not finite, all are 0, or a number is out of range.
    """

    def __init__(self, weights: ArrayLike, num_samples: int, seed: int) -> None:
        """Add up the weights and begin at epoch 0."""
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim != 1 or not len(weights):
            raise ValueError(f"weights must be of shape (N,) with N > 0, not {weights.shape}")
        if not (weights.min() >= 0 and 0 < weights.max() < np.inf):  # a NaN fails too
            wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
            found = f"weights[{wrong[0]}]={weights[wrong[0]]}" if len(wrong) else "all weights are 0"
            raise ValueError(f"{found}; weights must be finite, not negative, and one of them positive")
        if num_samples < 1 or seed < 0:
            raise ValueError(
                f"num_samples={num_samples}, seed={seed}: draw at least one row, with a seed of 0 or more"
            )
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0
        self._sums = np.cumsum(weights)
        self._last = int(np.searchsorted(self._sums, self._sums[-1], side="left"))  # the last row that can be drawn

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next; calling it twice changes nothing."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Draws in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        """Draw the chosen epoch, a chunk of rows in memory at a time."""
        epoch = self.epoch
        for start in range(0, self.num_samples, CHUNK_DRAWS):
            yield from self.draws(start, min(start + CHUNK_DRAWS, self.num_samples), epoch).tolist()

    def draws(self, start: int, stop: int, epoch: int | None = None) -> NDArray[np.int64]:
        """Return the rows at positions `start` to `stop` of an epoch's draw, without drawing those before.

        Args:
            start: First position.
            stop: Position after the last.
            epoch: The epoch; None = the chosen one.

        Raises:
            ValueError: If the positions are not in order.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"start={start}, stop={stop}: positions begin at 0 and go up")
        stream = np.random.Philox(np.random.SeedSequence([self.seed, self.epoch if epoch is None else epoch]))
        stream.advance(start // _WORDS)
        skipped = start % _WORDS
        values = np.random.Generator(stream).random(skipped + stop - start)[skipped:] * self._sums[-1]
        order = np.argsort(values)  # in order the search walks through memory instead of jumping
        rows = np.empty(len(values), dtype=np.int64)
        rows[order] = np.searchsorted(self._sums, values[order], side="right")
        return np.minimum(rows, self._last, out=rows)

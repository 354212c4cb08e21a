"""The address of one training example: which row, in which epoch, at which place of the epoch's draw.

A sampler gives draws instead of bare row numbers, and everything random about an example is a function of the seed and
its draw. So a resumed run, a cached one and a live one agree, also where sampling by weight draws a row twice.
"""

from typing import NamedTuple


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

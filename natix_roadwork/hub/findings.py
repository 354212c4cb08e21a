"""One line of the check of a model's folder, and what all lines together say."""

from dataclasses import dataclass
from typing import Literal


Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found.

    Attributes:
        name: What was looked at.
        status: `fail` = a stock miner would earn nothing, or not what the model is worth.
        found: What is there, and why that is so, for a reader.
        fix: What to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    fix: str = ""

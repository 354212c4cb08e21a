"""How much faster ours is than the plain way, as ratios that a noisy machine does not move.

The ways run in turn in one process (A B A B ...) and are compared by the processor time of their fastest round, all
threads counted. `finish` prints the rows, writes them where asked, and fails with `--check` when one misses its bar.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from natix_roadwork.environment import environment


@dataclass(frozen=True)
class Comparison:
    """One bar: what it costs, mostly in milliseconds of processor time, the plain way and ours.

    Attributes:
        name: What is compared.
        plain: The way that ours is measured against.
        ours: Our way.
        ratio: `plain / ours`, or what the bar speaks of.
        bar: What the ratio must reach; None = reported only.
        at_most: Whether the ratio must stay below the bar rather than reach it.
        error: How far the results are apart, in the unit the name says; None where they are not compared.
        error_bar: What `error` must stay below; None = reported only.
        unit: Of `plain` and `ours`.
    """

    name: str
    plain: float
    ours: float
    ratio: float
    bar: float | None = None
    at_most: bool = False
    error: float | None = None
    error_bar: float | None = None
    unit: str = "ms"

    def holds(self) -> bool:
        """Tell whether ratio and error are within their bars."""
        fast = self.bar is None or (self.ratio <= self.bar if self.at_most else self.ratio >= self.bar)
        return fast and (self.error is None or self.error_bar is None or self.error <= self.error_bar)


def fastest_rounds(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run each way once to warm up, then all in turn; milliseconds of processor time of each one's fastest round."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(1000 * (time.process_time() - start))
    return {name: min(values) for name, values in times.items()}


def options(description: str | None, paths: Sequence[str] = (), **defaults: int) -> argparse.Namespace:
    """Read `--rounds`, `--threads`, `--check`, `--output`, and optional paths and whole numbers of a benchmark's own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    for name in paths:
        parser.add_argument(f"--{name}", type=Path)
    for name, default in {"rounds": 5, **defaults}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    return chosen


def finish(comparisons: Sequence[Comparison], chosen: argparse.Namespace) -> None:
    """Print the comparisons, write them to `--output`, and fail with `--check` when one misses its bar."""
    for row in comparisons:
        bar = "" if row.bar is None else f" (bar {'<=' if row.at_most else '>='} {row.bar:g})"
        error = "" if row.error is None else f", apart by {row.error:.4g}"
        print(f"{row.name}: {row.plain:.2f} -> {row.ours:.2f} {row.unit}, ratio {row.ratio:.2f}{bar}{error}")
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        record = {"threads": chosen.threads, **environment(), "comparisons": [asdict(row) for row in comparisons]}
        chosen.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if chosen.check and (missed := [row.name for row in comparisons if not row.holds()]):
        sys.exit(f"below the bar: {'; '.join(missed)}")

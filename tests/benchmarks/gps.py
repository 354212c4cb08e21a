"""What GPS sampling costs for millions of rows, beside a loop over geopy and a NumPy broadcast.

    python tests/benchmarks/gps.py --threads 2

Prints one line of JSON: seconds and peak memory for the nearest target and the weights of 10 million rows, with exact
distances near the brackets' edges; processor time extrapolated for the two plain ways; and seconds and peak memory for 10
million draws from 20 million rows. With `--check` it fails above 60 s and 10 s, or 2 GiB.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
from geopy.distance import geodesic
from numpy.typing import NDArray

from natix_roadwork.environment import peak_memory_bytes
from natix_roadwork.gps.cities import CITIES
from natix_roadwork.gps.distance import EARTH_RADIUS_KM, nearest_targets
from natix_roadwork.gps.sampler import CHUNK_DRAWS, GPSWeightedSampler
from natix_roadwork.gps.weights import PLAN_BRACKETS, weigh_by_brackets


LOOP_PAIRS = 2_000
BROADCAST_ROWS = 200
LIMITS = {"weights_seconds": 60.0, "draws_seconds": 10.0, "peak_gib": 2.0}


def main() -> None:
    """Time each part, print the figures, and check them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="train rows to weigh")
    parser.add_argument("--targets", type=int, default=2_298, help="target points")
    parser.add_argument("--draws", type=int, default=10_000_000, help="draws from twice as many rows")
    parser.add_argument("--threads", type=int, default=2, help="threads of the search for the nearest target")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    train, target = _places(options.rows, draw, 1.0), _places(options.targets, draw, 0.2)
    figures = {"rows": options.rows, "targets": options.targets, "threads": options.threads}
    figures |= _weights(train, target, options.threads)
    pairs = options.rows * options.targets
    figures["geopy_loop_cpu_seconds"] = round(_loop_seconds(train, target) * pairs)
    figures["broadcast_cpu_seconds"] = round(_broadcast_seconds(train, target) * options.rows)
    for name in ("geopy_loop", "broadcast"):  # processor time, which other processes on the machine do not change
        figures[f"{name}_ratio"] = round(figures[f"{name}_cpu_seconds"] / figures["weights_cpu_seconds"], 1)
    del train
    figures |= _draws(options.draws)
    figures["peak_gib"] = round(peak_memory_bytes() / 2**30, 2)
    print(json.dumps(figures))
    if options.check and (over := [name for name, limit in LIMITS.items() if figures[name] > limit]):
        sys.exit(f"above the limit: {', '.join(f'{name}={figures[name]} > {LIMITS[name]}' for name in over)}")


def _places(num_rows: int, draw: np.random.Generator, spread: float) -> NDArray[np.float64]:
    """Points around the cities of the table, made in place."""
    points = draw.normal(0.0, spread, (num_rows, 2))
    points += np.array(list(CITIES.values()))[draw.integers(len(CITIES), size=num_rows, dtype=np.int32)]
    return points


def _timed(step: Callable[[], object]) -> tuple[float, float, object]:
    """Wall and processor seconds of a step, and what it returned."""
    wall, processor = time.perf_counter(), time.process_time()
    result = step()
    return time.perf_counter() - wall, time.process_time() - processor, result


def _weights(train: NDArray[np.float64], target: NDArray[np.float64], threads: int) -> dict[str, float]:
    edges = [edge for edge, _ in PLAN_BRACKETS]

    def weigh() -> tuple[int, int]:
        found = nearest_targets(train, target, edges, threads=threads)
        weigh_by_brackets(found.km)
        return found.num_near_edge, found.num_exact

    wall, processor, (near_edge, exact) = _timed(weigh)
    seconds = {"weights_seconds": round(wall, 1), "weights_cpu_seconds": round(processor, 1)}
    memory = {"weights_peak_gib": round(peak_memory_bytes() / 2**30, 2)}
    return seconds | memory | {"rows_near_an_edge": near_edge, "rows_with_exact_distance": exact}


def _loop_seconds(train: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Processor seconds a pair of a plain loop over geopy."""
    rows = range(LOOP_PAIRS)

    def loop() -> list[float]:
        return [geodesic(train[row % len(train)], target[row % len(target)]).km for row in rows]

    return _timed(loop)[1] / LOOP_PAIRS


def _broadcast_seconds(train: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Processor seconds a row of the haversine formula over all targets at once."""

    def broadcast() -> NDArray[np.float64]:
        first, second = np.radians(train[:BROADCAST_ROWS, None]), np.radians(target[None])
        half = np.sin((first - second) / 2) ** 2
        inner = half[..., 0] + np.cos(first[..., 0]) * np.cos(second[..., 0]) * half[..., 1]
        return (2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(inner))).min(axis=1)

    return _timed(broadcast)[1] / min(BROADCAST_ROWS, len(train))


def _draws(num_draws: int) -> dict[str, float]:
    weights = np.random.default_rng(1).choice([5.0, 2.5, 1.0, 0.3], 2 * num_draws)

    def draw() -> int:
        return sum(1 for _ in GPSWeightedSampler(weights, num_draws, seed=0))

    def resume() -> int:
        sampler = GPSWeightedSampler(weights, num_draws, seed=0)
        return len(sampler.draws(num_draws // 2, min(num_draws, num_draws // 2 + CHUNK_DRAWS)))

    wall, processor, drawn = _timed(draw)
    if drawn != num_draws:
        raise ValueError(f"draws={drawn}, asked for {num_draws}")
    seconds = {"draws_seconds": round(wall, 1), "draws_cpu_seconds": round(processor, 1)}
    return {"draws": num_draws} | seconds | {"resume_seconds": round(_timed(resume)[0], 1)}


if __name__ == "__main__":
    main()

"""Made-up coordinates for the tests of the GPS room."""

import numpy as np
from numpy.typing import NDArray


PITTSBURGH, HOUSTON = (40.4406, -79.9959), (29.7604, -95.3698)


def around(center: tuple[float, float], num_rows: int, seed: int = 0, spread: float = 0.1) -> NDArray[np.float64]:
    """Rows `(num_rows, 2)` in degrees, some ten kilometres around a place."""
    return np.asarray(center) + np.random.default_rng(seed).normal(0, spread, (num_rows, 2))


def missing(num_rows: int) -> NDArray[np.float64]:
    """Rows without coordinates."""
    return np.full((num_rows, 2), np.nan)


def near_and_far(num_near: int, num_far: int, num_missing: int = 0) -> NDArray[np.float64]:
    """Train rows in Pittsburgh, Houston (some 1,800 km away) and nowhere."""
    return np.concatenate([around(PITTSBURGH, num_near, 1), around(HOUSTON, num_far, 2), missing(num_missing)])

"""GPS sampling of a training run: coordinates of loaded rows in, the decision with its weights out.

`pretrain_inputs.py` asks before a token is computed, so that a refusal costs nothing.
"""

import logging
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.gps.coordinates import check_gps, load_gps, located
from natix_roadwork.gps.gate import SamplingPlan, plan_sampling
from natix_roadwork.gps.settings import GPSArguments


logger = logging.getLogger(__name__)


def gps_of(rows: Dataset) -> NDArray[np.float64]:
    """Return the coordinates of rows as `(N, 2)` degrees (latitude, longitude), NaN = missing."""
    table = rows.select_columns(["latitude", "longitude"]).with_format("arrow")[:]
    columns = [table[name].to_numpy() for name in ("latitude", "longitude")]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def sampling_of(rows: LoadedRows, settings: GPSArguments, seed: int = 0) -> SamplingPlan | None:
    """Decide how the train rows are drawn.

    Args:
        rows: The loaded data set; labels are read for the share of positives among the draws only.
        settings: Sampling, targets and gate.
        seed: Seed of the check's draws.

    Returns:
        The decision; None where sampling is off, or has no coordinates to go by and only has to warn.

    Raises:
        ValueError: If the targets or the coordinates cannot be used, or the gate refuses.
    """
    if settings.gps_sampling == "off":
        return None
    return plan_for(rows, settings, seed)


def plan_for(rows: LoadedRows, settings: GPSArguments, seed: int = 0) -> SamplingPlan | None:
    """Plan the draws whatever the sampling is, `off` included; see `sampling_of`."""
    train, target = gps_of(rows.splits["train"]), target_gps(rows, settings)
    for name, gps in (("train", train), (settings.gps_target, target)):
        if not located(gps).any():
            text = f"gps_sampling={settings.gps_sampling}: none of the {len(gps)} rows of {name} has coordinates"
            if settings.gps_gate == "refuse":
                raise ValueError(f"{text}; set --gps_sampling off, or a file of coordinates as --gps_target")
            logger.warning(f"{text}; every row is seen once an epoch.")
            return None
        if name in rows.splits:
            check_gps(gps, f"GPS of {name}", settings.gps_bounds or None, rows.splits[name]["row_id"])
    plan = plan_sampling(train, target, settings, np.asarray(rows.splits["train"]["label"][:]), seed)
    for text in plan.warnings:
        logger.warning(text)
    for text in plan.notes:
        logger.info(text)
    if settings.gps_target != "dev":
        place = Path(settings.gps_target).name
        plan.warnings.append(
            f"train rows are drawn to match the coordinates of {place} (covariate-shift adaptation, no labels): scores "
            "on those photos are not comparable with those of models that never saw their places"
        )
    return plan


def target_gps(rows: LoadedRows, settings: GPSArguments) -> NDArray[np.float64]:
    """Return the coordinates `(M, 2)` that the settings name as targets, NaN = missing.

    Raises:
        ValueError: If there is no such split, or the file cannot be used.
    """
    if settings.gps_target.endswith(".npy"):
        return load_gps(settings.gps_target, settings.gps_bounds or None)
    if settings.gps_target not in rows.splits:
        raise ValueError(
            f"gps_target={settings.gps_target!r}: {rows.dataset_name!r} has the splits {list(rows.splits)} only; name "
            "one of dev and test that is there, or a .npy file of coordinates"
        )
    return gps_of(rows.splits[settings.gps_target])

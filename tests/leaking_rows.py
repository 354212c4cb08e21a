"""Rows with the metadata of drawn scenes and flat photos of their size: what the leak audit reads, in a second."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from PIL import Image

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.scene_table import (
    SceneLeaks,
    SceneSettings,
    photo_shape,
    plan_rows,
    scene_features,
    scene_record,
)


def leaking_rows(folder: Path, num_rows: int = 420, **leaks: bool) -> Dataset:
    """Train and dev rows whose label leaks through the named fields of `SceneLeaks` and no other."""
    chosen = SceneLeaks(**{"description": False} | leaks)
    settings = SceneSettings(num_rows=num_rows, test_share=0.0, positive_share=0.7, leaks=chosen)
    records = []
    for plan in plan_rows(settings):
        shape = photo_shape(plan, settings)
        size = (64, 64 * shape[1] // shape[0])
        records.append(scene_record(plan, plan.place(settings), _flat(size), size, settings))
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(records, schema=scene_features().arrow_schema), folder / "train-0.parquet")
    splits = load_rows(str(folder), cache_dir=str(folder / "cache"), near_duplicates=False).splits
    return concatenate_datasets([splits["train"], splits["dev"]])


def shuffled_by_group(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Give each group the label of another group: labels that no field can tell, with the same groups."""
    names, first, of_row = np.unique(groups, return_index=True, return_inverse=True)
    return labels[first][np.random.default_rng(seed).permutation(len(names))][of_row]


@cache
def _flat(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "gray").save(buffer, "JPEG", quality=88)
    return buffer.getvalue()

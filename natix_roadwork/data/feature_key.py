"""What decides the tokens of a feature cache, as a readable record and a key.

In come rows, processor, model and options; out goes a record of JSON values, whose hash is the key. A cache is read only
where the record is the same to the last value.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset

from natix_roadwork.data.depth_source import RowDepths
from natix_roadwork.data.draws import Augmentation
from natix_roadwork.data.side_files import TAIL_BYTES, end_of_file
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkModel


FORMAT_VERSION = 2
VIEWS_A_PASS = 48  # a convolutional backbone on a CPU is fastest at 12 to 48 views
ROWS_A_SHARD, MOST_SHARDS = 64, 256
GRID_ROWS_A_SHARD, MOST_GRID_SHARDS = 16, 2048  # a row with grids takes megabytes, and a shard is built in memory


@dataclass(frozen=True)
class FeatureOptions:
    """How features are drawn and stored.

    Attributes:
        draws: K augmented draws of each view besides the clean one.
        dtype: `float16`, or `int8` with a scale for each token: half the bytes.
        precision: `float32`, or `bfloat16` to run the backbone under autocast.
        augmentation: Makes the K draws.
        grid: Whether the patch grid of each draw of the global view is kept too, as float16.
        depths: Depth maps of the rows, one more view each; None = no such view.

    Raises:
        ValueError: If a value is out of range, or draws are asked for without an augmentation.
    """

    draws: int = 0
    dtype: Literal["float16", "int8"] = "float16"
    precision: torch.dtype = torch.float32
    augmentation: Augmentation | None = None
    grid: bool = False
    depths: RowDepths | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.draws < 0 or (self.draws and self.augmentation is None):
            without = " without an augmentation to draw" if self.draws > 0 else ""
            raise ValueError(f"feature_draws={self.draws}{without}: it must be 0, or more with an augmentation")
        if self.dtype not in ("float16", "int8"):
            raise ValueError(f"feature_dtype={self.dtype!r} must be float16 or int8")
        if self.precision not in (torch.float32, torch.bfloat16):
            raise ValueError(f"precision={self.precision} must be torch.float32 or torch.bfloat16")


def num_views(model: RoadworkModel, options: FeatureOptions) -> int:
    """Views V of a row whose tokens are kept: those of the photo, and its depth where there are depth maps."""
    return model.config.photo_views + (options.depths is not None)


def rows_a_pass(views: int) -> int:
    """Rows whose views run through the backbone together; the last rows are filled up to as many."""
    return max(1, VIEWS_A_PASS // views)


def rows_a_shard(num_rows: int, views: int, grid: bool = False) -> int:
    """Rows of a file: at least 64, whole passes, and at most 256 files; with grids at least 16 rows, at most 2,048 files."""
    passes = rows_a_pass(views)
    least, most = (GRID_ROWS_A_SHARD, MOST_GRID_SHARDS) if grid else (ROWS_A_SHARD, MOST_SHARDS)
    return passes * -(-max(least, -(-num_rows // most)) // passes)


def feature_record(
    rows: Dataset, model: RoadworkModel, processor: RoadworkImageProcessor, options: FeatureOptions
) -> dict[str, Any]:
    """Return everything that decides the tokens, as JSON values: rows, processor, augmentation, backbone, storage.

    The kind of device does not: features of a GPU may train on a CPU.
    """
    config, augmentation = model.config, options.augmentation
    record = {
        "format": FORMAT_VERSION,
        "rows": {"count": len(rows), "fingerprint": photos_fingerprint(rows)},
        "processor": processor.settings() | {"do_normalize": False},
        "augmentation": augmentation.settings() if augmentation is not None and options.draws else None,
        "backbone_sha256": model.backbone_hash(),
        "feature_pooling": config.feature_pooling,
        "evidence_grid": config.evidence_grid,
        "feature_draws": options.draws,
        "feature_dtype": options.dtype,
        "precision": str(options.precision).removeprefix("torch."),
        "views_a_pass": VIEWS_A_PASS,
        "rows_a_shard": rows_a_shard(len(rows), num_views(model, options), options.grid),
    }
    if options.grid:  # left out otherwise: the key of a cache without grids is what it was before there were any
        record["grid"] = True
    if options.depths is not None:  # likewise
        record["depth"] = options.depths.fingerprint(rows)
    return json.loads(json.dumps(record))  # tuples become lists, as a file gives them back


def feature_key(record: Mapping[str, Any]) -> str:
    """Hash a record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name each value in which two records differ, by its path."""
    found = []
    for name in sorted(there.keys() | now.keys()):
        old, new = there.get(name, "nothing"), now.get(name, "nothing")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {old!r} there, {new!r} now")
    return found


def photos_fingerprint(rows: Dataset) -> str:
    """Hash the ids, sizes and last bytes of all photos in their order; equal on every machine, labels left out.

    The end of a compressed picture changes with anything before it, so a photo that was replaced under its name is
    noticed without reading all of every photo.

    Raises:
        ValueError: If a photo's file is gone.
    """
    digest = hashlib.sha256(json.dumps(rows["row_id"][:]).encode())
    images = rows.data.column("image")
    if rows._indices is not None:
        chosen = rows._indices.column(0)
    else:
        chosen = pa.chunked_array([pa.array(np.arange(len(rows)))])
    stored = pc.struct_field(images, "bytes")
    sizes = pc.binary_length(stored).take(chosen).to_pylist()
    tails = pc.binary_slice(stored, -TAIL_BYTES).take(chosen).to_pylist()
    paths = pc.struct_field(images, "path").take(chosen).to_pylist()
    for size, tail, path in zip(sizes, tails, paths, strict=True):
        if tail is None:
            size, tail = end_of_file(path, "photo")
        digest.update(f"{size} ".encode() + tail)
    return digest.hexdigest()

"""Tiny data sets made on the spot: photos, shards in NATIX's nineteen columns, imagefolders."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, Value
from PIL import Image as PILImage


NATIX_FEATURES = Features(
    {
        "image": Image(),
        "id": Value("int64"),
        "width": Value("int64"),
        "height": Value("int64"),
        "license": Value("int64"),
        "date_captured": Value("int64"),
        "flickr_url": Value("string"),
        "coco_url": Value("float64"),
        "gps": Value("string"),
        "city_name": Value("string"),
        "scene_description": Value("string"),
        "video_info.frame_id": Value("string"),
        "video_info.seq_id": Value("int64"),
        "video_info.vid_id": Value("string"),
        "scene_level_tags.daytime": Value("string"),
        "scene_level_tags.scene_environment": Value("string"),
        "scene_level_tags.travel_alteration": Value("string"),
        "scene_level_tags.weather": Value("string"),
        "label": Value("int64"),
    }
)


def _photo(
    width: int = 64, height: int = 48, *, seed: int | list[int] = 0, format: str = "JPEG", **options: Any
) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, format=format, **options)
    return buffer.getvalue()


def _natix_row(number: int, **changes: Any) -> dict[str, Any]:
    label = number % 2
    row = {
        "image": {"bytes": _photo(seed=number), "path": f"{number:05d}.jpg"},
        "id": number,
        "width": 64,
        "height": 48,
        "license": 0,
        "date_captured": 0,
        "flickr_url": None,
        "coco_url": None,
        "gps": f"[{39.77160604 + (number // 2 - 7) / 100}, -86.18823935]",
        "city_name": "indianapolis",
        "scene_description": "Cones close the right lane." if label else "No Description",
        "video_info.frame_id": f"{number:05d}.jpg",
        "video_info.seq_id": number // 2,
        "video_info.vid_id": f"v{number // 2}",
        "scene_level_tags.daytime": "Light",
        "scene_level_tags.scene_environment": "Urban",
        "scene_level_tags.travel_alteration": "['Partially Blocked']",
        "scene_level_tags.weather": "['Sunny', 'Clear']",
        "label": label,
    }
    return {**row, **changes}


def _write_shard(path: Path, rows: list[dict[str, Any]], features: Features = NATIX_FEATURES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), path)
    return path


def _write_imagefolder(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        path = folder / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_photo(seed=[number, *folder.name.encode()]))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def photo() -> Callable[..., bytes]:
    """Make an encoded photo of noise: `photo(width, height, seed=0, format="JPEG", **save_options)`."""
    return _photo


@pytest.fixture
def natix_row() -> Callable[..., dict[str, Any]]:
    """Make row `number` in NATIX's columns, odd numbers positive, two rows a video and place: `natix_row(number, **changes)`."""
    return _natix_row


@pytest.fixture
def write_shard() -> Callable[..., Path]:
    """Write rows as one parquet shard: `write_shard(path, rows, features)`."""
    return _write_shard


@pytest.fixture
def write_imagefolder() -> Callable[..., Path]:
    """Write metadata rows and a photo for each: `write_imagefolder(folder, rows)`."""
    return _write_imagefolder


@pytest.fixture
def natix_folder(tmp_path: Path) -> Path:
    """A folder of 24 train rows in two shards and six test rows of other videos."""
    folder = tmp_path / "natix"
    _write_shard(folder / "data" / "train-00000-of-00002.parquet", [_natix_row(n) for n in range(14)])
    _write_shard(folder / "data" / "train-00001-of-00002.parquet", [_natix_row(n) for n in range(14, 24)])
    _write_shard(folder / "data" / "test-00000-of-00001.parquet", [_natix_row(n) for n in range(100, 106)])
    return folder


@pytest.fixture
def fill_hub_cache(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str, Path], Path]:
    """Lay a folder's files out as a Hub cache holds a data set: `fill_hub_cache(cache, repo_id, folder)`."""

    def fill(cache: Path, repo_id: str, folder: Path) -> Path:
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = cache / f"datasets--{repo_id.replace('/', '--')}"
        snapshot = repository / "snapshots" / commit
        shutil.copytree(folder, snapshot)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        return snapshot

    return fill

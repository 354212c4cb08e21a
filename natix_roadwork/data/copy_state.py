"""What a copy needs around the photos: its arguments, its report, and files that are complete or absent.

In come the settings of `recipes/prepare_data.py`; `data/downscaled_copy.py` does the copying.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natix_roadwork.data.downscale import DownscaledPhoto


SETTINGS_FILE = "prepare_data.json"
PARTIAL_SUFFIX = ".partial"


@dataclass
class PrepareArguments:
    """What to copy and how small.

    Attributes:
        dataset_name: Hub id, folder or glob of parquet shards, or imagefolder.
        output_dir: New folder, or one where a copy with the same settings was stopped.
        rows_per_group: Rows read, held in memory and written at a time.
        num_workers: Threads that decode and encode; 0 = one for each CPU core.
    """

    dataset_name: str = field(metadata={"help": "Hub id, parquet shards, or imagefolder."})
    output_dir: str = field(metadata={"help": "Folder of the copy."})
    max_side: int = field(default=2048, metadata={"help": "Longest side of a photo in pixels."})
    quality: int = field(default=92, metadata={"help": "JPEG quality of a shrunk photo, 1 to 95."})
    rows_per_group: int = field(default=100, metadata={"help": "Rows held in memory at a time."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are copied as they are."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    num_workers: int = field(default=0, metadata={"help": "Threads; 0 = one for each CPU core."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        limits = {
            "max_side": (1, 100_000),
            "quality": (1, 95),
            "rows_per_group": (1, 100_000),
            "num_workers": (0, 256),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)} must lie between {low} and {high}")


@dataclass
class CopyReport:
    """What a copy did; files finished by an earlier run are counted apart.

    Attributes:
        shrunk: Photos made smaller.
        unchanged: Photos copied byte for byte.
        unreadable: Place and reason of each photo that cannot be read; copied byte for byte as well.
        bytes_read: Size of the photos read.
        bytes_written: Size of the photos written.
        files_already_there: Files of an earlier run.
    """

    shrunk: int = 0
    unchanged: int = 0
    unreadable: list[str] = field(default_factory=list)
    bytes_read: int = 0
    bytes_written: int = 0
    files_already_there: int = 0

    def add(self, place: str, data: bytes, photo: DownscaledPhoto) -> None:
        """Count one photo."""
        self.shrunk += photo.size is not None
        self.unchanged += photo.size is None
        self.bytes_read += len(data)
        self.bytes_written += len(photo.data)
        if photo.problem:
            self.unreadable.append(f"{place}: {photo.problem}")

    def summary(self) -> str:
        """Describe the copy in a few lines."""
        lines = [
            f"{self.shrunk} photos shrunk, {self.unchanged} copied as they are; {self.bytes_read / 1e6:.1f} MB read, "
            f"{self.bytes_written / 1e6:.1f} MB written; {self.files_already_there} files were there already"
        ]
        if self.unreadable:
            lines.append(f"{len(self.unreadable)} photos cannot be read and were copied as they are:")
            lines += [f"  {text}" for text in self.unreadable[:20]]
            lines += [f"  ... and {len(self.unreadable) - 20} more"] * (len(self.unreadable) > 20)
        return "\n".join(lines)


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    partial.write_bytes(data)
    os.replace(partial, path)


def enter_copy(target: Path, arguments: PrepareArguments, source: dict[str, Any]) -> None:
    """Create the folder with its settings, or check that it holds a copy with the same ones.

    Args:
        target: Folder of the copy.
        arguments: Sizes and quality.
        source: What is copied, with something for each file that changes when the file does.

    Raises:
        ValueError: If the folder holds anything else.
    """
    settings = {"max_side": arguments.max_side, "quality": arguments.quality}
    settings |= {"max_megapixels": arguments.max_megapixels, **source}
    path = target / SETTINGS_FILE
    if path.is_file():
        there = json.loads(path.read_text())
        differing = sorted(key for key in settings.keys() | there.keys() if settings.get(key) != there.get(key))
        if differing:
            changes = ", ".join(f"{key}: {there.get(key)!r} there, {settings.get(key)!r} now" for key in differing)
            raise ValueError(f"output_dir={str(target)!r} holds a copy with other settings ({changes[:500]})")
    elif target.exists() and any(target.iterdir()):
        raise ValueError(f"output_dir={str(target)!r} is not empty and has no {SETTINGS_FILE}; choose a new folder")
    write_file(path, json.dumps(settings, indent=2).encode())

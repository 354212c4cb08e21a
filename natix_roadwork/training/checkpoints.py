"""Checkpoint folders that survive a kill: which ones are complete, and removing the ones that are not.

A checkpoint is complete when its manifest lists every file with its size; the manifest is written last and renamed
into place. Whatever a killed process left behind (half-written, or half-deleted by rotation) fails that check.
"""

import json
import os
import re
import shutil
from pathlib import Path


MANIFEST_NAME = "complete.json"
_FOLDER = re.compile(r"^checkpoint-(\d+)$")


def checkpoint_folders(output_dir: str | Path) -> list[Path]:
    """Return the ``checkpoint-N`` folders of a run, complete or not, by ascending step."""
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        return []
    found = [folder for folder in output_dir.iterdir() if folder.is_dir() and _FOLDER.match(folder.name)]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(folder: str | Path) -> int:
    """Return the step N of a folder named ``checkpoint-N``.

    Raises:
        ValueError: If the folder has another name.
    """
    match = _FOLDER.match(Path(folder).name)
    if match is None:
        raise ValueError(f"folder: expected a name like 'checkpoint-100', got {Path(folder).name!r}")
    return int(match.group(1))


def mark_complete(folder: str | Path) -> None:
    """Write the manifest of a checkpoint all of whose other files have been written."""
    folder = Path(folder)
    partial = folder / f"{MANIFEST_NAME}.partial"
    partial.write_text(json.dumps({"files": _sizes(folder)}, indent=1), encoding="utf-8")
    os.replace(partial, folder / MANIFEST_NAME)


def is_complete(folder: str | Path) -> bool:
    """Tell whether a checkpoint holds every file its manifest lists, each of the listed size in bytes."""
    folder = Path(folder)
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        return False
    listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    present = _sizes(folder)
    return all(present.get(name) == size for name, size in listed.items())


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the complete checkpoint with the highest step, or None if there is none."""
    complete = [folder for folder in checkpoint_folders(output_dir) if is_complete(folder)]
    return complete[-1] if complete else None


def remove_incomplete(output_dir: str | Path) -> list[Path]:
    """Delete what a killed process left of its checkpoints.

    Returns:
        The folders that were deleted, to be named in the log.
    """
    leftovers = [folder for folder in checkpoint_folders(output_dir) if not is_complete(folder)]
    for folder in leftovers:
        shutil.rmtree(folder)
    return leftovers


def remove_all(output_dir: str | Path) -> list[Path]:
    """Delete every checkpoint of an earlier run and return the deleted folders."""
    folders = checkpoint_folders(output_dir)
    for folder in folders:
        shutil.rmtree(folder)
    return folders


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST_NAME))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}

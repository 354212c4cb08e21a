"""Find out what a data set's name stands for: a Hub id, parquet shards, or an imagefolder.

In comes the name; out goes a `Source` with the files of each split, which `data/dataset.py` reads.
"""

import difflib
import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError


SPLIT_NAMES = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
SPLITS = ("train", "dev", "test")
METADATA_FILE = "metadata.jsonl"
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_PATTERNS = ["*.parquet", f"*{METADATA_FILE}", *(f"*{suffix}" for suffix in PHOTO_SUFFIXES)]


@dataclass(frozen=True)
class Source:
    """Where the rows of a data set lie.

    Attributes:
        kind: How the name was understood.
        layout: How the files are laid out; a Hub data set has one of the two as well.
        files: For each split, its parquet shards in order, or its one imagefolder.
        shards: For each parquet shard, the name its row ids start with.
        commit: The commit of a Hub data set; None for local files.
    """

    kind: Literal["hub", "parquet", "imagefolder"]
    layout: Literal["parquet", "imagefolder"]
    files: dict[str, list[Path]]
    shards: dict[Path, str]
    commit: str | None = None


def find_source(dataset_name: str, revision: str | None = None) -> Source:
    """Decide by what is there: a local path first, then a Hub id.

    Args:
        dataset_name: A folder, a parquet file, a glob of parquet files, or `owner/name` on the Hub.
        revision: Branch, tag or commit of a Hub data set.

    Raises:
        ValueError: Naming what was looked for, when nothing fits or more than one thing does.
    """
    if not dataset_name.strip():
        raise ValueError("dataset_name is empty; name a folder, parquet shards or a Hub id")
    path = Path(dataset_name).expanduser()
    if revision is not None and (path.exists() or not HUB_ID.fullmatch(dataset_name)):
        raise ValueError(f"revision={revision!r} is for Hub data sets; dataset_name={dataset_name!r} is a local path")
    if path.is_dir():
        return _folder_source(path, dataset_name)
    if glob.has_magic(dataset_name) or path.suffix == ".parquet":
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        if not found:
            raise ValueError(f"dataset_name={dataset_name!r} matches no file")
        return _parquet_source([name for name in found if name.suffix == ".parquet"], "parquet", dataset_name)
    if path.exists():
        raise ValueError(f"dataset_name={dataset_name!r} is a file; expected a folder, parquet shards or a Hub id")
    if not HUB_ID.fullmatch(dataset_name):
        raise ValueError(
            f"dataset_name={dataset_name!r}: no such folder{_near(path)}, and it is not a Hub id of the form owner/name"
        )
    return _hub_source(dataset_name, revision, path)


def _hub_source(repo_id: str, revision: str | None, path: Path) -> Source:
    try:
        folder = snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            allow_patterns=HUB_PATTERNS,
            # huggingface_hub 1.33 asks the Hub for the files of a commit even when it may not.
            local_files_only=constants.HF_HUB_OFFLINE,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        at = f" at revision={revision!r}" if revision else ""
        raise ValueError(
            f"dataset_name={repo_id!r}: there is no such folder{_near(path)}, and the Hub data set{at} could not be "
            f"fetched ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'})"
        ) from error
    source = _folder_source(Path(folder), repo_id)
    commit = Path(folder).name  # the cache names a snapshot by its commit
    return Source("hub", source.layout, source.files, source.shards, commit)


def _folder_source(folder: Path, dataset_name: str) -> Source:
    parquet = sorted(folder.glob("*.parquet")) + sorted(folder.glob("data/*.parquet"))
    parquet += [name for split in SPLIT_NAMES for name in sorted(folder.glob(f"{split}/*.parquet"))]
    imagefolder = _imagefolder_files(folder)
    if parquet and imagefolder:
        raise ValueError(
            f"dataset_name={dataset_name!r} holds both parquet shards ({parquet[0].name}, ...) and {METADATA_FILE}; "
            "keep one of them, or name the shards by a glob such as 'folder/train-*.parquet'"
        )
    if parquet:
        return _parquet_source(parquet, "parquet", dataset_name)
    if imagefolder:
        return Source("imagefolder", "imagefolder", imagefolder, {})
    there = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    photos = sum(1 for entry in folder.rglob("*") if entry.suffix.lower() in PHOTO_SUFFIXES)
    listed = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    raise ValueError(
        f"dataset_name={dataset_name!r}: looked for *.parquet, data/*.parquet, {METADATA_FILE} and train/, dev/, test/ "
        f"with a {METADATA_FILE}; the folder " + (f"holds {listed} ({photos} photos)" if there else "is empty")
    )


def _imagefolder_files(folder: Path) -> dict[str, list[Path]]:
    inner: dict[str, list[Path]] = {}
    for name, split in SPLIT_NAMES.items():
        if (folder / name / METADATA_FILE).is_file():
            inner.setdefault(split, []).append(folder / name)
    for split, folders in inner.items():
        if len(folders) > 1:
            raise ValueError(f"{folder} has two {split} folders: {[entry.name for entry in folders]}; keep one")
    if not (folder / METADATA_FILE).is_file():
        bare = [name for name in SPLIT_NAMES if (folder / name).is_dir() and SPLIT_NAMES[name] not in inner]
        if inner and bare:
            raise ValueError(
                f"{folder}: sub-folder {bare[0]!r} has no {METADATA_FILE}; add one, or move the folder away"
            )
        return {split: inner[split] for split in SPLITS if split in inner}
    if inner:
        raise ValueError(
            f"{folder} has a {METADATA_FILE} of its own and one in {[f[0].name for f in inner.values()]}; "
            "keep one layout: a single folder, or sub-folders"
        )
    return {"train": [folder]}


def _parquet_source(paths: list[Path], kind: Literal["hub", "parquet"], dataset_name: str) -> Source:
    if not paths:
        raise ValueError(f"dataset_name={dataset_name!r} matches files, but none ends in .parquet")
    files: dict[str, list[Path]] = {}
    shards: dict[Path, str] = {}
    for path in paths:
        start = re.split(r"[-_.]", path.stem)[0]
        split = SPLIT_NAMES.get(start) or SPLIT_NAMES.get(path.parent.name)
        if split is None:
            raise ValueError(
                f"dataset_name={dataset_name!r}: cannot tell the split of {path.name}; shard names start with one of "
                f"{list(SPLIT_NAMES)}, as in train-00000-of-00026.parquet"
            )
        files.setdefault(split, []).append(path)
        shards[path] = path.stem if start in SPLIT_NAMES else f"{split}/{path.stem}"
    twice = {name for name in shards.values() if list(shards.values()).count(name) > 1}
    if twice:
        both = [str(path) for path, name in shards.items() if name in twice]
        raise ValueError(f"dataset_name={dataset_name!r}: shards share a name, row ids would not be unique: {both}")
    return Source(kind, "parquet", {split: files[split] for split in SPLITS if split in files}, shards)


def _near(path: Path) -> str:
    parent = path.parent if path.parent.is_dir() else Path()
    near = difflib.get_close_matches(path.name, [entry.name for entry in parent.iterdir() if entry.is_dir()], n=1)
    return f" (nearest: {str(parent / near[0])!r})" if near else ""

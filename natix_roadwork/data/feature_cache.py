"""The frozen backbone's tokens of every row, computed once: the clean views and K augmented draws of each.

In come rows with encoded photos, the model and its processor; out goes a folder of shards that `data/feature_rows.py`
reads. A folder holds::

    settings.json                    what the tokens depend on, readable; its hash is the cache's key
    shard-00000.safetensors ...      tokens (R, K + 1, V, T, D), view_mask (R, V), with int8 also scales (R, K + 1, V, T),
                                     with the patch grid of the global view also grid (R, K + 1, h, w, D)
    manifest.json                    written last: shape, and size and checksum of each shard

Draw 0 is clean; draw k of row r is the augmentation at epoch k - 1 and position r. Which rows run through the backbone
together depends on their numbers alone, so any number of processes, and any resume, give the same bytes.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers.utils import logging

from natix_roadwork.data.feature_key import (
    FeatureOptions,
    differences,
    feature_key,
    feature_record,
    num_views,
)
from natix_roadwork.data.feature_shards import (
    DamagedShardError,
    check_space,
    read_shard,
    remove_leftovers,
    shard_facts,
    verify_shard,
    write_json,
    write_shard,
)
from natix_roadwork.data.token_passes import TokenPasses, num_tokens, stored_bytes
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkModel


logger = logging.get_logger(__name__)

SETTINGS_NAME = "settings.json"
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class FeatureCache:
    """A complete cache of one split.

    Attributes:
        folder: Where it lies.
        record: What its tokens depend on (`feature_key.feature_record`).
        shape: (N, K + 1, V, T, D) of all tokens.
        rows_a_shard: Rows of each shard but the last.
        shards: The shards' tensors, mapped into memory.
    """

    folder: Path
    record: dict[str, Any]
    shape: tuple[int, int, int, int, int]
    rows_a_shard: int
    shards: list[dict[str, torch.Tensor]]

    @classmethod
    def open(cls, folder: str | Path) -> "FeatureCache":
        """Open a complete cache; every shard must be there with the size and checksum of the manifest.

        The shards' contents were compared with their checksums by `extract_features`, which every run calls.

        Raises:
            ValueError: If the cache is not complete, or a shard is missing or damaged.
        """
        folder = Path(folder)
        record, manifest = _read_json(folder / SETTINGS_NAME), _read_json(folder / MANIFEST_NAME)
        if record is None or manifest is None or manifest["key"] != feature_key(record):
            raise ValueError(f"{folder} holds no complete features; extract them (recipes/extract_features.py)")
        paths = [folder / facts["name"] for facts in manifest["shards"]]
        for path, facts in zip(paths, manifest["shards"], strict=True):
            if shard_facts(path) != facts:
                raise DamagedShardError(f"{path} is not the one of {MANIFEST_NAME}; delete it and extract again")
        shards = [read_shard(path) for path in paths]
        return cls(folder, record, tuple(manifest["shape"]), record["rows_a_shard"], shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tokens, masks and scales."""
        return sum(tensor.nbytes for shard in self.shards for tensor in shard.values())


def extract_features(
    rows: Dataset,
    model: RoadworkModel,
    processor: RoadworkImageProcessor,
    options: FeatureOptions | None = None,
    *,
    folder: str | Path | None = None,
    num_workers: int = 0,
    state: PartialState | None = None,
    description: str = "Backbone tokens",
) -> FeatureCache:
    """Run the frozen backbone over every row whose tokens are not there yet, and open the cache.

    Called again it computes nothing: it compares every shard's content with its checksum and opens it. After a kill it
    continues with the shards that are missing. Two runs at once on one folder do the same work twice, harmlessly.

    Args:
        rows: Rows of `data.dataset.load_rows`.
        model: Gives the tokens; it runs on the device it is on.
        processor: Cuts the views; its `max_megapixels` limits the photos.
        options: Draws and storage; by default clean float16 tokens.
        folder: The cache's own folder, on a disk that all processes share; None = one in the datasets cache, named by
            the key, so that caches of other settings stay beside it.
        num_workers: Processes that decode photos and cut views while the backbone runs.
        state: The processes that share the work, shard i to process i modulo their number; None = this one alone.
        description: Text of the progress bar.

    Raises:
        ValueError: If the folder holds features of other settings (they are named), a shard is damaged, or a photo cannot
            be decoded (its row id is named).
        OSError: If the disk is too full.
    """
    options = options or FeatureOptions()
    record = feature_record(rows, model, processor, options)
    if folder is None:
        folder = Path(datasets.config.HF_DATASETS_CACHE) / "natix_roadwork_features" / feature_key(record)[:32]
    shape = (len(rows), options.draws + 1, num_views(model, options), num_tokens(model), model.config.feature_dim)
    passes = TokenPasses(rows, model, processor, options, shape)
    if state is not None and state.num_processes > 1:
        description += f", process {state.process_index + 1} of {state.num_processes}"
    compute = partial(passes.compute, num_workers=num_workers, description=description)
    return fill_cache(folder, record, shape, compute, stored_bytes(shape, options.dtype, passes.grid), state)


def fill_cache(
    folder: str | Path,
    record: dict[str, Any],
    shape: tuple[int, int, int, int, int],
    compute: Callable[..., Iterator[dict[str, torch.Tensor]]],
    num_bytes: int,
    state: PartialState | None = None,
) -> FeatureCache:
    """Compute the shards of a folder that are missing, and open it.

    Args:
        folder: Where they lie.
        record: What they depend on, with `rows.count` and `rows_a_shard`; another one's folder is refused.
        shape: Of all values, N first.
        compute: Called with the ranges of rows to compute, `finished` rows and whether to `show` progress; yields the
            tensors of each range.
        num_bytes: Of all shards.
        state: The processes that share the work; None = this one alone.

    Raises:
        ValueError: As `extract_features`.
        OSError: If the disk is too full.
    """
    folder, key = Path(folder), feature_key(record)
    is_main = state is None or state.is_main_process
    check_settings(folder, record)
    if is_main:
        _enter(folder, record)
    _wait(state)
    paths = shard_paths(folder, record)
    own = {number: path for number, path in enumerate(paths) if state is None or _is_own(number, state)}
    there = {number: path for number, path in own.items() if path.is_file()}
    _verify(list(there.values()), key)
    missing = {number: path for number, path in own.items() if number not in there}
    if missing:
        if (folder / MANIFEST_NAME).is_file():
            logger.warning(f"{[path.name for path in missing.values()]} of {folder} are missing and computed again.")
        absent = sum(not path.is_file() for path in paths)
        check_space(folder, num_bytes * absent // len(paths))
        size, rows = record["rows_a_shard"], record["rows"]["count"]
        ranges = {number: range(number * size, min((number + 1) * size, rows)) for number in own}
        finished, todo = sum(len(ranges[number]) for number in there), [ranges[number] for number in missing]
        shards = compute(todo, finished=finished, show=is_main)
        for path, tensors in zip(missing.values(), shards, strict=True):
            write_shard(path, tensors, key)
    _wait(state)
    if is_main:
        _finish(folder, key, shape, paths)
    _wait(state)
    return FeatureCache.open(folder)


def shard_paths(folder: Path, record: dict[str, Any]) -> list[Path]:
    """Name every shard of a cache."""
    number = -(-record["rows"]["count"] // record["rows_a_shard"])
    return [folder / f"shard-{index:05d}.safetensors" for index in range(number)]


def check_settings(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a folder that holds features of other settings.

    Raises:
        ValueError: If it does; the settings that differ are named.
    """
    there = _read_json(folder / SETTINGS_NAME)
    if there is not None and there != record:
        changes = "; ".join(differences(there, record))
        raise ValueError(
            f"feature_cache: {folder} holds features of other settings ({changes}); choose another folder, go back to "
            "those settings, or delete it"
        )


def _enter(folder: Path, record: dict[str, Any]) -> None:
    """Make the folder, and the one that says what it holds; of two runs that begin at once, one does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in remove_leftovers(folder):
        logger.warning(f"Removed {folder / name}, left by a process that was killed.")
    if not (folder / SETTINGS_NAME).is_file():
        try:
            write_json(folder / SETTINGS_NAME, record, exclusive=True)
        except FileExistsError:
            check_settings(folder, record)


def _is_own(number: int, state: PartialState) -> bool:
    return number % state.num_processes == state.process_index


def _verify(paths: Sequence[Path], key: str) -> None:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # hashing leaves the interpreter free
        list(threads.map(partial(verify_shard, key=key), paths))


def _finish(folder: Path, key: str, shape: tuple[int, ...], paths: Sequence[Path]) -> None:
    """Write the manifest, unless the same one is there."""
    manifest = {"key": key, "shape": list(shape), "shards": [shard_facts(path) for path in paths]}
    if _read_json(folder / MANIFEST_NAME) != manifest:
        write_json(folder / MANIFEST_NAME, manifest)


def _wait(state: PartialState | None) -> None:
    if state is not None:
        state.wait_for_everyone()


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it and extract the features again") from error

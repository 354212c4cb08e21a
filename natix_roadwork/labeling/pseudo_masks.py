"""The pseudo-mask run: one provider over the photos of a data set, a PNG and a record each.

`recipes/pseudo_masks.py` calls `mark_photos` and prints `pseudo_mask_report.mask_table`. A folder holds::

    settings.json                            what the masks depend on, readable
    train/0.png_seg_mask.png, ....json       mask and record of a row (`data/masks.py`), the PNG last
    failures.jsonl                           photos of the last run that have no mask, and why
    result.json                              what was found, by split and class

A photo is done when its mask is there. Any number of processes, and any kill and resume, give the same bytes.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.feature_key import differences, photos_fingerprint
from natix_roadwork.data.feature_shards import remove_leftovers, write_json, write_whole
from natix_roadwork.data.masks import mask_path, record_path
from natix_roadwork.inference.predict_inputs import load_predicted
from natix_roadwork.labeling.mask_provider import MaskProvider
from natix_roadwork.labeling.photo_marking import Failure, PhotoMarker, Place
from natix_roadwork.labeling.providers import load_provider
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_mask_report import summarise
from natix_roadwork.runs import RunRecorder, RunResult


logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
SETTINGS_NAME = "settings.json"
FAILURES_NAME = "failures.jsonl"


def mark_photos(settings: PseudoMaskArguments) -> RunResult:
    """Mark every photo that has no mask yet, and write masks, `failures.jsonl` and `result.json`.

    Args:
        settings: Provider, photos and where the masks go.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError: If the provider cannot start, the data or a setting cannot be used, or the folder holds masks of other
            settings, which are named.
    """
    with RunRecorder(dataclasses.asdict(settings), settings.seed) as recorder:
        state = settings.state()
        rows, splits = load_marked(settings, state)
        provider = load_provider(settings, state.device, rows)
        folder, record = Path(settings.output_dir), mask_settings(provider, rows, settings)
        check_settings(folder, record)
        todo: list[Any] = [None]
        if state.is_main_process:
            _enter(folder, record, splits)
            todo = [_missing(folder, splits)]
        missing: list[Place] = broadcast_object_list(todo)[0]
        started = time.perf_counter()
        own = missing[state.process_index :: state.num_processes]
        marker = PhotoMarker(provider, record["provider"].get("prompts"), splits, settings)
        failures = gather_object(_mark(marker, own, state, sum(map(len, splits.values())) - len(missing)))
        seconds = time.perf_counter() - started
        recorder.data = rows.as_dict()
        if state.is_main_process:
            written = len(missing) - len(failures)
            ordered = _in_order(failures, missing, splits)
            write_whole(folder / FAILURES_NAME, "".join(json.dumps(line) + "\n" for line in ordered).encode())
            recorder.details = summarise(folder, splits, ordered, record["provider"], rows.lockbox) | {
                "seconds": seconds,
                "photos_written": written,
                "photos_per_second": written / seconds if written else None,
            }
            recorder.warnings += _warnings(recorder.details, rows, splits)
            recorder.write(folder)
        state.wait_for_everyone()
        return recorder.result()


def load_marked(settings: PseudoMaskArguments, state: PartialState) -> tuple[LoadedRows, dict[str, Dataset]]:
    """Load the data set, and of its splits those to mark.

    Raises:
        ValueError: If the data cannot be used, or a split is not there, empty, or a lockbox that was not asked for.
    """
    rows, splits = load_predicted(settings.rows, state, allow_lockbox=True)
    if rows.lockbox and "test" in splits and not settings.allow_lockbox:
        raise ValueError(
            f"splits={settings.splits!r}: the test split of {settings.dataset_name!r} is a lockbox; masks of it are for "
            "nothing that trains or tunes. Leave test out, or give --allow_lockbox true"
        )
    return rows, splits


def mask_settings(provider: MaskProvider, rows: LoadedRows, settings: PseudoMaskArguments) -> dict[str, Any]:
    """Return everything that decides the masks, as JSON values; not which splits are marked."""
    photos = {name: {"count": len(split), "photos": photos_fingerprint(split)} for name, split in rows.splits.items()}
    record = {
        "format": FORMAT_VERSION,
        "provider": {"name": provider.name, "classes": list(provider.classes), **provider.settings()},
        "min_score": settings.min_score,
        "min_area": settings.min_area,
        "max_megapixels": settings.max_megapixels,
        "data": {"fingerprint": rows.fingerprint, "splits": photos},
    }
    return json.loads(json.dumps(record))  # tuples become lists, as a file gives them back


def check_settings(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse a folder that holds masks of other settings, or something else.

    Raises:
        ValueError: If it does; the settings that differ are named.
    """
    place = folder / SETTINGS_NAME
    if not place.is_file():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"output_dir={str(folder)!r} holds files but no {SETTINGS_NAME} of masks; choose another")
        return
    try:
        there = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{place} is no JSON ({error}); choose another output_dir or delete this one") from error
    if there != record:
        raise ValueError(
            f"output_dir: {folder} holds masks of other settings ({'; '.join(differences(there, record))}); go back to "
            "those settings, choose another output_dir, or delete it"
        )


def _enter(folder: Path, record: Mapping[str, Any], splits: Mapping[str, Dataset]) -> None:
    """Make the folder, say what it holds, and remove what a killed process left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {mask_path(folder, row_id).parent for split in splits.values() for row_id in split["row_id"][:]}
    for place in sorted({folder, *places}):
        for name in remove_leftovers(place):
            logger.info(f"Removed {place / name}, left by a process that was killed.")
    for path in folder.glob("tmp*.part"):  # of a result.json
        path.unlink(missing_ok=True)
    if not (folder / SETTINGS_NAME).is_file():
        write_json(folder / SETTINGS_NAME, record)


def _missing(folder: Path, splits: Mapping[str, Dataset]) -> list[Place]:
    """Name the photos that have no mask, or one without its record, as split and row."""
    places = []
    for name, split in splits.items():
        for row, row_id in enumerate(split["row_id"][:]):
            path = mask_path(folder, row_id)
            if not (path.is_file() and record_path(path).is_file()):
                places.append((name, row))
    return places


def _mark(marker: PhotoMarker, places: list[Place], state: PartialState, done: int) -> list[Failure]:
    """Mark this process's photos under a progress bar; returns those that could not be."""
    failures = []
    description, share = f"Masks by {marker.provider.name}", state.num_processes
    if share > 1:
        description += f", process {state.process_index + 1} of {share}"
    bar = {"initial": done // share, "total": done // share + len(places), "disable": not state.is_main_process}
    with logging_redirect_tqdm(), tqdm(desc=description, unit=" photos", **bar) as progress:
        for failure in marker.mark(places):
            if failure is not None:
                failures.append(failure)
                logger.warning(f"{failure['reason']}: {failure['message']}")
            progress.update()
    return failures


def _in_order(failures: list[Failure], missing: list[Place], splits: Mapping[str, Dataset]) -> list[Failure]:
    """Bring the failures of all processes into the order of the rows."""
    ids = {name: split["row_id"][:] for name, split in splits.items()}
    by_id = {failure["row_id"]: failure for failure in failures}
    return [by_id[ids[split][row]] for split, row in missing if ids[split][row] in by_id]


def _warnings(details: Mapping[str, Any], rows: LoadedRows, splits: Mapping[str, Dataset]) -> list[str]:
    found = []
    if details["failures"]:
        found.append(
            f"photos without a mask: {details['failures']}; {FAILURES_NAME} names them, the next run tries again"
        )
    dropped = rows.report.dropped
    if dropped:
        found.append(
            f"rows dropped when the data set was read: {len(dropped)}, such as {dropped[0].row_id!r} ({dropped[0].reason}); "
            "they have no mask"
        )
    if details["unknown_classes"]:
        found.append(f"classes nobody looked for: {', '.join(details['unknown_classes'])}; their masks are unknown")
    found += [f"{note}: {count}" for note, count in details["notes"].items()]
    if rows.lockbox and "test" in splits:
        found.append("the lockbox was marked; its masks must not train or tune anything")
    return found

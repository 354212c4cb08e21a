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

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.feature_key import differences, photos_fingerprint
from natix_roadwork.data.feature_shards import remove_leftovers, write_json, write_whole
from natix_roadwork.data.masks import MaskError, class_areas, mask_path, record_path, write_mask
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.inference.photo_files import ReadPhoto, read_ahead
from natix_roadwork.inference.predict_inputs import load_predicted
from natix_roadwork.labeling.mask_provider import FoundObject, MaskProvider, PhotoObjects
from natix_roadwork.labeling.providers import load_provider
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_mask_report import summarise
from natix_roadwork.model.photo import load_photo
from natix_roadwork.runs import RunRecorder, RunResult


logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
SETTINGS_NAME = "settings.json"
FAILURES_NAME = "failures.jsonl"
LOW_SCORE, SMALL = "score below min_score", "area below min_area"

Place = tuple[str, int]
Failure = dict[str, str]


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
        failures = gather_object(_mark(own, splits, provider, settings, state, sum(map(len, splits.values()))))
        seconds = time.perf_counter() - started
        recorder.data = rows.as_dict()
        if state.is_main_process:
            written = len(missing) - len(failures)
            ordered = _in_order(failures, missing, splits)
            write_whole(folder / FAILURES_NAME, "".join(json.dumps(line) + "\n" for line in ordered).encode())
            recorder.details = summarise(folder, splits, ordered, provider, rows.lockbox) | {
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


def filtered(objects: list[FoundObject], min_score: float, min_area: int) -> tuple[list[FoundObject], dict[str, int]]:
    """Leave out objects of low score, then small ones; returns the others and how many were left out, by reason."""
    sure = [found for found in objects if found.score >= min_score]
    large = [found for found in sure if found.area >= min_area]
    return large, {LOW_SCORE: len(objects) - len(sure), SMALL: len(sure) - len(large)}


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


def _mark(
    places: list[Place],
    splits: Mapping[str, Dataset],
    provider: MaskProvider,
    settings: PseudoMaskArguments,
    state: PartialState,
    total: int,
) -> list[Failure]:
    """Mark this process's photos; returns those that could not be."""

    def read(place: str) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        split, row = place.split(" ")
        values = splits[split][int(row)]
        return values, load_photo(photo_source(values["image"]), settings.max_megapixels, values["row_id"])

    failures = []
    description = f"Masks by {provider.name}"
    if state.num_processes > 1:
        description += f", process {state.process_index + 1} of {state.num_processes}"
    keys = [f"{split} {row}" for split, row in places]
    finished = total // state.num_processes - len(places) if places else total
    show = {"unit": " photos", "initial": max(0, finished), "disable": not state.is_main_process}
    with logging_redirect_tqdm(), tqdm(total=max(0, finished) + len(places), desc=description, **show) as progress:
        for batch in read_ahead(keys, read, settings.num_workers, settings.num_workers):
            for photo in batch:
                failure = _mark_photo(photo, splits, provider, settings)
                if failure is not None:
                    failures.append(failure)
                    logger.warning(f"{failure['reason']}: {failure['message']}")
                progress.update()
    return failures


def _mark_photo(
    photo: ReadPhoto[tuple[dict[str, Any], NDArray[np.uint8]]],
    splits: Mapping[str, Dataset],
    provider: MaskProvider,
    settings: PseudoMaskArguments,
) -> Failure | None:
    """Write the mask of one photo, or tell why there is none."""
    split, row = photo.path.split(" ")
    row_id = splits[split][int(row)]["row_id"] if photo.content is None else photo.content[0]["row_id"]
    if photo.content is None:
        reason, message = "unreadable photo", f"row {row_id!r}: {photo.error}"
    else:
        try:
            _write(provider, *photo.content, settings)
            return None
        except ValueError as error:
            reason = error.reason if isinstance(error, MaskError) else "not marked"
            message = " ".join(str(error).split())
    record_path(mask_path(settings.output_dir, row_id)).unlink(missing_ok=True)  # of a mask that was never written
    return {"row_id": row_id, "split": split, "reason": reason, "message": message}


def _write(
    provider: MaskProvider, row: Mapping[str, Any], photo: NDArray[np.uint8], settings: PseudoMaskArguments
) -> None:
    found = provider.find(row, photo)
    kept, left_out = filtered(found.objects, settings.min_score, settings.min_area)
    bits = PhotoObjects(kept).bits(photo.shape[1], photo.shape[0])
    prompts = provider.settings().get("prompts")
    record = {
        "provider": provider.name,
        "classes": list(provider.classes),
        **({} if prompts is None else {"prompts": prompts}),
        "presence": found.presence,
        "objects": [
            {"kind": one.kind, "prompt": one.prompt, "score": one.score, "area": one.area, "box": list(one.box)}
            for one in kept
        ],
        "areas": class_areas(bits),
        "left_out": left_out,
        "notes": found.notes,
    }
    write_mask(settings.output_dir, row["row_id"], bits, record)


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
    if details["unknown_classes"]:
        found.append(f"classes nobody looked for: {', '.join(details['unknown_classes'])}; their masks are unknown")
    found += [f"{note}: {count}" for note, count in details["notes"].items()]
    if rows.lockbox and "test" in splits:
        found.append("the lockbox was marked; its masks must not train or tune anything")
    return found

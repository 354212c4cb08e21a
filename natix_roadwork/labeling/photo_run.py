"""A run that makes files of every photo of a data set: shared by processes, resumed after a kill, failures named.

`pseudo_masks.py` and `depth_maps.py` call `run_photos` with what writes a photo's files. A folder holds::

    settings.json       what the files depend on, readable
    train/0.png_...     files of a row, at the place that the writer says
    failures.jsonl      photos of the last run that have none, and why
    result.json         what came out

A photo is done when its files are there. Any number of processes, and any kill and resume, give the same bytes.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
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
from natix_roadwork.inference.predict_inputs import load_predicted
from natix_roadwork.labeling.photo_marking import Failure, PhotoMarker, PhotoWriter, Place
from natix_roadwork.labeling.photo_run_arguments import PhotoRunArguments


logger = logging.getLogger(__name__)

SETTINGS_NAME = "settings.json"
FAILURES_NAME = "failures.jsonl"


@dataclass(frozen=True)
class PhotoRun:
    """What a run did.

    Attributes:
        failures: Photos without files, in the order of the rows; of all processes on the main one, else of this one.
        written: Photos whose files were written now.
        seconds: From the first photo to the last.
    """

    failures: list[Failure]
    written: int
    seconds: float

    def speed(self) -> dict[str, float | int | None]:
        """Return the figures for `result.json`."""
        rate = self.written / self.seconds if self.written else None
        return {"seconds": self.seconds, "photos_written": self.written, "photos_per_second": rate}


def describe_speed(details: Mapping[str, Any]) -> str:
    """Return `PhotoRun.speed` as a line."""
    if details["photos_per_second"] is None:
        return "nothing was left to mark"
    return f"{details['photos_written']} photos in {details['seconds']:.0f} s, {details['photos_per_second']:.1f} a second"


def load_photo_rows(
    settings: PhotoRunArguments, product: str, state: PartialState
) -> tuple[LoadedRows, dict[str, Dataset]]:
    """Load the data set, and of its splits those to take.

    Raises:
        ValueError: If the data cannot be used, or a split is not there, empty, or a lockbox that was not asked for.
    """
    rows, splits = load_predicted(settings.rows, state, allow_lockbox=True)
    if rows.lockbox and "test" in splits and not settings.allow_lockbox:
        raise ValueError(
            f"splits={settings.splits!r}: the test split of {settings.dataset_name!r} is a lockbox; {product}s of it are "
            "for nothing that trains or tunes. Leave test out, or give --allow_lockbox true"
        )
    return rows, splits


def run_photos(
    writer: PhotoWriter,
    rows: LoadedRows,
    splits: Mapping[str, Dataset],
    settings: PhotoRunArguments,
    state: PartialState,
) -> PhotoRun:
    """Make the files of every photo that has none yet, and write `failures.jsonl`.

    Args:
        writer: Makes a photo's files.
        rows: The data set.
        splits: Of its splits those to take.
        settings: Of the run.
        state: The processes that share it.

    Raises:
        ValueError: If the folder holds files of other settings, which are named.
    """
    folder, record = Path(settings.output_dir), run_settings(writer, rows, settings)
    check_settings(folder, record, writer.product)
    todo: list[Any] = [None]
    if state.is_main_process:
        _enter(folder, record, writer, splits)
        todo = [_missing(writer, splits)]
    missing: list[Place] = broadcast_object_list(todo)[0]
    started = time.perf_counter()
    own = missing[state.process_index :: state.num_processes]
    done = sum(map(len, splits.values())) - len(missing)
    failures = gather_object(_mark(PhotoMarker(writer, splits, settings), own, state, done))
    seconds = time.perf_counter() - started
    if state.is_main_process:
        failures = _in_order(failures, missing, splits)
        write_whole(folder / FAILURES_NAME, "".join(json.dumps(line) + "\n" for line in failures).encode())
    return PhotoRun(failures, len(missing) - len(failures), seconds)


def run_settings(writer: PhotoWriter, rows: LoadedRows, settings: PhotoRunArguments) -> dict[str, Any]:
    """Return everything that decides the files, as JSON values; not which splits are taken."""
    photos = {name: {"count": len(split), "photos": photos_fingerprint(split)} for name, split in rows.splits.items()}
    data = {"fingerprint": rows.fingerprint, "splits": photos}
    record = {**writer.settings(), "max_megapixels": settings.max_megapixels, "data": data}
    return json.loads(json.dumps(record))  # tuples become lists, as a file gives them back


def check_settings(folder: Path, record: Mapping[str, Any], product: str) -> None:
    """Refuse a folder that holds files of other settings, or something else.

    Raises:
        ValueError: If it does; the settings that differ are named.
    """
    place = folder / SETTINGS_NAME
    if not place.is_file():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(
                f"output_dir={str(folder)!r} holds files but no {SETTINGS_NAME} of {product}s; choose another"
            )
        return
    try:
        there = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{place} is no JSON ({error}); choose another output_dir or delete this one") from error
    if there != record:
        raise ValueError(
            f"output_dir: {folder} holds {product}s of other settings ({'; '.join(differences(there, record))}); go back to "
            "those settings, choose another output_dir, or delete it"
        )


def run_warnings(run: PhotoRun, product: str, rows: LoadedRows, splits: Mapping[str, Dataset]) -> list[str]:
    """Name what a reader of the result must know: photos without files, dropped rows, an opened lockbox."""
    found = []
    if run.failures:
        reasons = dict(Counter(failure["reason"] for failure in run.failures))
        found.append(f"photos without a {product}: {reasons}; {FAILURES_NAME} names them, the next run tries again")
    dropped = rows.report.dropped
    if dropped:
        found.append(
            f"rows dropped when the data set was read: {len(dropped)}, such as {dropped[0].row_id!r} ({dropped[0].reason}); "
            f"they have no {product}"
        )
    if rows.lockbox and "test" in splits:
        found.append(f"the lockbox was marked; its {product}s must not train or tune anything")
    return found


def _enter(folder: Path, record: Mapping[str, Any], writer: PhotoWriter, splits: Mapping[str, Dataset]) -> None:
    """Make the folder, say what it holds, and remove what a killed process left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {
        path.parent for split in splits.values() for row_id in split["row_id"][:] for path in writer.paths(row_id)
    }
    for place in sorted({folder, *places}):
        for name in remove_leftovers(place):
            logger.info(f"Removed {place / name}, left by a process that was killed.")
    for path in folder.glob("tmp*.part"):  # of a result.json
        path.unlink(missing_ok=True)
    if not (folder / SETTINGS_NAME).is_file():
        write_json(folder / SETTINGS_NAME, record)


def _missing(writer: PhotoWriter, splits: Mapping[str, Dataset]) -> list[Place]:
    """Name the photos that lack a file, as split and row."""
    return [
        (name, row)
        for name, split in splits.items()
        for row, row_id in enumerate(split["row_id"][:])
        if not all(path.is_file() for path in writer.paths(row_id))
    ]


def _mark(marker: PhotoMarker, places: list[Place], state: PartialState, done: int) -> list[Failure]:
    """Take this process's photos under a progress bar; returns those that have no files."""
    failures = []
    name, share = marker.writer.product.capitalize(), state.num_processes
    description = f"{name}s by {marker.writer.source}"
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

"""A saved model's answers for photos in files and folders, written as they come: a table, JSON lines, or both.

In come paths and a model; out goes one line a photo, also for those that could not be read. Memory does not grow with the
number of photos: `photo_files.py` reads a batch ahead, and a line is written as soon as it is known.
"""

import dataclasses
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tqdm.auto import tqdm

from natix_roadwork.data.natix_columns import LABEL_NAMES
from natix_roadwork.inference.photo_files import FoundFiles, describe_others, find_photos, printable, read_ahead
from natix_roadwork.inference.photo_model import TTA_MODES, PhotoModel, PhotoReading, load_photo_model
from natix_roadwork.inference.row_evidence import ViewEvidence


STDOUT = "-"
TABLE_HEAD = f"{'probability':>11}  {'label':8}  photo"


@dataclass(frozen=True)
class PhotoAnswer:
    """What is known of one photo in the end.

    Attributes:
        path: As it was found.
        probability: Of roadwork; None where there is an error.
        label: `Roadwork` above 0.5, else `None`; None where there is an error.
        error: Why there is no answer; None where there is one.
        views: What each view brought; None unless asked for.
    """

    path: str
    probability: float | None = None
    label: str | None = None
    error: str | None = None
    views: list[ViewEvidence] | None = None

    def as_json(self) -> str:
        """Write one JSON line; every line has the same keys, but for `views`."""
        values: dict[str, Any] = dataclasses.asdict(self)
        if self.views is None:
            del values["views"]
        return json.dumps(values)

    def as_row(self) -> str:
        """Write one row of the table."""
        if self.error is not None:
            return f"{'-':>11}  {'error':8}  {printable(self.error)}"
        return f"{self.probability:>11.3f}  {self.label:8}  {printable(self.path)}"


@dataclass(frozen=True)
class PhotoSettings:
    """How photos are predicted.

    Attributes:
        model: Folder or Hub id of a model of this library, or of a stock image classifier with a label `Roadwork`.
        jsonl: File for JSON lines, which must not be there yet; `-` = standard output, in place of the table.
        adapters: Folder of fold adapters, whose mean answers.
        tta: `off`, or `mean` over sixteen test-time transforms of each photo, at sixteen times the cost.
        views: Whether the JSON lines tell what each view brought, from the photo as it is.
        batch_size: Photos that run through the model together; with `tta` fewer, so that it counts transforms.
        workers: Threads that read photos.
        device: None = a GPU where there is one.

    Raises:
        ValueError: If the file is there, or views are asked for without a place to write them.
    """

    model: str
    jsonl: str | None = None
    adapters: str | None = None
    tta: str = "off"
    views: bool = False
    batch_size: int = 8
    workers: int = 2
    device: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked before the model is loaded."""
        for name in ("batch_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1")
        if self.views and self.jsonl is None:
            raise ValueError("views are told in JSON lines only; add --jsonl FILE, or --jsonl - for standard output")
        if self.jsonl not in (None, STDOUT) and Path(self.jsonl).exists():
            raise ValueError(f"jsonl={self.jsonl!r} exists; delete it, or name another file")


def predict_photos(places: Sequence[str], settings: PhotoSettings) -> int:
    """Predict photos and write a line for each; table and JSON lines to standard output, progress to standard error.

    Args:
        places: Files and folders.
        settings: How.

    Returns:
        How many photos, or folders, could not be read.

    Raises:
        ValueError: If there are no photos, or model or settings cannot be used.
        OSError: If a line cannot be written.
    """
    started = time.perf_counter()
    found = find_photos(places)
    model = load_photo_model(settings.model, settings.device, settings.adapters)
    if settings.views and not model.has_views:
        raise ValueError(f"views: model={settings.model!r} sees a photo in one view; leave --views out")
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        write = _writer(settings, stack)
        progress = stack.enter_context(tqdm(total=len(found.photos), unit=" photos", disable=None, file=sys.stderr))
        for answer in answer_photos(model, found, settings):
            write(answer)
            counts[answer.label or "error"] += 1
            progress.update()
    _write_summary(counts, found, time.perf_counter() - started)
    return counts["error"]


def answer_photos(model: PhotoModel, found: FoundFiles, settings: PhotoSettings) -> Iterator[PhotoAnswer]:
    """Yield the answer for every photo in order, then one for every folder that could not be listed."""
    transforms = TTA_MODES[settings.tta]
    read = partial(model.prepare, transforms=transforms)
    batch_size = max(1, settings.batch_size // len(transforms))
    for batch in read_ahead(found.photos, read, batch_size, settings.workers):
        readable = [photo.content for photo in batch if photo.content is not None]
        readings = iter(model.answer(readable, settings.views) if readable else [])
        paths = [(photo.path, photo.error) for photo in batch]
        del batch, readable  # or they would stay until the batch after the next is being read
        for path, error in paths:
            yield PhotoAnswer(path, error=error) if error is not None else _answer(path, next(readings), settings)
    for path, error in found.unreadable:
        yield PhotoAnswer(path, error=error)


def _answer(path: str, reading: PhotoReading, settings: PhotoSettings) -> PhotoAnswer:
    if not math.isfinite(reading.probability):
        return PhotoAnswer(path, error=f"photo {path!r}: the model's answer is not a finite number")
    label = LABEL_NAMES[int(reading.probability > 0.5)]
    return PhotoAnswer(path, reading.probability, label, views=reading.views if settings.views else None)


def _writer(settings: PhotoSettings, stack: ExitStack) -> Callable[[PhotoAnswer], None]:
    """Open what is written to; the file's lines are whole whenever the run is cut off."""
    file: TextIO | None = None
    if settings.jsonl not in (None, STDOUT):
        file = stack.enter_context(open(settings.jsonl, "x", encoding="utf-8", buffering=1))
    if settings.jsonl != STDOUT:
        tqdm.write(TABLE_HEAD, file=sys.stdout)

    def write(answer: PhotoAnswer) -> None:
        if file is not None:
            file.write(answer.as_json() + "\n")
        # tqdm.write keeps the line clear of the progress bar where both go to one terminal.
        tqdm.write(answer.as_json() if settings.jsonl == STDOUT else answer.as_row(), file=sys.stdout)
        sys.stdout.flush()  # what reads a pipe gets each line as it is known

    return write


def _write_summary(counts: Counter[str], found: FoundFiles, seconds: float) -> None:
    """Say on standard error what became of the files."""
    total = counts.total()
    lines = [
        f"{total} photos: {counts[LABEL_NAMES[1]]} {LABEL_NAMES[1]}, {counts[LABEL_NAMES[0]]} {LABEL_NAMES[0]}, "
        f"{counts['error']} could not be read; {seconds:.1f} s with loading the model"
    ]
    if found.others:
        lines.append(describe_others(found.others))
    sys.stderr.write("\n".join(lines) + "\n")

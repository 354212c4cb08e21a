"""Read a folder of masks photo by photo, beside the photos and, where there are any, reference masks.

In come rows and folders; out go readings (numbers, no pictures) of every photo whose mask can be used, and the names of all
that cannot, by reason. Photos are read by threads, whose order does not matter.
"""

import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm

from natix_roadwork.data.masks import (
    MASK_SUFFIX,
    RECORD_SUFFIX,
    MaskError,
    PhotoMask,
    class_areas,
    mask_path,
    read_mask,
    read_record,
    record_path,
)
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.labeling.mask_agreement import PhotoAgreement, compare_masks
from natix_roadwork.labeling.mask_looks import Look, measure
from natix_roadwork.labeling.mask_objects import mask_objects
from natix_roadwork.labeling.mask_provider import FoundObject
from natix_roadwork.model.photo import load_photo


NO_MASK, NO_PHOTO = "photo without a mask", "mask without a photo"


@dataclass(frozen=True)
class PhotoReading:
    """What the mask of one photo says.

    Attributes:
        row: Number of its row.
        row_id: Its id.
        label: 1 roadwork, 0 None.
        group: Its group.
        pixels: Pixels of the photo.
        provider: Who made the mask; empty where no record says so.
        known: `(C,)` classes that were looked for.
        areas: `(C,)` pixels of each class.
        objects: Its objects, measured.
        approximate: Objects that share pixels with a neighbour of their class.
        listed: Whether a record lists the objects.
        prompts: (class, prompt) of everything that was asked.
        presence: Prompt to the provider's belief that it is there at all.
        agreement: The mask against its reference; None without one.
    """

    row: int
    row_id: str
    label: int
    group: str
    pixels: int
    provider: str
    known: NDArray[np.bool_]
    areas: NDArray[np.int64]
    objects: list[Look]
    approximate: int
    listed: bool
    prompts: tuple[tuple[str, str], ...]
    presence: dict[str, float]
    agreement: PhotoAgreement | None


@dataclass
class Readings:
    """All photos of a run.

    Attributes:
        photos: Readings in the order of the rows.
        problems: Reason to the names of rows or files.
        examples: Reason to the first error in words.
    """

    photos: list[PhotoReading] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add_problem(self, reason: str, name: str, text: str = "") -> None:
        """Count a row or file that cannot be used, or only in part."""
        self.problems.setdefault(reason, []).append(name)
        if text:
            self.examples.setdefault(reason, text)


def find_masks(rows: Dataset, folder: Path, readings: Readings, left_out: Collection[str] = ()) -> list[int]:
    """Return which rows have a mask file in the folder; the others, and files of no row, are named in `readings`.

    Args:
        rows: Rows that should have a mask.
        folder: Where the masks lie.
        readings: Gets the names.
        left_out: Ids of rows whose masks may be there and are not looked at.

    Raises:
        ValueError: If there is no folder, or no row has a mask in it.
    """
    if not folder.is_dir():
        raise ValueError(f"masks={str(folder)!r} is no folder; give the one that recipes/pseudo_masks.py wrote")
    files = {path for suffix in (MASK_SUFFIX, RECORD_SUFFIX) for path in folder.rglob(f"*{suffix}")}
    expected, there = set(), []
    for number, row_id in enumerate(rows["row_id"][:]):
        path = mask_path(folder, row_id)
        expected |= {path, record_path(path)}
        if path in files:
            there.append(number)
        else:
            readings.add_problem(NO_MASK, row_id)
    for row_id in left_out:
        path = mask_path(folder, row_id)
        expected |= {path, record_path(path)}
    for path in sorted(files - expected):
        if path.name.endswith(MASK_SUFFIX):
            readings.add_problem(NO_PHOTO, path.relative_to(folder).as_posix())
        elif path.with_name(path.name.removesuffix(RECORD_SUFFIX) + MASK_SUFFIX) not in files:
            readings.add_problem("record without mask or photo", path.relative_to(folder).as_posix())
    if not there:
        first = mask_path(folder, rows[0]["row_id"])
        raise ValueError(f"masks={str(folder)!r} has no mask of these {len(rows)} rows; the first would be {first}")
    return there


def read_photos(
    rows: Dataset, chosen: list[int], folder: Path, reference: Path | None, readings: Readings, progress: bool = True
) -> None:
    """Read the masks of the chosen rows into `readings`.

    Args:
        rows: All rows.
        chosen: Those whose mask file is there.
        folder: Masks that are judged.
        reference: Folder of reference masks; None takes the rows' own column `mask`, where it names another file.
        readings: Gets a reading, or a named problem, for each chosen row.
        progress: Whether a progress bar is shown.
    """
    kept = rows.select_columns(["row_id", "image", "label", "group", "width", "height", "mask"])

    def read(number: int) -> tuple[str, PhotoReading | None, MaskError | None]:
        """Read one row's mask: its id, and what was read or what is wrong."""
        row = kept[number]
        try:
            return row["row_id"], *_read(number, row, folder, reference)
        except MaskError as error:
            return row["row_id"], None, error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(read, chosen)
        for row_id, reading, error in tqdm(found, "Masks", len(chosen), unit="photo", disable=not progress):
            if reading is not None:
                readings.photos.append(reading)
            if error is not None:
                readings.add_problem(error.reason, row_id, str(error))


def reference_path(row: Mapping[str, Any], folder: Path, reference: Path | None) -> Path | None:
    """Return where the reference mask of a row lies; None without one, or where it is the judged mask itself."""
    if reference is not None:
        path = mask_path(reference, row["row_id"])
        return path if path.is_file() else None
    own = Path(row["mask"]) if row["mask"] else None
    return None if own is None or own.resolve() == mask_path(folder, row["row_id"]).resolve() else own


def row_photo(row: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Decode the photo of a row, upright.

    Raises:
        MaskError: If it cannot be decoded, with the row's id.
    """
    try:
        return load_photo(photo_source(row["image"]), name=row["row_id"])
    except ValueError as error:
        raise MaskError("photo cannot be decoded", f"row {row['row_id']!r}: {error}") from error


def _read(
    number: int, row: Mapping[str, Any], folder: Path, reference: Path | None
) -> tuple[PhotoReading, MaskError | None]:
    """Read one photo; where only the reference cannot be used, its error comes beside the reading."""
    path, size = mask_path(folder, row["row_id"]), (row["width"], row["height"])
    mask, record = read_mask(path, size), read_record(path)
    found = mask_objects(mask, record, f"mask {path}")
    photo = row_photo(row) if found.objects else None  # an empty mask says nothing of colours
    record, agreement, problem = record or {}, None, None
    try:
        agreement = _compare(mask, found.objects, reference_path(row, folder, reference), size)
    except MaskError as error:
        problem = MaskError(f"reference: {error.reason}", str(error))
    reading = PhotoReading(
        row=number,
        row_id=row["row_id"],
        label=int(row["label"]),
        group=row["group"],
        pixels=mask.bits.size,
        provider=str(record.get("provider", "")),
        known=mask.known,
        areas=np.array(list(class_areas(mask.bits).values())) * mask.known,
        objects=[measure(seen, photo) for seen in found.objects],
        approximate=found.approximate,
        listed=found.listed,
        prompts=tuple((kind, prompt) for kind, texts in record.get("prompts", {}).items() for prompt in texts),
        presence=record.get("presence", {}),
        agreement=agreement,
    )
    return reading, problem


def _compare(
    mask: PhotoMask, objects: list[FoundObject], path: Path | None, size: tuple[int, int]
) -> PhotoAgreement | None:
    if path is None:
        return None
    reference = read_mask(path, size)
    expected = mask_objects(reference, read_record(path), f"mask {path}")
    return compare_masks(mask, objects, reference, expected.objects, expected.listed)

"""Masks that people drew: COCO annotation files, matched with the photos by file name."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.masks import MaskError
from natix_roadwork.labeling.coco_files import NO_EVIDENCE, AnnotatedPhoto, read_annotations
from natix_roadwork.labeling.coco_masks import annotation_mask
from natix_roadwork.labeling.mask_provider import FoundObject, PhotoObjects


logger = logging.getLogger(__name__)


class HumanProvider:
    """What people marked in COCO annotation files, in pixels of the upright photo, as tools show it.

    A listed photo without annotations is known to be empty; one that no file lists is not known, and named. Marks are cut
    off at the photo's edge, and marks of categories nobody knows are left out, both counted in the photo's record.

    Args:
        annotations: The files.
        names: Paths of all photos of the data set, so that two of one name are noticed.
        aliases: Category to class or `none`; goes before `coco_files.CATEGORY_KINDS`.

    Raises:
        ValueError: If a file cannot be used, or no photo of the data set is listed.
    """

    name = "human"

    def __init__(
        self, annotations: Sequence[str], names: Sequence[str], aliases: Mapping[str, str] | None = None
    ) -> None:
        """Read the files."""
        self.found = read_annotations(annotations, aliases)
        self.classes = self.found.classes
        self.namesakes = Counter(PurePosixPath(name).name for name in names)
        if not self.namesakes.keys() & self.found.photos.keys():
            raise ValueError(
                f"annotations: {list(annotations)} list none of the {len(names)} photos, such as "
                f"{[PurePosixPath(name).name for name in names[:1]]}; photos are matched by file name"
            )
        if self.found.unknown:
            logger.warning(
                f"Categories of no class, left out: {self.found.unknown}; class_aliases can name their class."
            )
        if self.found.strays:
            logger.info(f"{self.found.strays} annotations belong to photos that their file does not list.")

    def settings(self) -> dict[str, Any]:
        """Return the files with their hashes, and what each category counts as."""
        kinds = {name: kind or "unknown" for name, kind in self.found.kinds.items()}
        return {"annotations": self.found.files, "categories": kinds, "marks_of_unlisted_photos": self.found.strays}

    def find(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> PhotoObjects:
        """Draw the marks of one photo.

        Raises:
            MaskError: If no file lists it, several photos share its name, its size is another, or a mark is broken.
        """
        listed = self._listed(row)
        height, width = photo.shape[:2]
        if (listed.width, listed.height) != (width, height):
            raise MaskError(
                "wrong size",
                f"row {row['row_id']!r}: {listed.file} says {listed.width}x{listed.height}, the upright photo has "
                f"{width}x{height}; mark the photos at the size of the annotations",
            )
        objects: list[FoundObject] = []
        notes: Counter[str] = Counter()
        for annotation in listed.annotations:
            category = listed.categories.get(annotation["category_id"])
            kind = None if category is None else self.found.kinds[category]
            if category is None:
                raise MaskError(
                    "broken annotation",
                    f"row {row['row_id']!r}: annotation {annotation.get('id')} of {listed.file} has category "
                    f"{annotation['category_id']!r}, which the file does not list",
                )
            if kind is None:
                notes[f"unknown category: {category}"] += 1
            elif kind != NO_EVIDENCE:
                plane, clipped = self._drawn(row, annotation, listed.file, (width, height))
                notes["clipped at the photo's edge"] += clipped
                if plane.any():
                    objects.append(FoundObject.of_plane(kind, plane, prompt=category))
                else:
                    notes["outside the photo, or of no pixel"] += 1
        return PhotoObjects(objects, notes={name: count for name, count in sorted(notes.items()) if count})

    def _drawn(
        self, row: Mapping[str, Any], annotation: Mapping[str, Any], file: str, size: tuple[int, int]
    ) -> tuple[NDArray[np.bool_], bool]:
        try:
            return annotation_mask(annotation, *size)
        except MaskError as error:
            raise MaskError(error.reason, f"row {row['row_id']!r}: {file}: {error}") from error

    def _listed(self, row: Mapping[str, Any]) -> AnnotatedPhoto:
        """Find the listed photo of a row: the one of its name, and where that is not enough, of its folders too."""
        path = PurePosixPath(row["image"]["path"] or row["row_id"])
        listed = self.found.photos.get(path.name, [])
        if not listed:
            raise MaskError(
                "missing", f"row {row['row_id']!r}: no annotation file lists {path.name!r}; add the file that does"
            )
        if len(listed) == 1 and self.namesakes[path.name] <= 1:
            return listed[0]
        fits = [photo for photo in listed if len(photo.parts) > 1 and path.parts[-len(photo.parts) :] == photo.parts]
        longest = max((len(photo.parts) for photo in fits), default=0)
        fits = [photo for photo in fits if len(photo.parts) == longest]
        if len(fits) != 1:
            raise MaskError(
                "ambiguous",
                f"row {row['row_id']!r}: {path.name!r} is the name of {self.namesakes[path.name]} photos and is listed "
                f"as {[f'{photo.file}: {photo.name}' for photo in listed]}; folders must tell which is which",
            )
        return fits[0]


def photo_paths(rows: Dataset) -> list[str]:
    """Return where each photo came from, its row id where nothing is stored; no photo is read."""
    paths = pc.struct_field(rows.data.column("image"), "path")
    if rows._indices is not None:
        paths = paths.take(rows._indices.column(0))
    stored = paths.to_pylist() if isinstance(paths, pa.ChunkedArray) else list(paths)
    return [path or row_id for path, row_id in zip(stored, rows["row_id"][:], strict=True)]

"""Photo by photo: decoded ahead in threads, shown to a provider, and written as mask and record, or named as a failure.

`pseudo_masks.py` hands in which photos are missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.masks import MaskError, class_areas, mask_path, record_path, write_mask
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.inference.photo_files import ReadPhoto, read_ahead
from natix_roadwork.labeling.mask_provider import FoundObject, MaskProvider, PhotoObjects
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.model.photo import load_photo


LOW_SCORE, SMALL = "score below min_score", "area below min_area"

Place = tuple[str, int]  # split and row
Failure = dict[str, str]
Decoded = tuple[Mapping[str, Any], NDArray[np.uint8]]


class PhotoMarker:
    """Marks photos with one provider.

    Args:
        provider: Finds the objects.
        prompts: What it asks for, for the records; None where it asks nothing.
        splits: The rows.
        settings: Thresholds, and where the masks go.
    """

    def __init__(
        self,
        provider: MaskProvider,
        prompts: Mapping[str, list[str]] | None,
        splits: Mapping[str, Dataset],
        settings: PseudoMaskArguments,
    ) -> None:
        """Keep them."""
        self.provider, self.prompts, self.splits, self.settings = provider, prompts, splits, settings

    def mark(self, places: Sequence[Place]) -> Iterator[Failure | None]:
        """Mark photos in their order; yields None for each that has a mask now, else why it has none.

        Raises:
            OSError: If a file cannot be written.
        """
        threads = self.settings.num_workers
        for batch in read_ahead([f"{split} {row}" for split, row in places], self._read, threads, threads):
            for photo in batch:
                yield self._mark(photo)

    def _row(self, place: str) -> tuple[str, Mapping[str, Any]]:
        split, row = place.split(" ")
        return split, self.splits[split][int(row)]

    def _read(self, place: str) -> Decoded:
        _, row = self._row(place)
        return row, load_photo(photo_source(row["image"]), self.settings.max_megapixels, row["row_id"])

    def _mark(self, photo: ReadPhoto[Decoded]) -> Failure | None:
        if photo.content is None:
            split, row = self._row(photo.path)
            return self._failure(row["row_id"], split, "unreadable photo", f"row {row['row_id']!r}: {photo.error}")
        row, pixels = photo.content
        try:
            self._write(row, pixels)
        except ValueError as error:
            reason = error.reason if isinstance(error, MaskError) else "not marked"
            return self._failure(row["row_id"], photo.path.split(" ")[0], reason, " ".join(str(error).split()))
        return None

    def _failure(self, row_id: str, split: str, reason: str, message: str) -> Failure:
        # A killed run may have left the record of a mask that it did not come to write.
        record_path(mask_path(self.settings.output_dir, row_id)).unlink(missing_ok=True)
        return {"row_id": row_id, "split": split, "reason": reason, "message": message}

    def _write(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> None:
        found = self.provider.find(row, photo)
        kept, left_out = filtered(found.objects, self.settings.min_score, self.settings.min_area)
        bits = PhotoObjects(kept).bits(photo.shape[1], photo.shape[0])
        record = {
            "provider": self.provider.name,
            "classes": list(self.provider.classes),
            **({} if self.prompts is None else {"prompts": self.prompts}),
            "presence": found.presence,
            "objects": [
                {"kind": one.kind, "prompt": one.prompt, "score": one.score, "area": one.area, "box": list(one.box)}
                for one in kept
            ],
            "areas": class_areas(bits),
            "left_out": left_out,
            "notes": found.notes,
        }
        write_mask(self.settings.output_dir, row["row_id"], bits, record)


def filtered(
    objects: Sequence[FoundObject], min_score: float, min_area: int
) -> tuple[list[FoundObject], dict[str, int]]:
    """Leave out objects of low score, then small ones; returns the others and how many were left out, by reason."""
    sure = [found for found in objects if found.score >= min_score]
    large = [found for found in sure if found.area >= min_area]
    return large, {LOW_SCORE: len(objects) - len(sure), SMALL: len(sure) - len(large)}

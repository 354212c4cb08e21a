"""Photo by photo: decoded ahead in threads, shown to what writes its files, or named as a failure.

`photo_run.py` hands in which photos have no files yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.data.side_files import SideFileError
from natix_roadwork.inference.photo_files import ReadPhoto, read_ahead
from natix_roadwork.labeling.photo_run_arguments import PhotoRunArguments
from natix_roadwork.model.photo import load_photo


Place = tuple[str, int]  # split and row
Failure = dict[str, str]
Decoded = tuple[Mapping[str, Any], NDArray[np.uint8]]
# What one photo alone can bring about, such as too little memory for a giant one; torch's out of memory is a RuntimeError.
OF_THE_PHOTO = (RuntimeError, MemoryError, cv2.error)
OF_THE_PROGRAM = (NotImplementedError, RecursionError)  # RuntimeErrors too


class PhotoWriter(Protocol):
    """Makes the files of one photo.

    Attributes:
        product: What they are, one of them, in the words of messages.
        source: Who makes them, for the progress bar.
    """

    product: str
    source: str

    def settings(self) -> dict[str, Any]:
        """Return everything that decides a photo's files, besides the photo, as JSON values."""
        ...

    def paths(self, row_id: str) -> tuple[Path, ...]:
        """Return a row's files in the order in which they are written; a row is done when all are there."""
        ...

    def write(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> None:
        """Write the files of one photo, each whole or not at all.

        Args:
            row: The row of the data set.
            photo: `(H, W, 3)` RGB, upright.

        Raises:
            ValueError: If this photo has none (`SideFileError` with a reason to count it by); the run goes on, as it does
                after a RuntimeError, MemoryError or cv2.error.
        """
        ...


class PhotoMarker:
    """Takes photos through one writer.

    Args:
        writer: Makes a photo's files.
        splits: The rows.
        settings: How photos are read.
    """

    def __init__(self, writer: PhotoWriter, splits: Mapping[str, Dataset], settings: PhotoRunArguments) -> None:
        """Keep them."""
        self.writer, self.splits, self.settings = writer, splits, settings

    def mark(self, places: Sequence[Place]) -> Iterator[Failure | None]:
        """Take photos in their order; yields None for each that has its files now, else why it has none.

        Raises:
            OSError: If a file cannot be written.
            TypeError, KeyError and the like: The writer's mistakes are no photo's failures, and end the run.
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
            self.writer.write(row, pixels)
        except ValueError as error:
            reason = error.reason if isinstance(error, SideFileError) else "not marked"
            return self._failure(row["row_id"], photo.path.split(" ")[0], reason, " ".join(str(error).split()))
        except OF_THE_PROGRAM:
            raise
        except OF_THE_PHOTO as error:
            reason = "cv2.error" if isinstance(error, cv2.error) else type(error).__name__
            message = " ".join(f"row {row['row_id']!r}: {reason}: {error}".split())
            return self._failure(row["row_id"], photo.path.split(" ")[0], reason, message)
        return None

    def _failure(self, row_id: str, split: str, reason: str, message: str) -> Failure:
        # A killed run may have left some of the files and not come to write the others.
        for path in self.writer.paths(row_id):
            path.unlink(missing_ok=True)
        return {"row_id": row_id, "split": split, "reason": reason, "message": message}

"""The drawn scenes' own masks: exact, and there for every photo."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.masks import MASK_SUFFIX, MaskError, read_mask
from natix_roadwork.labeling.mask_provider import FoundObject, PhotoObjects
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


class ScenesProvider:
    """The mask that lies with a photo, divided into connected pieces, of which each counts as an object.

    It is the one that a row's column `mask` names, else that of the photo's name in the folder. So it serves any data set
    with such masks. A mask that does not know all classes is refused.

    Args:
        folder: Of drawn scenes: its `masks`, where photo `000007.jpg` has `000007_seg_mask.png`.
        has_column: Whether any row names a mask.

    Raises:
        ValueError: If there is neither.
    """

    name = "scenes"
    classes = MASK_CLASSES

    def __init__(self, folder: Path, has_column: bool = False) -> None:
        """Check that there are masks."""
        if not has_column and not folder.is_dir():
            raise ValueError(
                f"provider=scenes: no row names a mask in a column mask, and there is no folder {str(folder)!r}; draw the "
                "scenes with their masks, or choose another provider"
            )
        self.folder = folder

    def settings(self) -> dict[str, Any]:
        """Return where the masks come from; they lie with the data set, whose fingerprint stands beside this."""
        return {"source": "the data set's own masks"}

    def find(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> PhotoObjects:
        """Read the mask of one photo.

        Raises:
            MaskError: If it is missing, damaged, of another size, or has or lacks a class.
        """
        name = PurePosixPath(row["image"]["path"] or row["row_id"]).stem
        path = row["mask"] or self.folder / f"{name}{MASK_SUFFIX}"
        try:
            mask = read_mask(path, (photo.shape[1], photo.shape[0]))
        except MaskError as error:
            raise MaskError(error.reason, f"row {row['row_id']!r}: {error}") from error
        if not mask.known.all():
            raise MaskError("unknown classes", f"row {row['row_id']!r}: mask {path} does not know all classes")
        objects = []
        for kind, plane in zip(MASK_CLASSES, mask.channels, strict=True):
            count, pieces = cv2.connectedComponents(plane.astype(np.uint8), connectivity=8)
            objects += [FoundObject.of_plane(kind, pieces == piece) for piece in range(1, count)]
        return PhotoObjects(objects)

"""The drawn scenes' own masks: exact, and there for every photo."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.masks import MaskError, read_mask
from natix_roadwork.labeling.mask_provider import FoundObject, PhotoObjects
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


class ScenesProvider:
    """The mask that a row's column `mask` names, divided into connected pieces, of which each counts as an object.

    It serves any data set with such a column. What a mask file says of known classes is not carried over, so a mask with
    unknown ones is refused.
    """

    name = "scenes"
    classes = MASK_CLASSES

    def settings(self) -> dict[str, Any]:
        """Return where the masks come from; the masks themselves lie with the data set."""
        return {"source": "column mask"}

    def find(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> PhotoObjects:
        """Read the mask of one photo.

        Raises:
            MaskError: If the row names none, or the file is missing, damaged, of another size, or has an unknown class.
        """
        if not row["mask"]:
            raise MaskError(
                "missing", f"row {row['row_id']!r} names no mask in its column mask; choose another provider"
            )
        try:
            mask = read_mask(row["mask"], (photo.shape[1], photo.shape[0]))
        except MaskError as error:
            raise MaskError(error.reason, f"row {row['row_id']!r}: {error}") from error
        if not mask.known.all():
            raise MaskError("unknown classes", f"row {row['row_id']!r}: mask {row['mask']} does not know all classes")
        objects = []
        for kind, plane in zip(MASK_CLASSES, mask.channels, strict=True):
            count, pieces = cv2.connectedComponents(plane.astype(np.uint8), connectivity=8)
            objects += [FoundObject.of_plane(kind, pieces == piece) for piece in range(1, count)]
        return PhotoObjects(objects)

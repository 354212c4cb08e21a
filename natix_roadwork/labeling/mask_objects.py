"""The objects of one mask file: what its record lists, or without a list the connected pieces of each class.

A mask holds classes, not objects. Where the record beside it lists objects, an object is the pixels of its class inside its
box; two objects of one class whose boxes overlap therefore share pixels, and such an object is called approximate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.masks import MaskError, PhotoMask, class_areas
from natix_roadwork.labeling.mask_provider import FoundObject
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


@dataclass(frozen=True)
class MaskObjects:
    """The objects of one mask.

    Attributes:
        objects: In the record's order, or by class and then from the top.
        approximate: How many of them have another area than the record says, for sharing pixels with a neighbour.
        listed: Whether a record listed them; pieces have score 1 and no prompt.
    """

    objects: list[FoundObject]
    approximate: int
    listed: bool


def mask_objects(mask: PhotoMask, record: Mapping[str, Any] | None, name: str) -> MaskObjects:
    """Find the objects of a mask.

    Args:
        mask: The mask; bits of unknown classes are no objects.
        record: What lies beside it, if anything.
        name: What to call the file in an error.

    Raises:
        MaskError: If the record is of another mask, or an object in it is of no class, has no box inside the photo, or no
            pixel.
    """
    if record is None or "objects" not in record:
        return MaskObjects(pieces(mask), 0, False)
    if "areas" in record and record["areas"] != class_areas(mask.bits):
        raise MaskError(
            "record of another mask", f"{name}: the record's areas are not the mask's; make the mask again"
        )
    objects, approximate = [], 0
    for number, entry in enumerate(record["objects"]):
        try:
            found = _listed(mask, entry)
        except (KeyError, TypeError, ValueError) as error:
            reason = (
                f"{name}: object {number} of the record is no object of this mask ({error!r}); make the mask again"
            )
            raise MaskError("damaged record", reason) from error
        objects.append(found)
        approximate += found.area != entry.get("area", found.area)
    return MaskObjects(objects, approximate, True)


def pieces(mask: PhotoMask) -> list[FoundObject]:
    """Cut each known class into its connected pieces (pixels that touch by an edge or a corner)."""
    found = []
    for number in np.flatnonzero(mask.known).tolist():
        plane = mask.bits >> number & 1
        left, top, width, height = cv2.boundingRect(plane)
        if not width:
            continue
        crop = np.ascontiguousarray(plane[top : top + height, left : left + width])
        count, labels, stats, _ = cv2.connectedComponentsWithStats(crop, connectivity=8)
        for piece in range(1, count):
            x, y, w, h = (int(stats[piece, place]) for place in range(4))
            inside = labels[y : y + h, x : x + w] == piece
            box = (left + x, top + y, left + x + w, top + y + h)
            found.append(FoundObject(MASK_CLASSES[number], box, inside))
    return found


def plane_of(bits: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """Return where bits `(H, W)` mark a class, 0 or 1."""
    return bits >> MASK_CLASSES.index(kind) & 1


def _listed(mask: PhotoMask, entry: Mapping[str, Any]) -> FoundObject:
    height, width = mask.bits.shape
    left, top, right, bottom = (int(value) for value in entry["box"])
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"box {entry['box']} is not inside {width}x{height}")
    score = float(entry.get("score", 1.0))
    if not 0 <= score <= 1:
        raise ValueError(f"score {score} is not in [0, 1]")
    inside = plane_of(mask.bits[top:bottom, left:right], entry["kind"]).astype(bool)
    if not inside.any():
        raise ValueError(f"no pixel of {entry['kind']} in box {entry['box']}")
    return FoundObject(entry["kind"], (left, top, right, bottom), inside, str(entry.get("prompt") or ""), score)

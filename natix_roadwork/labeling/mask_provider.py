"""What every source of masks gives: the objects found in one photo.

A provider takes a row with its decoded photo and returns `PhotoObjects`; `labeling/pseudo_masks.py` runs it over a data
set and writes the files. The providers are the modules `*_provider.py` beside this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class FoundObject:
    """One object in one photo.

    Attributes:
        kind: Its class, one of `MASK_CLASSES`.
        box: (left, top, right, bottom) in whole pixels of the upright photo.
        mask: `(bottom - top, right - left)` bool, the object's pixels inside its box.
        prompt: What was asked for when it was found, of human marks their category; empty where there is neither.
        score: How sure the provider is, in [0, 1]; 1 for human marks.
    """

    kind: str
    box: Box
    mask: NDArray[np.bool_]
    prompt: str = ""
    score: float = 1.0

    @classmethod
    def of_plane(cls, kind: str, plane: NDArray[np.bool_], prompt: str = "", score: float = 1.0) -> Self:
        """Cut an object out of a plane `(H, W)` that marks at least one pixel of it."""
        rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        return cls(kind, (left, top, right, bottom), plane[top:bottom, left:right].copy(), prompt, score)

    @property
    def area(self) -> int:
        """Marked pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class PhotoObjects:
    """Everything a provider found in one photo.

    Attributes:
        objects: In a fixed order.
        presence: Prompt to the provider's belief in [0, 1] that what it names is in the photo at all; empty where a
            provider has no such output.
        notes: What a reader must know of this photo, counted, such as marks that were clipped; added up over a run.
    """

    objects: list[FoundObject] = field(default_factory=list)
    presence: dict[str, float] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def bits(self, width: int, height: int) -> NDArray[np.uint8]:
        """Paint the objects into a bit-packed mask `(H, W)`."""
        painted = np.zeros((height, width), np.uint8)
        for found in self.objects:
            left, top, right, bottom = found.box
            painted[top:bottom, left:right] |= found.mask.astype(np.uint8) << MASK_CLASSES.index(found.kind)
        return painted


class MaskProvider(Protocol):
    """A source of masks.

    Attributes:
        name: Stands in every record.
        classes: Classes it can find; the others are unknown in its masks, not absent.
    """

    name: str
    classes: tuple[str, ...]

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what is found, weights included, as JSON values."""
        ...

    def find(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> PhotoObjects:
        """Find the objects of one photo.

        Args:
            row: The row of the data set; its `row_id` stands in errors.
            photo: `(H, W, 3)` RGB, upright.

        Raises:
            ValueError: If this photo cannot be marked (`MaskError` with a reason to count it by); the run goes on.
        """
        ...

"""What a provider finds in one photo, as mask and record on disk: thresholds applied, what they leave out counted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.masks import class_areas, mask_path, record_path, write_mask
from natix_roadwork.labeling.mask_provider import FoundObject, MaskProvider, PhotoObjects
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments


FORMAT_VERSION = 1
LOW_SCORE, SMALL = "score below min_score", "area below min_area"


class MaskWriter:
    """Writes the mask and the record of a photo (a `photo_marking.PhotoWriter`).

    Args:
        provider: Finds the objects.
        settings: Thresholds, and where the masks go.
    """

    product = "mask"

    def __init__(self, provider: MaskProvider, settings: PseudoMaskArguments) -> None:
        """Keep them, and ask the provider once what decides its masks."""
        self.provider, self.limits, self.folder = provider, settings, settings.output_dir
        self.source = provider.name
        self.decided = {"name": provider.name, "classes": list(provider.classes), **provider.settings()}

    def settings(self) -> dict[str, Any]:
        """Return everything that decides a photo's mask, as JSON values."""
        return {
            "format": FORMAT_VERSION,
            "provider": self.decided,
            "min_score": self.limits.min_score,
            "min_area": self.limits.min_area,
        }

    def paths(self, row_id: str) -> tuple[Path, ...]:
        """Return a row's files in the order in which they are written."""
        mask = mask_path(self.folder, row_id)
        return record_path(mask), mask

    def write(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> None:
        """Write the files of one photo.

        Raises:
            ValueError: If it cannot be marked.
        """
        found = self.provider.find(row, photo)
        kept, left_out = filtered(found.objects, self.limits.min_score, self.limits.min_area)
        bits = PhotoObjects(kept).bits(photo.shape[1], photo.shape[0])
        prompts = self.decided.get("prompts")
        record = {
            "provider": self.provider.name,
            "classes": list(self.provider.classes),
            **({} if prompts is None else {"prompts": prompts}),
            "presence": found.presence,
            "objects": [
                {"kind": one.kind, "prompt": one.prompt, "score": one.score, "area": one.area, "box": list(one.box)}
                for one in kept
            ],
            "areas": class_areas(bits),
            "left_out": left_out,
            "notes": found.notes,
        }
        write_mask(self.folder, row["row_id"], bits, record)


def filtered(
    objects: Sequence[FoundObject], min_score: float, min_area: int
) -> tuple[list[FoundObject], dict[str, int]]:
    """Leave out objects of low score, then small ones; returns the others and how many were left out, by reason."""
    sure = [found for found in objects if found.score >= min_score]
    large = [found for found in sure if found.area >= min_area]
    return large, {LOW_SCORE: len(objects) - len(sure), SMALL: len(sure) - len(large)}

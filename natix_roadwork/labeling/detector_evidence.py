"""What a detector found in each photo, as extra evidence for the model.

In come the records that `pseudo_masks.mark_photos` writes beside its masks, or the detections of one photo; out go 18
figures a photo for `data/extra_evidence.py`. The run that finds the objects is resumable and shared by all processes;
making figures of its records takes seconds.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.extra_evidence import ExtraEvidence, check_provider, write_extra_evidence
from natix_roadwork.data.masks import mask_path, read_record
from natix_roadwork.labeling.mask_writing import MaskWriter
from natix_roadwork.labeling.photo_run import SETTINGS_NAME, load_photo_rows
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


FIGURES = ("log_count", "largest_side", "highest_score")
FIGURE_NAMES = tuple(f"{kind}.{figure}" for kind in MASK_CLASSES for figure in FIGURES)
EVIDENCE_NAME = "evidence.arrow"


class Found(Protocol):
    """What counts of a detected object: `Detection` and `FoundObject` have it.

    Attributes:
        kind: One of `MASK_CLASSES`.
        box: (left, top, right, bottom) in pixels of the upright photo.
        score: How sure the detector is, in [0, 1].
    """

    kind: str
    box: tuple[float, float, float, float]
    score: float


def detection_figures(found: Sequence[Found], size: tuple[int, int]) -> NDArray[np.float32]:
    """Turn the detections of a photo into the figures of `FIGURE_NAMES`.

    For each class: the logarithm of 1 + their number; the square root of the largest box's share of the photo's area, so
    that a thing of a thousandth of the photo is .03 and no speck; the highest score. All lie between 0 and about 3; a class
    without detections has zeros, which is an answer and not a missing one.

    Args:
        found: The detections.
        size: Width and height of the upright photo.

    Returns:
        `(18,)`.

    Raises:
        ValueError: If a class is unknown.
    """
    figures = np.zeros((len(MASK_CLASSES), len(FIGURES)), np.float32)
    for number, kind in enumerate(MASK_CLASSES):
        own = [one for one in found if one.kind == kind]
        if own:
            area = max((right - left) * (bottom - top) for left, top, right, bottom in (one.box for one in own))
            side = math.sqrt(max(area, 0.0) / (size[0] * size[1]))
            figures[number] = math.log1p(len(own)), side, max(one.score for one in own)
    unknown = sorted({one.kind for one in found} - set(MASK_CLASSES))
    if unknown:
        raise ValueError(f"detections of the unknown class {unknown[0]!r}; there are {', '.join(MASK_CLASSES)}")
    return figures.reshape(-1)


def evidence_of_records(folder: str | Path, splits: Mapping[str, Dataset]) -> ExtraEvidence:
    """Make the figures of every row that has a record; rows without one are missing from the outcome.

    Args:
        folder: Of a pseudo-mask run by a detector.
        splits: Rows of `load_rows`.

    Raises:
        ValueError: If the folder is of no such run, its provider knows the label, or none of the rows has a record.
    """
    source = _source(Path(folder))
    row_ids, figures = [], []
    for split in splits.values():
        for row_id in split["row_id"][:]:
            mask = mask_path(folder, row_id)
            record = read_record(mask) if mask.is_file() else None
            if record is not None:
                row_ids.append(row_id)
                figures.append(_figures(record))
    if not row_ids:
        raise ValueError(f"{folder} has no record of any of the rows of {', '.join(splits)}; mark these photos first")
    return ExtraEvidence(np.array(row_ids, dtype=np.str_), np.stack(figures)[:, None], FIGURE_NAMES, source)


def write_detections(settings: PseudoMaskArguments) -> str:
    """Write `evidence.arrow` beside the records of a finished run, and say in a line what it holds.

    It has every row of the data set that was marked, in this run or an earlier one; those of a lockbox where the run asks for it.

    Args:
        settings: Of the run.

    Raises:
        ValueError: As `evidence_of_records`.
    """
    rows, _ = load_photo_rows(settings, MaskWriter.product, settings.state())
    hidden = rows.lockbox and "test" not in settings.splits
    splits = {name: split for name, split in rows.splits.items() if name != "test" or not hidden}
    evidence = evidence_of_records(settings.output_dir, splits)
    path = Path(settings.output_dir) / EVIDENCE_NAME
    write_extra_evidence(path, evidence)
    total = sum(len(split) for split in splits.values())
    seen = int((evidence.values > 0).any(axis=(1, 2)).sum())
    return (
        f"{path}: {len(evidence.names)} figures of {len(evidence.row_ids)} of {total} photos, {seen} with a detection"
    )


def _source(folder: Path) -> dict[str, Any]:
    place = folder / SETTINGS_NAME
    if not place.is_file():
        raise ValueError(f"{folder} holds no {SETTINGS_NAME} of a pseudo-mask run; recipes/detect.py makes one")
    settings = json.loads(place.read_text(encoding="utf-8"))
    check_provider(settings["provider"]["name"])
    return {name: settings[name] for name in ("provider", "min_score", "min_area")}


def _figures(record: Mapping[str, Any]) -> NDArray[np.float32]:
    width, height = record["size"]
    return detection_figures([_Recorded(one) for one in record["objects"]], (width, height))


class _Recorded:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self.kind, self.box, self.score = values["kind"], tuple(values["box"]), values["score"]

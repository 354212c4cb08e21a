"""How far masks agree with reference masks: pixel IoU and average precision of objects, by class.

Only classes that both sides know count. Average precision is COCO's (`pycocotools`, of the extra `labeling`), without its
limit of 100 objects a photo. Reference objects under the smallest area are neither hits nor misses.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from natix_roadwork.data.masks import PhotoMask
from natix_roadwork.inference.slice_scores import Estimate
from natix_roadwork.labeling.mask_estimates import ratio_estimates
from natix_roadwork.labeling.mask_provider import FoundObject
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


MOST_OBJECTS = 10_000  # of a class and photo that count
FIRST, LAST = 0, -1  # of COCO's thresholds .5, .55 ... .95


@dataclass(frozen=True)
class PhotoAgreement:
    """One photo against its reference.

    Attributes:
        known: `(C,)` classes that both sides know.
        intersection: `(C,)` pixels that both mark.
        union: `(C,)` pixels that one of them marks.
        found: Run-length code, score of each object found, by class number.
        expected: Run-length code of each reference object, by class number.
        listed: Whether the reference's record lists its objects; otherwise they are connected pieces.
    """

    known: NDArray[np.bool_]
    intersection: NDArray[np.int64]
    union: NDArray[np.int64]
    found: dict[int, list[tuple[dict, float]]] = field(default_factory=dict)
    expected: dict[int, list[dict]] = field(default_factory=dict)
    listed: bool = False

    @property
    def iou(self) -> NDArray[np.float64]:
        """`(C,)`, NaN where a class is unknown or neither side marks it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.known & (self.union > 0), self.intersection / self.union, np.nan)


@dataclass(frozen=True)
class ClassAgreement:
    """Agreement on one class.

    Attributes:
        kind: The class.
        photos: Photos whose mask and reference both know it.
        marked: Those of them in which one side marks it.
        found: Objects found.
        expected: Reference objects of at least the smallest area.
        iou_pooled: Pixels that both mark over pixels that one marks, all photos together.
        iou_mean: Mean over the marked photos.
        ap50: Average precision at an IoU of .5; None without a reference object.
        ap: Mean of average precision at .5, .55 ... .95.
    """

    kind: str
    photos: int
    marked: int
    found: int
    expected: int
    iou_pooled: Estimate
    iou_mean: Estimate
    ap50: float | None
    ap: float | None


def compare_masks(
    mask: PhotoMask,
    objects: Sequence[FoundObject],
    reference: PhotoMask,
    expected: Sequence[FoundObject],
    listed: bool,
) -> PhotoAgreement:
    """Compare the mask of a photo with its reference of the same size.

    Args:
        mask: The mask that is judged.
        objects: Its objects.
        reference: What it should be.
        expected: Objects of the reference.
        listed: Whether a record listed those.
    """
    known = mask.known & reference.known
    both, either = mask.bits & reference.bits, mask.bits | reference.bits
    counts = np.zeros((2, len(MASK_CLASSES)), np.int64)
    for number in np.flatnonzero(known):
        counts[:, number] = [np.count_nonzero(bits & np.uint8(1 << number)) for bits in (both, either)]
    agreement = PhotoAgreement(known, *counts, listed=listed)
    for number in np.flatnonzero(known & (counts[1] > 0)).tolist():
        ours, theirs = ([o for o in side if o.kind == MASK_CLASSES[number]] for side in (objects, expected))
        codes = _codes([*ours, *theirs])
        scores = [found.score for found in ours]
        agreement.found[number] = list(zip(codes[: len(ours)], scores, strict=True))
        agreement.expected[number] = codes[len(ours) :]
    return agreement


def score_agreement(
    agreements: Sequence[PhotoAgreement], groups: NDArray[np.str_], min_area: int, seed: int
) -> list[ClassAgreement]:
    """Score each class that masks and references know together.

    Args:
        agreements: N photos.
        groups: `(N,)` group of each, resampled whole for the intervals.
        min_area: Reference objects under so many pixels are left out of average precision, and so are objects found of
            that size that match none.
        seed: Seed of the resamples.
    """
    known = np.stack([agreement.known for agreement in agreements])
    iou = np.stack([agreement.iou for agreement in agreements])
    marked = ~np.isnan(iou)
    pixels = [np.stack([getattr(a, name) for a in agreements]).astype(float) for name in ("intersection", "union")]
    pooled = ratio_estimates(*pixels, groups, seed)
    mean = ratio_estimates(np.nan_to_num(iou), marked.astype(float), groups, seed)
    scores = []
    for number in np.flatnonzero(known.any(axis=0)).tolist():
        ap50, ap = average_precision(agreements, number, min_area)
        codes = [code for agreement in agreements for code in agreement.expected.get(number, [])]
        scores.append(
            ClassAgreement(
                kind=MASK_CLASSES[number],
                photos=int(known[:, number].sum()),
                marked=int(marked[:, number].sum()),
                found=sum(len(agreement.found.get(number, [])) for agreement in agreements),
                expected=sum(_area(code) >= min_area for code in codes),
                iou_pooled=pooled[number],
                iou_mean=mean[number],
                ap50=ap50,
                ap=ap,
            )
        )
    return scores


def average_precision(
    agreements: Sequence[PhotoAgreement], number: int, min_area: int
) -> tuple[float | None, float | None]:
    """Compute COCO's average precision of class `number` at an IoU of .5, and its mean over .5, .55 ... .95."""
    expected, found = [], []
    for photo, agreement in enumerate(agreements, start=1):
        expected += [_annotation(code, photo) for code in agreement.expected.get(number, [])]
        found += [_annotation(code, photo, score) for code, score in agreement.found.get(number, [])]
    if not any(entry["area"] >= min_area for entry in expected):
        return None, None
    photos = [{"id": photo, "width": 1, "height": 1} for photo in range(1, len(agreements) + 1)]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
        evaluation = COCOeval(_coco(photos, expected), _coco(photos, found), "segm")
        evaluation.params.maxDets = [MOST_OBJECTS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[min_area, 1e12]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (thresholds, recalls, 1, 1, 1)
    return float(precision[FIRST].mean()), float(precision.mean())


def _codes(objects: Sequence[FoundObject]) -> list[dict]:
    """Encode objects over the smallest window that holds them all, which is much smaller than the photo."""
    boxes = np.array([found.box for found in objects])
    left, top = boxes[:, :2].min(axis=0)
    width, height = boxes[:, 2:].max(axis=0) - (left, top)
    codes = []
    for found in objects:
        plane = np.zeros((height, width), np.uint8, order="F")
        plane[found.box[1] - top : found.box[3] - top, found.box[0] - left : found.box[2] - left] = found.mask
        codes.append(coco_mask.encode(plane))
    return codes


def _annotation(code: dict, photo: int, score: float = 1.0) -> dict:
    known = {"image_id": photo, "category_id": 1, "iscrowd": 0, "score": score}
    return {**known, "segmentation": code, "area": _area(code)}


def _area(code: dict) -> int:
    return int(coco_mask.area(code))  # one by one: pycocotools 2.0.11 fails on lists of more than 255


def _coco(photos: list[dict], annotations: list[dict]) -> COCO:
    coco = COCO()
    numbered = [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)]
    coco.dataset = {"images": photos, "categories": [{"id": 1}], "annotations": numbered}
    coco.createIndex()
    return coco

"""What masks cover, by class, and how often each prompt fires on photos without roadwork.

In come the readings of `mask_reading.py`; out go shares and rates with grouped intervals. The rate on photos without
roadwork is the quality of a prompt: what it marks there is mostly wrong. Mostly, since such a photo may show a cone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.inference.slice_scores import Estimate
from natix_roadwork.labeling.mask_estimates import rate_estimates, ratio_estimates
from natix_roadwork.labeling.mask_reading import PhotoReading
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


ANY = "any class"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ClassCoverage:
    """What is marked of one class.

    Attributes:
        kind: The class.
        unknown: Photos whose provider did not look for it; every other figure leaves them out.
        photos: Photos in which it was looked for.
        marked: Those in which it was found.
        share: Share of the photos in which it was found.
        area_share: Share of all pixels that it covers.
        area_where_marked: Median share of the photo, where it was found.
        objects: Objects.
        objects_a_photo: Mean over the photos.
        scores: Quantiles of the objects' scores; empty where no record has scores.
    """

    kind: str
    unknown: int
    photos: int
    marked: int
    share: Estimate
    area_share: Estimate
    area_where_marked: float | None
    objects: int
    objects_a_photo: Estimate
    scores: list[float]


@dataclass(frozen=True)
class FiringRate:
    """How often a class, or one prompt of it, marks something in photos of either label.

    Attributes:
        kind: The class, or `any class`.
        prompt: The prompt; empty for the whole class.
        negatives: Photos without roadwork in which it was looked for.
        false_positives: Those of them in which it marked something.
        false_positive_rate: The share.
        positives: Roadwork photos in which it was looked for.
        hits: Those of them in which it marked something.
        positive_rate: The share.
        objects_on_negatives: Objects in photos without roadwork.
        presence: Mean belief that it is there at all, on negatives and on positives; None where a provider gives none.
    """

    kind: str
    prompt: str
    negatives: int
    false_positives: int
    false_positive_rate: Estimate
    positives: int
    hits: int
    positive_rate: Estimate
    objects_on_negatives: int
    presence: tuple[float | None, float | None]

    @property
    def key(self) -> str:
        """Names it among the metrics."""
        return f"{self.kind}/{self.prompt}" if self.prompt else self.kind


def class_coverage(photos: Sequence[PhotoReading], seed: int) -> list[ClassCoverage]:
    """Count what is marked of each class that any of the photos knows."""
    groups = np.array([photo.group for photo in photos])
    known = np.stack([photo.known for photo in photos])
    areas = np.stack([photo.areas for photo in photos])
    counts = np.array([[sum(o.kind == kind for o in photo.objects) for kind in MASK_CLASSES] for photo in photos])
    pixels = np.array([photo.pixels for photo in photos], float)[:, None]
    shares = rate_estimates(areas > 0, known, groups, seed)
    covered = ratio_estimates(areas.astype(float), known * pixels, groups, seed)
    objects = ratio_estimates((counts * known).astype(float), known.astype(float), groups, seed)
    found = []
    for number in np.flatnonzero(known.any(axis=0)).tolist():
        kind, marked = MASK_CLASSES[number], areas[:, number] > 0
        where = areas[marked, number] / pixels[marked, 0]
        scores = [o.score for photo in photos if photo.listed for o in photo.objects if o.kind == kind]
        found.append(
            ClassCoverage(
                kind=kind,
                unknown=int((~known[:, number]).sum()),
                photos=int(known[:, number].sum()),
                marked=int(marked.sum()),
                share=shares[number],
                area_share=covered[number],
                area_where_marked=float(np.median(where)) if len(where) else None,
                objects=int(counts[:, number].sum()),
                objects_a_photo=objects[number],
                scores=np.quantile(scores, QUANTILES).tolist() if scores else [],
            )
        )
    return found


def firing_rates(photos: Sequence[PhotoReading], seed: int) -> list[FiringRate]:
    """Compute how often any class, each class, and each prompt of it marks something, on either label."""
    kinds = [kind for number, kind in enumerate(MASK_CLASSES) if any(photo.known[number] for photo in photos)]
    asked = dict.fromkeys(pair for photo in photos for pair in photo.prompts)
    things = [(ANY, "")]
    for kind in kinds:
        things += [(kind, ""), *(pair for pair in asked if pair[0] == kind)]
    counted = np.stack([_looked_for(photos, *thing) for thing in things], axis=1)
    numbers = np.stack([_objects(photos, *thing) for thing in things], axis=1)
    marked = numbers > 0
    for place, (kind, prompt) in enumerate(things):
        if not prompt and kind != ANY:  # also what no listed object covers
            marked[:, place] = [photo.areas[MASK_CLASSES.index(kind)] > 0 for photo in photos]
    marked[:, 0] = [(photo.areas > 0).any() for photo in photos]
    return _rates(photos, things, marked, counted, numbers, seed)


def _rates(
    photos: Sequence[PhotoReading],
    things: Sequence[tuple[str, str]],
    marked: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    numbers: NDArray[np.int64],
    seed: int,
) -> list[FiringRate]:
    groups, labels = (np.array([getattr(photo, name) for photo in photos]) for name in ("group", "label"))
    sides = [counted & (labels == label)[:, None] for label in (0, 1)]
    estimates = [rate_estimates(marked, side, groups, seed) for side in sides]
    found = []
    for place, (kind, prompt) in enumerate(things):
        negative, positive = (side[:, place] for side in sides)
        found.append(
            FiringRate(
                kind=kind,
                prompt=prompt,
                negatives=int(negative.sum()),
                false_positives=int((marked[:, place] & negative).sum()),
                false_positive_rate=estimates[0][place],
                positives=int(positive.sum()),
                hits=int((marked[:, place] & positive).sum()),
                positive_rate=estimates[1][place],
                objects_on_negatives=int(numbers[negative, place].sum()),
                presence=(_presence(photos, prompt, 0), _presence(photos, prompt, 1)),
            )
        )
    return found


def _looked_for(photos: Sequence[PhotoReading], kind: str, prompt: str) -> NDArray[np.bool_]:
    if prompt:
        return np.array([(kind, prompt) in photo.prompts for photo in photos])
    known = np.stack([photo.known for photo in photos])
    return known.any(axis=1) if kind == ANY else known[:, MASK_CLASSES.index(kind)]


def _objects(photos: Sequence[PhotoReading], kind: str, prompt: str) -> NDArray[np.int64]:
    return np.array(
        [sum(kind in (ANY, look.kind) and prompt in ("", look.prompt) for look in photo.objects) for photo in photos]
    )


def _presence(photos: Sequence[PhotoReading], prompt: str, label: int) -> float | None:
    values = [photo.presence[prompt] for photo in photos if photo.label == label and prompt in photo.presence]
    return float(np.mean(values)) if values else None

"""Example photos beside their masks, for the quality page: good and bad ones, false positives, odd objects.

In come readings and the rows; out go cards with small JPEG pictures as `data:` URIs. Only the chosen photos are read again.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from natix_roadwork.data.masks import mask_path, read_mask
from natix_roadwork.data.natix_columns import LABEL_NAMES
from natix_roadwork.inference.worst_rows import jpeg_uri
from natix_roadwork.labeling.mask_looks import RULES, deviations
from natix_roadwork.labeling.mask_objects import plane_of
from natix_roadwork.labeling.mask_reading import PhotoReading, reference_path, row_photo
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


MOST_EXAMPLES = 6  # of a class and kind
PICTURE = (480, 360)  # pixels
TINT = 0.4
GOOD_IOU = 0.5
# Far from the orange, red and lime of the things themselves.
CLASS_COLOURS = {
    "cone": (255, 0, 170),
    "barrier": (0, 210, 255),
    "sign": (70, 90, 255),
    "worker": (120, 255, 0),
    "vehicle": (255, 225, 0),
    "equipment": (255, 60, 40),
}
HEADINGS = {
    "good": "Good",
    "bad": "Doubtful",
    "false positive": "Marked on photos without roadwork",
    "odd": "Most unusual objects",
}


@dataclass(frozen=True)
class Example:
    """One card.

    Attributes:
        kind: The class it is about.
        why: Key of `HEADINGS`.
        row_id: The photo.
        label: Name of its label.
        text: The figures behind the choice.
        photo: The part of the photo around what is marked, as a `data:` URI.
        overlay: The same with the mask over it, the reference outlined in white, an unusual object in a white box.
        referenced: Whether a reference is outlined.
    """

    kind: str
    why: str
    row_id: str
    label: str
    text: str
    photo: str
    overlay: str
    referenced: bool


@dataclass(frozen=True)
class Choice:
    """What a card will show: a reading, the class, why, in words, and the box to show; None = all of the class's marks."""

    reading: PhotoReading
    kind: str
    why: str
    text: str
    box: tuple[int, int, int, int] | None = None


def choose_examples(photos: Sequence[PhotoReading], limit: int) -> list[Choice]:
    """Choose at most `limit` photos of a class and kind, no two of one group.

    Good and doubtful ones are roadwork photos with the largest IoU, of `GOOD_IOU` or more, and the smallest; where no photo
    has a reference of the class, those with the highest and the lowest mean score. False positives have the largest score on photos without
    roadwork. Unusual objects break most rules, then lie farthest from the rest of their class.

    Raises:
        ValueError: If the limit is out of range.
    """
    if not 0 <= limit <= MOST_EXAMPLES:
        raise ValueError(f"examples={limit!r} must be 0 to {MOST_EXAMPLES}; each picture makes the page larger")
    looks = [look for photo in photos for look in photo.objects]
    far = dict(zip(map(id, looks), deviations(looks).tolist(), strict=True))
    chosen = []
    for number, kind in enumerate(MASK_CLASSES):
        chosen += _best_and_worst(photos, number, limit)
        marked = [(p, [o for o in p.objects if o.kind == kind]) for p in photos]
        wrong = [
            (max((o.score, o.pixels) for o in own), Choice(p, kind, "false positive", _scores(own)))
            for p, own in marked
            if own and p.label == 0
        ]
        chosen += _first(wrong, limit)
        odd = [
            ((len(o.broken), far[id(o)]), Choice(p, kind, "odd", _odd(o.broken, far[id(o)]), o.box))
            for p, own in marked
            for o in own
            if o.broken or far[id(o)] > 3
        ]
        chosen += _first(odd, limit)
    return chosen


def draw_examples(
    choices: Sequence[Choice], rows: Dataset, folder: Path, reference: Path | None, progress: bool = True
) -> list[Example]:
    """Draw the cards of all choices, in order.

    Args:
        choices: What to show.
        rows: All rows.
        folder: Masks that are judged.
        reference: Folder of reference masks; None takes the rows' own.
        progress: Whether a progress bar is shown.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        drawn = threads.map(lambda choice: draw_example(choice, rows, folder, reference), choices)
        return list(tqdm(drawn, "Examples", len(choices), unit="photo", disable=not progress))


def draw_example(choice: Choice, rows: Dataset, folder: Path, reference: Path | None) -> Example:
    """Read a chosen photo again and draw its card."""
    row = rows[choice.reading.row]
    photo, bits = row_photo(row), read_mask(mask_path(folder, row["row_id"])).bits
    path = reference_path(row, folder, reference) if choice.reading.agreement else None
    expected = None if path is None else read_mask(path).bits
    marks = plane_of(bits if expected is None else bits | expected, choice.kind)
    x, y, width, height = cv2.boundingRect(marks)
    window = _window(choice.box or (x, y, x + width, y + height), photo.shape[1], photo.shape[0])
    shown = _scaled(photo, window, cv2.INTER_AREA)
    overlay = paint_mask(shown, _scaled(bits, window, cv2.INTER_NEAREST))
    if expected is not None:
        _outline(overlay, _scaled(expected, window, cv2.INTER_NEAREST))
    if choice.box is not None:
        _frame(overlay, choice.box, window)
    return Example(
        kind=choice.kind,
        why=choice.why,
        row_id=row["row_id"],
        label=LABEL_NAMES[row["label"]],
        text=choice.text,
        photo=jpeg_uri(Image.fromarray(shown)),
        overlay=jpeg_uri(Image.fromarray(overlay)),
        referenced=expected is not None,
    )


def paint_mask(photo: NDArray[np.uint8], bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tint and outline each class of bits `(H, W)` over a photo `(H, W, 3)` in its colour."""
    painted = photo.astype(np.float32)
    for kind, colour in CLASS_COLOURS.items():
        inside = plane_of(bits, kind) > 0
        painted[inside] = (1 - TINT) * painted[inside] + TINT * np.array(colour, np.float32)
    painted = np.ascontiguousarray(painted.round().astype(np.uint8))
    for kind, colour in CLASS_COLOURS.items():
        edges, _ = cv2.findContours(plane_of(bits, kind), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(painted, edges, -1, colour, 2)
    return painted


def _best_and_worst(photos: Sequence[PhotoReading], number: int, limit: int) -> list[Choice]:
    """Choose by IoU, or without a reference of the class by score."""
    kind, ranked = MASK_CLASSES[number], []
    for photo in photos:
        iou = np.nan if photo.agreement is None else float(photo.agreement.iou[number])
        if not np.isnan(iou):
            missed = " (missed)" if not photo.areas[number] else ""
            ranked.append(((iou, int(photo.agreement.union[number])), photo, f"IoU {iou:.2f}{missed}"))
    lowest = GOOD_IOU
    if not ranked:
        lowest = 0.0
        for photo in photos:
            own = [look for look in photo.objects if look.kind == kind]
            if own:
                ranked.append(((float(np.mean([look.score for look in own])), 0), photo, _scores(own)))
    ranked = [entry for entry in ranked if entry[1].label == 1]  # the others are false positives, a list of their own
    good = _first([(rank, Choice(p, kind, "good", text)) for rank, p, text in ranked if rank[0] >= lowest], limit)
    taken = {choice.reading.row for choice in good}
    bad = [((-rank[0], rank[1]), Choice(p, kind, "bad", text)) for rank, p, text in ranked if p.row not in taken]
    return good + _first(bad, limit)


def _first(ranked: Sequence[tuple[tuple, Choice]], limit: int) -> list[Choice]:
    """Take the highest ranks, one of a group."""
    chosen: dict[str, Choice] = {}
    for _, choice in sorted(ranked, key=lambda pair: pair[0], reverse=True):
        if len(chosen) < limit:
            chosen.setdefault(choice.reading.group, choice)
    return list(chosen.values())


def _scores(objects: Sequence) -> str:
    count = f"{len(objects)} object{'s' if len(objects) > 1 else ''}"
    prompts = ", ".join(dict.fromkeys(found.prompt for found in objects if found.prompt))
    best = max(found.score for found in objects)
    return f"{count}, best score {best:.2f}" + (f", prompt {prompts}" if prompts else "")


def _odd(broken: Sequence[str], far: float) -> str:
    reasons = [RULES[rule] for rule in broken]
    return "; ".join([*reasons, f"{far:.1f} robust deviations from the class's median"] if far > 3 else reasons)


def _window(box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Widen a box to twice its size, at least a sixth of the photo, in the picture's shape, inside the photo."""
    left, top, right, bottom = box
    shape = PICTURE[0] / PICTURE[1]
    wide = max(2 * (right - left), 2 * (bottom - top) * shape, width / 6)
    across, down = min(width, round(wide)), min(height, round(wide / shape))
    x = min(max(0, (left + right - across) // 2), width - across)
    y = min(max(0, (top + bottom - down) // 2), height - down)
    return x, y, x + across, y + down


def _scaled(pixels: NDArray[np.uint8], window: tuple[int, int, int, int], how: int) -> NDArray[np.uint8]:
    left, top, right, bottom = window
    scale = min(PICTURE[0] / (right - left), PICTURE[1] / (bottom - top))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    return cv2.resize(np.ascontiguousarray(pixels[top:bottom, left:right]), size, interpolation=how)


def _frame(picture: NDArray[np.uint8], box: tuple[int, int, int, int], window: tuple[int, int, int, int]) -> None:
    """Draw the box of the object that is meant, a little larger than it is."""
    scale = picture.shape[1] / (window[2] - window[0])
    left, top, right, bottom = (round((value - window[place % 2]) * scale) for place, value in enumerate(box))
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.rectangle(picture, (left - 7, top - 7), (right + 7, bottom + 7), colour, width)


def _outline(picture: NDArray[np.uint8], bits: NDArray[np.uint8]) -> None:
    for kind in MASK_CLASSES:
        edges, _ = cv2.findContours(plane_of(bits, kind), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, (0, 0, 0), 4)
        cv2.drawContours(picture, edges, -1, (255, 255, 255), 2)

"""What to ask a model for: prompts, a table of a detector's own labels, examples marked by hand.

Prompts are short noun phrases, several synonyms a class: each is asked by itself and what several of them find is one
object. A YAML replaces them whole. The providers `sam3_provider.py`, `text_box_provider.py` and
`box_provider.py` read this module.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from natix_roadwork.labeling.mask_provider import Box
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


Prompts = dict[str, list[str]]

DEFAULT_PROMPTS: Prompts = {
    "cone": ["traffic cone", "orange traffic drum", "traffic barrel", "orange delineator post"],
    "barrier": ["construction barrier", "construction barricade", "concrete jersey barrier", "construction fence"],
    "sign": ["road work sign", "orange diamond road sign", "detour sign", "electronic arrow board"],
    "worker": ["construction worker", "person in safety vest", "person in hard hat", "flagger with stop paddle"],
    "vehicle": ["construction vehicle", "road work truck", "dump truck", "excavator", "road roller"],
    "equipment": ["construction equipment", "pile of gravel", "steel road plate", "portable generator"],
}


def check_prompts(prompts: object) -> Prompts:
    """Check prompts as a YAML gives them, and bring them into the order of `MASK_CLASSES`.

    Args:
        prompts: Class to its prompts, or None for `DEFAULT_PROMPTS`; a class without a key is not looked for.

    Returns:
        Class to its prompts, without blanks around them.

    Raises:
        ValueError: If a key is no class, a class has no prompts, or a prompt is no phrase or stands twice; the key is
            named.
    """
    if prompts is None:
        prompts = DEFAULT_PROMPTS
    if not isinstance(prompts, Mapping) or not prompts:
        raise ValueError(f"prompts={prompts!r} must map classes to lists of prompts, such as {{cone: [traffic cone]}}")
    check_classes(prompts, "prompts")
    seen: dict[str, str] = {}
    for kind, phrases in prompts.items():
        if not isinstance(phrases, list | tuple) or not phrases:
            raise ValueError(f"prompts[{kind!r}]={phrases!r} must be a list of one or more prompts")
        for phrase in phrases:
            key = _check_phrase(kind, phrase).lower()
            if key in seen:
                raise ValueError(f"prompts[{kind!r}] holds {phrase!r}, which prompts[{seen[key]!r}] holds already")
            seen[key] = kind
    return {kind: [phrase.strip() for phrase in prompts[kind]] for kind in MASK_CLASSES if kind in prompts}


def check_classes(classes: Mapping, name: str) -> None:
    """Refuse a mapping whose keys are not all of `MASK_CLASSES`.

    Raises:
        ValueError: If a key is no class; it is named.
    """
    for kind in classes:
        if kind not in MASK_CLASSES:
            raise ValueError(f"{name} has the key {kind!r}, which is no class; classes are {', '.join(MASK_CLASSES)}")


def check_labels(labels: object, known: Iterable[str], model_id: str) -> dict[str, str]:
    """Check a table of a detector's labels.

    Args:
        labels: The detector's label to our class.
        known: The detector's labels.
        model_id: Stands in the errors.

    Raises:
        ValueError: If a label is not the detector's or a class not ours; it is named.
    """
    known = list(known)
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError(f"labels={labels!r} must map labels of {model_id} to classes, such as {{person: worker}}")
    unknown = [label for label in labels if label not in known]
    if unknown:
        more = ", ..." if len(known) > 100 else ""
        raise ValueError(
            f"labels names {unknown}, which {model_id} does not have; it has {', '.join(known[:100])}{more}"
        )
    for label, kind in labels.items():
        if kind not in MASK_CLASSES:
            raise ValueError(f"labels[{label!r}]={kind!r} is no class; classes are {', '.join(MASK_CLASSES)}")
    return dict(labels)


@dataclass(frozen=True)
class Exemplars:
    """Boxes around examples, each in the photo in which the others are to be found.

    Attributes:
        boxes: `row_id` to class to boxes (left, top, right, bottom) in pixels of the upright photo.
        digest: sha256 of the file they came from.
    """

    boxes: dict[str, dict[str, list[Box]]]
    digest: str


def read_exemplars(path: str | Path) -> Exemplars:
    """Read a JSON file `{row_id: {class: [[left, top, right, bottom], ...]}}`.

    Raises:
        ValueError: If there is no such file, or a row, class or box in it is wrong; it is named.
    """
    try:
        text = Path(path).read_bytes()
        rows = json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"exemplars={str(path)!r} cannot be read as JSON ({error})") from error
    if not isinstance(rows, dict):
        raise ValueError(f"exemplars={str(path)!r} must hold {{row_id: {{class: [[left, top, right, bottom], ...]}}}}")
    for row_id, classes in rows.items():
        name = f"exemplars={str(path)!r}, row {row_id!r}"
        if not isinstance(classes, dict):
            raise ValueError(f"{name}: {classes!r} must map classes to lists of boxes")
        check_classes(classes, name)
        for kind, boxes in classes.items():
            if not isinstance(boxes, list) or not boxes or not all(_is_box(box) for box in boxes):
                raise ValueError(
                    f"{name}, class {kind!r}: {boxes!r} must be a list of boxes [left, top, right, bottom] in pixels with "
                    "0 <= left < right and 0 <= top < bottom"
                )
    return Exemplars(rows, hashlib.sha256(text).hexdigest())


def _check_phrase(kind: str, phrase: object) -> str:
    if not isinstance(phrase, str) or not phrase.strip():
        raise ValueError(f"prompts[{kind!r}] holds {phrase!r}; a prompt is a short noun phrase")
    if "." in phrase:  # separates phrases for some models
        raise ValueError(f"prompts[{kind!r}] holds {phrase!r}; a prompt has no full stop, give several prompts")
    return phrase.strip()


def _is_box(box: object) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    if not all(isinstance(side, int | float) and not isinstance(side, bool) and math.isfinite(side) for side in box):
        return False
    return 0 <= box[0] < box[2] and 0 <= box[1] < box[3]

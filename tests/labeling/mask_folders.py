"""Folders of masks for the tests of the quality page: of drawn scenes, perfect or degraded."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from datasets import Dataset

from natix_roadwork.data.masks import PhotoMask, class_areas, pack, read_mask, unpack, write_mask
from natix_roadwork.labeling.mask_objects import pieces
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


PROMPTS = {"cone": ["traffic cone", "traffic drum"], "barrier": ["construction barrier"], "sign": ["road work sign"]}
PROMPTS |= {"worker": ["construction worker"], "vehicle": ["construction vehicle"], "equipment": ["equipment"]}
Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def write_prompted(folder: Path, row_id: str, bits: np.ndarray, draw: np.random.Generator) -> Path:
    """Write a mask with the record of a prompted provider, scores drawn."""
    objects = [
        {
            "kind": found.kind,
            "prompt": PROMPTS[found.kind][int(draw.random() < 0.3) % len(PROMPTS[found.kind])],
            "score": round(float(draw.uniform(0.5, 1)), 3),
            "area": found.area,
            "box": list(found.box),
        }
        for found in pieces(PhotoMask(bits, np.ones(len(MASK_CLASSES), bool)))
    ]
    presence = {text: round(float(draw.uniform(0.2, 0.9)), 3) for texts in PROMPTS.values() for text in texts}
    record = {"provider": "prompted", "classes": list(MASK_CLASSES), "prompts": PROMPTS, "presence": presence}
    return write_mask(folder, row_id, bits, {**record, "objects": objects, "areas": class_areas(bits)})


def scene_masks(scenes: Path, rows: Dataset, folder: Path, change: Change | None = None, seed: int = 0) -> Path:
    """Write the masks of drawn scenes by row id, changed by `change` and then with a provider's record."""
    for row_id, label in zip(rows["row_id"][:], rows["label"][:], strict=True):
        number = int(row_id.rsplit(":", 1)[1])
        bits = read_mask(scenes / "masks" / f"{number:06d}_seg_mask.png").bits
        draw = np.random.default_rng([seed, number])
        if change is None:
            write_mask(folder, row_id, bits, {"provider": "scenes", "classes": list(MASK_CLASSES)})
        else:
            write_prompted(folder, row_id, change(bits, label, draw), draw)
    return folder


def degrade(bits: np.ndarray, label: int, draw: np.random.Generator) -> np.ndarray:
    """Dilate, shift, forget equipment, drop a fifth of the classes, and mark something on a third of the negatives."""
    planes = unpack(bits).astype(np.uint8)
    planes[MASK_CLASSES.index("equipment")] = 0
    planes[draw.random(len(MASK_CLASSES)) < 0.2] = 0
    planes = np.stack([cv2.dilate(plane, np.ones((5, 5), np.uint8)) for plane in planes])
    planes = np.roll(planes, (2, 3), (1, 2))
    if label == 0 and draw.random() < 0.33:
        height, width = bits.shape
        x, y = int(draw.uniform(0, 0.8) * width), int(draw.uniform(0, 0.8) * height)
        planes[draw.integers(0, 4), y : y + height // 8, x : x + width // 12] = 1
    return pack(planes.astype(bool))

"""Detected objects without duplicates, and boxes filled to masks.

The providers read this module; detector evidence counts the boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import batched_nms, clip_boxes_to_image, masks_to_boxes

from natix_roadwork.labeling.mask_provider import FoundObject
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        kind: Its class, one of `MASK_CLASSES`.
        box: (left, top, right, bottom) in pixels of the upright photo, inside it and not empty.
        score: How sure the detector is, in [0, 1].
        prompt: What was asked for, or the detector's own label.
    """

    kind: str
    box: tuple[float, float, float, float]
    score: float
    prompt: str


def distinct_boxes(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    names: Sequence[tuple[str, str]],
    size: tuple[int, int],
    nms_iou: float,
) -> list[Detection]:
    """Keep the best of the boxes that overlap within a class; classes may overlap each other.

    Args:
        boxes: `(N, 4)` left, top, right, bottom in pixels.
        scores: `(N,)`.
        names: Class and prompt of each box.
        size: Height and width of the photo; boxes are cut to it, and what lies outside it altogether is left out.
        nms_iou: Boxes of one class that overlap by more than this intersection over union are one object.

    Returns:
        By falling score.
    """
    boxes = clip_boxes_to_image(boxes.detach().cpu().float(), size)
    scores = scores.detach().cpu().float()
    kinds = torch.tensor([MASK_CLASSES.index(kind) for kind, _ in names], dtype=torch.int64)
    inside = torch.nonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).flatten()
    kept = inside[batched_nms(boxes[inside], scores[inside], kinds[inside], nms_iou)].tolist()
    return [Detection(names[i][0], tuple(boxes[i].tolist()), scores[i].item(), names[i][1]) for i in kept]


def distinct_masks(masks: torch.Tensor, nms_iou: float) -> list[int]:
    """Keep the best of the masks of one class that overlap.

    Args:
        masks: `(N, h, w)` bool, by falling score.
        nms_iou: A mask goes that overlaps a kept one by more than this intersection over union.

    Returns:
        Numbers of the masks that stay, in order; empty ones do not.
    """
    flat = masks.flatten(1).float()
    areas = flat.sum(dim=1)
    overlap = flat @ flat.T  # counts below 2^24: exact in float32
    iou = (overlap / (areas[:, None] + areas[None] - overlap).clamp(min=1)).cpu()
    kept: list[int] = []
    for number in torch.nonzero(areas.cpu()).flatten().tolist():
        if not kept or iou[number, kept].max() <= nms_iou:
            kept.append(number)
    return kept


def filled_boxes(detections: Sequence[Detection]) -> list[FoundObject]:
    """Fill each box: every pixel that it touches is marked."""
    found = []
    for detection in detections:
        left, top = (int(np.floor(side)) for side in detection.box[:2])
        right, bottom = (int(np.ceil(side)) for side in detection.box[2:])
        mask = np.ones((bottom - top, right - left), bool)
        found.append(FoundObject(detection.kind, (left, top, right, bottom), mask, detection.prompt, detection.score))
    return found


def cut_mask(kind: str, mask: torch.Tensor, prompt: str, score: float) -> FoundObject:
    """Cut a mask `(H, W)` bool of a whole photo, not empty, to its box."""
    left, top, right, bottom = (int(side) for side in masks_to_boxes(mask[None])[0].tolist())
    box = (left, top, right + 1, bottom + 1)  # the last row and column belong to it
    return FoundObject(kind, box, mask[top : box[3], left : box[2]].cpu().numpy(), prompt, score)

import pytest
import torch

from natix_roadwork.labeling.detections import Detection, distinct_boxes, distinct_masks, filled_boxes


def test_boxes_overlap_within_a_class_only_once() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [20, 20, 30, 30]])
    names = [("cone", "drum"), ("cone", "cone"), ("sign", "board"), ("cone", "cone")]
    found = distinct_boxes(boxes, torch.tensor([0.5, 0.6, 0.55, 0.9]), names, (40, 40), 0.5)
    assert [(one.kind, one.prompt, one.box) for one in found] == [
        ("cone", "cone", (20, 20, 30, 30)),
        ("cone", "cone", (0, 0, 10, 9)),
        ("sign", "board", (0, 0, 10, 9)),
    ]
    assert [one.score for one in found] == pytest.approx([0.9, 0.6, 0.55])
    assert len(distinct_boxes(boxes, torch.ones(4), names, (40, 40), 1)) == 4


def test_boxes_are_cut_to_the_photo() -> None:
    boxes = torch.tensor([[-5.0, -5, 5.5, 50], [30, 0, 60, 10], [3, 3, 3, 8]])
    found = distinct_boxes(boxes, torch.tensor([0.9, 0.8, 0.7]), [("cone", "")] * 3, (20, 30), 0.5)
    assert [one.box for one in found] == [(0, 0, 5.5, 20)]


def test_no_boxes_give_no_detections() -> None:
    assert distinct_boxes(torch.zeros(0, 4), torch.zeros(0), [], (20, 30), 0.5) == []


def test_a_filled_box_marks_every_pixel_it_touches() -> None:
    (found,) = filled_boxes([Detection("sign", (1.2, 2.0, 3.1, 2.4), 0.5, "board")])
    assert found.box == (1, 2, 4, 3) and found.area == 3
    assert (found.kind, found.prompt, found.score) == ("sign", "board", 0.5)


def test_masks_are_compared_by_their_pixels() -> None:
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    masks[0, :2], masks[1, :1], masks[2, 1:3] = True, True, True  # IoU of 0 with 1: 1/2, with 2: 1/3
    assert distinct_masks(masks, 0.5) == [0, 1, 2]
    assert distinct_masks(masks, 0.4) == [0, 2]
    assert distinct_masks(masks, 0.3) == [0]
    assert distinct_masks(masks[:0], 0.3) == []

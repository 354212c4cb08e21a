"""Colour and shape of marked objects: what the heuristics say of plain cases."""

import numpy as np
import pytest

from natix_roadwork.data.masks import MaskError, PhotoMask
from natix_roadwork.labeling.mask_agreement import compare_masks, score_agreement
from natix_roadwork.labeling.mask_looks import class_looks, colour_share, deviations, measure
from natix_roadwork.labeling.mask_objects import mask_objects, pieces
from natix_roadwork.labeling.mask_provider import FoundObject


ORANGE, BLUE, KNOWN = (255, 110, 0), (20, 40, 230), np.ones(6, bool)


def photo_with(colour: tuple[int, int, int], box: tuple[int, int, int, int], kind: str = "cone") -> tuple:
    photo = np.full((200, 300, 3), 90, np.uint8)
    left, top, right, bottom = box
    photo[top:bottom, left:right] = colour
    return FoundObject(kind, box, np.ones((bottom - top, right - left), bool)), photo


def test_an_orange_cone_on_the_road_breaks_no_rule() -> None:
    look = measure(*photo_with(ORANGE, (100, 100, 120, 130)))
    assert look.broken == () and look.measures["colour"] == 1.0 and not look.at_edge
    assert look.measures["aspect"] == pytest.approx(2 / 3) and look.measures["bottom"] == 0.65


@pytest.mark.parametrize(
    ("colour", "box", "broken"),
    [
        (BLUE, (100, 100, 120, 130), ("colour",)),
        (ORANGE, (100, 10, 120, 40), ("place",)),
        (ORANGE, (100, 100, 180, 120), ("aspect",)),
        (ORANGE, (100, 100, 105, 110), ("area",)),
        (ORANGE, (0, 100, 80, 120), ()),  # cut by the edge: its shape is not its own
    ],
)
def test_each_rule_finds_its_case(colour: tuple, box: tuple, broken: tuple) -> None:
    assert measure(*photo_with(colour, box)).broken == broken


def test_colour_share_counts_pixels_of_the_object_only() -> None:
    crop = np.zeros((10, 10, 3), np.uint8)
    crop[:5] = ORANGE
    inside = np.zeros((10, 10), bool)
    inside[3:7] = True
    assert colour_share(crop, inside, ["orange"]) == 0.5
    assert colour_share(crop, inside, ["white"]) == 0.0


def test_the_odd_one_lies_farthest_from_its_class() -> None:
    looks = [measure(*photo_with(ORANGE, (100, 100 + n, 120, 130 + n))) for n in range(12)]
    looks.append(measure(*photo_with(BLUE, (100, 100, 220, 110))))
    assert int(deviations(looks).argmax()) == 12
    assert deviations(looks[:5]).tolist() == [0.0] * 5  # too few to say
    (summed,) = class_looks(looks)
    assert (summed.objects, summed.broken["colour"], summed.quantiles["colour"][2]) == (13, 1, 1.0)


def test_pieces_are_what_touches() -> None:
    bits = np.zeros((10, 20), np.uint8)
    bits[1:3, 1:3] = 1
    bits[3, 3] = 1  # touches by a corner
    bits[6:9, 10:14] = 1 | 4
    found = pieces(PhotoMask(bits, np.array([True, True, False, True, True, True])))
    assert [(piece.kind, piece.box, piece.area) for piece in found] == [
        ("cone", (1, 1, 4, 4), 5),
        ("cone", (10, 6, 14, 9), 12),
    ]


def test_listed_objects_that_overlap_are_called_approximate() -> None:
    bits = np.zeros((10, 20), np.uint8)
    bits[2:6, 2:10] = 1
    near = {"kind": "cone", "box": [2, 2, 7, 6], "area": 20, "score": 0.5, "prompt": "p"}
    far = {"kind": "cone", "box": [5, 2, 10, 6], "area": 12}
    found = mask_objects(PhotoMask(bits, KNOWN), {"objects": [near, far]}, "m")
    assert [piece.area for piece in found.objects] == [20, 20] and found.approximate == 1 and found.listed


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kind": "cone", "box": [0, 0, 99, 5]},
        {"kind": "dog", "box": [0, 0, 5, 5]},
        {"kind": "cone", "box": [0, 0, 5, 5]},
    ],
)
def test_records_that_do_not_fit_are_refused(entry: dict) -> None:
    with pytest.raises(MaskError, match="object 0 of the record is no object of this mask"):
        mask_objects(PhotoMask(np.zeros((10, 20), np.uint8), KNOWN), {"objects": [entry]}, "m")


def test_average_precision_takes_more_objects_than_a_byte_counts() -> None:
    bits = np.zeros((40, 1200), np.uint8)
    bits[10:30, ::4] = 1  # 300 pieces
    mask = PhotoMask(bits, KNOWN)
    agreement = compare_masks(mask, pieces(mask), mask, pieces(mask), False)
    (score, *_) = score_agreement([agreement] * 2, np.array(["a", "b"]), 1, 0)
    assert (score.expected, score.ap, score.iou_pooled.value) == (600, 1.0, 1.0)

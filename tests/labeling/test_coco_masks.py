"""COCO annotations become the pixels they mark, and broken ones are named."""

import numpy as np
import pytest
from pycocotools import mask as coco

from natix_roadwork.data.masks import MaskError
from natix_roadwork.labeling.coco_masks import annotation_mask, read_counts
from tests.marked_photos import polygon


WIDTH, HEIGHT = 40, 30


def drawn(segmentation: object) -> tuple[np.ndarray, bool]:
    return annotation_mask({"id": 7, "segmentation": segmentation}, WIDTH, HEIGHT)


def some_mask(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) > 0.7


def test_polygon_marks_the_pixels_of_its_box() -> None:
    plane, clipped = drawn([polygon(10, 5, 20, 12)])
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[5:12, 10:20] = True
    assert plane.dtype == bool and np.array_equal(plane, expected) and not clipped


def test_several_polygons_are_one_object_and_empty_ones_nothing() -> None:
    plane, _ = drawn([polygon(0, 0, 4, 4), [], polygon(30, 20, 40, 30)])
    assert plane.sum() == 16 + 100


def test_polygon_is_cut_off_at_the_edge() -> None:
    plane, clipped = drawn([polygon(-5, -5, 8, 8)])
    assert clipped and plane[:8, :8].all() and plane.sum() == 64
    plane, clipped = drawn([polygon(100, 100, 120, 120)])
    assert clipped and not plane.any()
    assert not drawn([polygon(-0.4, 0, 8, HEIGHT + 0.4)])[1]  # rounding


@pytest.mark.parametrize("seed", range(5))
def test_both_spellings_of_rle_give_the_mask(seed: int) -> None:
    mask = some_mask(seed)
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    for counts in (packed, read_counts(packed, "it")):
        plane, clipped = drawn({"size": [HEIGHT, WIDTH], "counts": counts})
        assert np.array_equal(plane, mask) and not clipped


def test_runs_that_begin_with_ones() -> None:
    plane, _ = drawn({"size": [HEIGHT, WIDTH], "counts": [0, 30, 1170]})
    assert plane[:, 0].all() and plane.sum() == HEIGHT


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "annotation 7 has no segmentation; correct it in the annotation file"),
        ([[]], "has no segmentation"),
        ([[1, 2, 3, 4]], "has a polygon that is no list x, y"),
        ([[1, 2, 3, 4, 5, 6, 7]], "has a polygon that is no list x, y"),
        ([[1, 2, 3, 4, 5, "6"]], "has a polygon that is no list x, y"),
        ([[1, 2, 3, 4, 5, float("nan")]], "with a point further out than 10 photos"),
        ([polygon(0, 0, 5, 1e9)], "with a point further out than 10 photos"),
        ({"size": [HEIGHT, WIDTH], "counts": "oo"}, "ends inside a number"),
        ({"size": [HEIGHT, WIDTH], "counts": "0 0"}, "which is no part of a number"),
        ({"size": [HEIGHT, WIDTH], "counts": "o" * 40}, "which is no part of a number"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "runs are no numbers that add up to the 1200 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [10, 5, 2000]}, "add up to the 1200 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [10, -5, 1195]}, "add up to the 1200 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [10.0, 1190.0]}, "add up to the 1200 pixels"),
        ({"size": [HEIGHT, WIDTH]}, "add up to the 1200 pixels"),
    ],
)
def test_broken_annotations_are_named(segmentation: object, message: str) -> None:
    with pytest.raises(MaskError, match=message) as found:
        drawn(segmentation)
    assert found.value.reason == "broken annotation"


def test_rle_of_another_size_is_named() -> None:
    with pytest.raises(MaskError, match=r"annotation 7 has an RLE of size \[40, 30\] \(height, width\), its") as found:
        drawn({"size": [WIDTH, HEIGHT], "counts": [1200]})
    assert found.value.reason == "wrong size"


def test_damaged_rle_never_reaches_past_the_photo() -> None:
    """pycocotools crashes on some of these; each is named, or is a mask of the photo's size."""
    good = coco.encode(np.asfortranarray(some_mask().astype(np.uint8)))["counts"].decode()
    draw, refused = np.random.default_rng(0), 0
    for _ in range(500):
        letters = list(good[: draw.integers(1, len(good))])
        for place in draw.integers(0, len(letters), 3):
            letters[place] = chr(draw.integers(1, 256))
        try:
            assert drawn({"size": [HEIGHT, WIDTH], "counts": "".join(letters)})[0].shape == (HEIGHT, WIDTH)
        except MaskError:
            refused += 1
    assert refused > 450

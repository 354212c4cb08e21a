from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork.model.views import (
    Box,
    keeps_detail_halved,
    normalize_views,
    render_view,
    square_box,
    tile_side,
    tile_spans,
    valid_views,
    view_boxes,
    view_names,
)


NAMED_SIZES = [
    (4032, 3024), (3024, 4032), (1920, 1080), (1360, 800), (224, 224), (1, 1), (5000, 100), (100, 5000),
    (512, 512), (513, 512), (1281, 1280), (2, 1), (640, 480),
]  # fmt: skip
_RNG = np.random.default_rng(7)
SIZES = NAMED_SIZES + [tuple(map(int, _RNG.integers(1, 6000, 2))) for _ in range(60)]
VIEW_SIZES = (32, 224, 512)


def spans(boxes: list[Box], axis: int) -> list[tuple[int, int]]:
    return sorted({(box[axis], box[axis + 2]) for box in boxes})


@pytest.mark.parametrize("view_size", VIEW_SIZES)
def test_tiles_cover_every_pixel_and_overlap_by_a_quarter(view_size: int) -> None:
    for width, height in SIZES:
        tiles = view_boxes(width, height, view_size)[1:10]
        for axis, length in ((0, width), (1, height)):
            parts = spans(tiles, axis)
            assert parts[0][0] == 0 and parts[-1][1] == length, (width, height)
            for (start, end), (next_start, _) in pairwise(parts):
                assert end - next_start >= 0.25 * (end - start), (width, height)
        # the grid is the full product of its columns and rows, so covering both axes covers the photo
        assert set(tiles) == {(x[0], y[0], x[1], y[1]) for x in spans(tiles, 0) for y in spans(tiles, 1)}


@pytest.mark.parametrize("view_size", VIEW_SIZES)
def test_boxes_lie_inside_the_photo_and_are_never_empty(view_size: int) -> None:
    for width, height in SIZES:
        boxes = view_boxes(width, height, view_size)
        assert len(boxes) == 12
        assert boxes[0] == (0, 0, width, height)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_squares_are_square_and_as_large_as_the_photo_allows() -> None:
    for width, height in SIZES:
        for left, top, right, bottom in view_boxes(width, height, 224)[10:]:
            assert right - left == bottom - top == min(width, height)


def test_tiles_are_square_unless_the_photo_is_narrower_than_a_tile() -> None:
    for width, height in SIZES:
        side = tile_side(width, height, 224)
        for left, top, right, bottom in view_boxes(width, height, 224)[1:10]:
            assert (right - left, bottom - top) == (min(side, width), min(side, height))


def test_valid_views_are_distinct_and_never_enlarged() -> None:
    for width, height in SIZES:
        boxes = view_boxes(width, height, 224)
        flags = valid_views(boxes, 224)
        kept = [box for box, flag in zip(boxes, flags, strict=True) if flag]
        assert flags[0] and len(set(kept)) == len(kept)
        assert all(max(right - left, bottom - top) >= 224 for left, top, right, bottom in kept[1:])


def test_a_large_photo_has_twelve_valid_views_and_a_small_one_only_the_global_view() -> None:
    assert all(valid_views(view_boxes(4032, 3024, 512), 512))
    assert valid_views(view_boxes(200, 150, 224), 224) == [True] + [False] * 11


def test_boxes_of_a_phone_photo_are_the_known_ones() -> None:
    boxes = view_boxes(4032, 3024, 512)
    assert boxes[1] == (0, 0, 1614, 1614)
    assert boxes[5] == (1209, 705, 2823, 2319)
    assert boxes[9] == (2418, 1410, 4032, 3024)
    assert boxes[10:] == [(504, 0, 3528, 3024), (1008, 0, 4032, 3024)]


def test_the_middle_tile_starts_at_the_nearest_pixel() -> None:
    assert tile_spans(9, 4) == [(0, 4), (3, 7), (5, 9)]
    assert tile_spans(3, 4) == [(0, 3)] * 3


def test_a_strip_keeps_only_the_tiles_along_it() -> None:
    flags = valid_views(view_boxes(5000, 100, 512), 512)
    assert flags == [True] * 4 + [False] * 8


def test_portrait_squares_move_along_the_height() -> None:
    assert square_box(300, 500, "left") == (0, 0, 300, 300)
    assert square_box(300, 500, "center") == (0, 100, 300, 400)
    assert square_box(300, 500, "right") == (0, 200, 300, 500)


def test_left_and_right_squares_mirror_each_other() -> None:
    left, right = view_boxes(1920, 1080, 224, squares=("left", "right"))[10:]
    assert left == (0, 0, 1080, 1080) and right == (840, 0, 1920, 1080)


def test_single_layout_is_the_whole_photo() -> None:
    assert view_boxes(640, 480, 224, layout="single") == [(0, 0, 640, 480)]
    assert view_names("single") == ["global"]


def test_names_follow_the_boxes() -> None:
    names = view_names("photo12", ("left", "center"))
    assert len(names) == 12
    assert (names[0], names[1], names[6], names[11]) == ("global", "tile_0_0", "tile_1_2", "center_square")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "photo9"}, "view_layout.*photo9"),
        ({"squares": ("center", "top")}, "squares.*top"),
        ({"squares": ("right", "right")}, "squares.*two different"),
        ({"squares": "right"}, "squares.*right"),
        ({"width": 0}, "width.*0"),
        ({"view_size": -3}, "view_size.*-3"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view_boxes(**{"width": 640, "height": 480, "view_size": 224, **arguments})


def test_a_square_view_is_the_crop_resized() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    expected = photo.crop((20, 10, 84, 74)).resize((32, 32), Image.Resampling.BOX)
    rendered = render_view(np.asarray(photo), (20, 10, 84, 74), 32, resample=Image.Resampling.BOX)
    assert np.array_equal(rendered, np.asarray(expected))


def test_letterbox_keeps_the_aspect_and_pads_both_sides_alike() -> None:
    view = render_view(np.full((40, 80, 3), 255, dtype=np.uint8), (0, 0, 80, 40), 64, fill=(1, 2, 3))
    assert view.shape == (64, 64, 3)
    assert (view[16:48] == 255).all()
    assert (view[:16] == (1, 2, 3)).all() and (view[48:] == (1, 2, 3)).all()


def test_squash_fills_the_view() -> None:
    view = render_view(np.full((40, 80, 3), 255, dtype=np.uint8), (0, 0, 80, 40), 64, squash=True, fill=(1, 2, 3))
    assert (view == 255).all()


def test_a_hair_thin_box_still_gives_a_view() -> None:
    assert render_view(np.zeros((1, 5000, 3), dtype=np.uint8), (0, 0, 5000, 1), 32).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("size", "view_size", "squash", "halves"),
    [
        ((4032, 3024), 512, True, True),
        ((3024, 4032), 518, True, True),
        ((4032, 3024), 900, True, False),  # the tiles are 1614 wide
        ((2000, 1600), 400, True, True),
        ((2000, 1600), 401, True, False),  # the tiles are 801 wide
        ((4032, 1000), 512, False, False),  # the squares are 1000 wide
    ],
)
def test_a_halved_photo_is_enough_while_it_fills_every_view(
    size: tuple[int, int], view_size: int, squash: bool, halves: bool
) -> None:
    assert keeps_detail_halved(view_boxes(*size, view_size), view_size, squash_first=squash) is halves


def test_only_a_stretched_global_view_needs_the_shorter_side() -> None:
    whole = view_boxes(2000, 500, 512, layout="single")
    assert keeps_detail_halved(whole, 512, squash_first=False)
    assert not keeps_detail_halved(whole, 512, squash_first=True)


def test_normalize_is_zero_at_the_mean_and_one_a_deviation_above() -> None:
    views = torch.tensor([51, 102, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    result = normalize_views(views, mean=(0.2, 0.2, 0.5), std=(0.1, 0.2, 0.25))
    assert torch.allclose(result.flatten(), torch.tensor([0.0, 1.0, 2.0]), atol=1e-6)
    assert result.dtype == torch.float32

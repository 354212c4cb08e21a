"""TTA transforms: sixteen, mild, of the photo's size, without black borders, the same every time."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from natix_roadwork import RoadworkImageProcessor
from natix_roadwork.inference.tta_transforms import LONGEST_SIDE, TRANSFORM_NAMES, PhotoTransforms, transform_photo
from natix_roadwork.model.photo import load_photo
from tests.photo_rows import encoded_photo


NUMBERS = range(len(TRANSFORM_NAMES))


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth street of 90 x 120: nothing of it is darker than 60."""
    rows, columns = np.mgrid[0:90, 0:120].astype(np.float32)
    levels = [120 + 50 * np.sin(rows / 9), 130 + 60 * np.cos(columns / 11), 100 + rows / 3 + columns / 4]
    pixels = np.clip(np.stack(levels, axis=2), 60, 255).astype(np.uint8)
    pixels.setflags(write=False)  # as load_photo may give it
    return pixels


def test_there_are_sixteen_with_the_original_as_number_0(photo: np.ndarray) -> None:
    assert len(TRANSFORM_NAMES) == len(set(TRANSFORM_NAMES)) == 16
    assert TRANSFORM_NAMES[0] == "original" and transform_photo(photo, 0) is photo


@pytest.mark.parametrize("number", NUMBERS[1:], ids=TRANSFORM_NAMES[1:])
def test_a_transform_is_mild_and_keeps_the_size(number: int, photo: np.ndarray) -> None:
    changed = transform_photo(photo, number)
    assert changed.shape == photo.shape and changed.dtype == np.uint8
    assert np.array_equal(changed, transform_photo(photo, number)) and not np.array_equal(changed, photo)
    assert changed.min() >= 0.85 * 60 - 12  # no black border; vivid colours go a little below
    assert abs(changed.mean() / photo.mean() - 1) < 0.16


@pytest.mark.parametrize("number", NUMBERS, ids=TRANSFORM_NAMES)
def test_the_number_of_threads_changes_no_pixel(number: int) -> None:
    photo, threads = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8), cv2.getNumThreads()
    try:
        found = [(cv2.setNumThreads(count), transform_photo(photo, number))[1] for count in (1, 4)]
    finally:
        cv2.setNumThreads(threads)
    assert np.array_equal(*found)


def test_pairs_go_opposite_ways(photo: np.ndarray) -> None:
    made = {name: transform_photo(photo, number).astype(int) for number, name in enumerate(TRANSFORM_NAMES)}
    assert np.array_equal(made["flip"], photo[:, ::-1])
    assert made["darker"].mean() < photo.mean() < made["brighter"].mean()
    assert made["less_contrast"].std() < photo.std() < made["more_contrast"].std()
    assert np.ptp(made["jitter_pale"], axis=2).mean() < np.ptp(made["jitter_vivid"], axis=2).mean()
    details = [np.abs(np.diff(made[name], axis=0)).mean() for name in ("original", "blur_slight", "blur_strong")]
    assert details == sorted(details, reverse=True)


def test_geometry_moves_a_mark_where_it_should() -> None:
    photo = np.full((201, 301, 3), 90, np.uint8)
    photo[98:103, 248:253] = 255  # a hundred pixels right of the middle

    def mark(name: str) -> np.ndarray:
        light = transform_photo(photo, TRANSFORM_NAMES.index(name))[..., 0] > 150
        return np.argwhere(light).mean(axis=0)

    down = 100 * np.sin(np.radians(10))
    assert mark("rotate_left") == pytest.approx([100 - down, 150 + 100 * np.cos(np.radians(10))], abs=1)
    assert mark("rotate_right") == pytest.approx([100 + down, 150 + 100 * np.cos(np.radians(10))], abs=1)
    assert mark("scale_down") == pytest.approx([100, 240], abs=1)
    assert mark("scale_up") == pytest.approx([100, 260], abs=1)


@pytest.mark.parametrize("number", NUMBERS, ids=TRANSFORM_NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3)])
def test_the_smallest_photos_are_transformed(size: tuple[int, int], number: int) -> None:
    assert transform_photo(np.full((*size, 3), 99, np.uint8), number).shape == (*size, 3)


@pytest.mark.parametrize(
    ("photo", "number", "named"),
    [
        (np.zeros((4, 4, 3), np.uint8), 16, "number=16"),
        (np.zeros((4, 4, 3), np.uint8), -1, "number=-1"),
        (np.zeros((4, 4), np.uint8), 1, r"shape \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), 1, "float32"),
        (np.zeros((1, LONGEST_SIDE + 1, 3), np.uint8), 2, "32767 x 1"),
    ],
    ids=["too high", "negative", "gray", "float", "too long"],
)
def test_what_cannot_be_transformed_is_named(photo: np.ndarray, number: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        transform_photo(photo, number)


def test_views_are_cut_from_the_transformed_photo() -> None:
    processor, data = RoadworkImageProcessor(view_size=32, do_normalize=False), encoded_photo(0)
    for number in (0, 2):
        views, valid = PhotoTransforms().views_of(processor, data, number, 5)
        expected = processor.views_and_mask(transform_photo(load_photo(data), number))
        assert np.array_equal(views, expected[0]) and valid == expected[1]


def test_real_photos_stay_photos(street_photos: Path) -> None:
    photo = load_photo(sorted(street_photos.rglob("*.jpg"))[0])
    small = [
        cv2.resize(transform_photo(photo, number), (64, 38), interpolation=cv2.INTER_AREA).astype(float)
        for number in NUMBERS
    ]
    assert max(np.abs(picture.mean(axis=(0, 1)) / small[0].mean(axis=(0, 1)) - 1).max() for picture in small) < 0.2

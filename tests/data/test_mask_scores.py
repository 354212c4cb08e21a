"""Scores of masks in closed form."""

import numpy as np
import pytest

from natix_roadwork.data.mask_scores import (
    cell_maxima,
    cell_shares,
    count_photo,
    mask_figures,
    objects_seen,
    oracle_mask,
    split_by_size,
)
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


GRID = (4, 4)
GROUPS = ["a", "b"]


def plane(*boxes: tuple[int, int, int, int], size: int = 16) -> np.ndarray:
    found = np.zeros((size, size), np.float32)
    for top, bottom, left, right in boxes:
        found[top:bottom, left:right] = 1
    return found


def photo(kind: int, values: np.ndarray, rest: float = 0.0) -> np.ndarray:
    planes = np.full((len(MASK_CLASSES), *values.shape), rest, np.float32)
    planes[kind] = values
    return planes


def logits_of(values: np.ndarray) -> np.ndarray:
    return (2 * values - 1) * 8


def test_a_perfect_mask_has_every_figure_1() -> None:
    labels = [photo(0, plane((0, 8, 0, 8))), photo(0, plane((4, 6, 4, 6)))]
    counts = [count_photo(logits_of(each), each, GRID) for each in labels]
    figures = mask_figures(counts, GROUPS, seed=0)
    assert figures["mask_iou_cone"]["value"] == figures["mask_iou"]["value"] == 1
    assert figures["oracle_iou_cone"]["value"] == figures["patch_auc_cone"]["value"] == 1
    assert figures["mask_iou_sign"] == {"value": None, "low": None, "high": None}
    assert objects_seen(counts)["cone"] == {"known": 2, "large": 1, "small": 1}


def test_iou_counts_the_pixels_of_all_photos_together() -> None:
    labels = [photo(1, plane((0, 8, 0, 8))), photo(1, plane((0, 16, 0, 16)))]
    found = [photo(1, plane((0, 8, 4, 12))), photo(1, plane((0, 8, 0, 16)))]
    counts = [count_photo(logits_of(a), b, GRID) for a, b in zip(found, labels, strict=True)]
    assert mask_figures(counts, GROUPS, 0)["mask_iou_barrier"]["value"] == pytest.approx((32 + 128) / (96 + 256))


def test_photos_without_a_large_object_and_unknown_classes_do_not_count() -> None:
    labels = [photo(2, plane((0, 8, 0, 8))), photo(2, plane()), photo(2, plane((0, 8, 0, 8)), np.nan)]
    labels[1][3] = np.nan
    found = [photo(2, plane((0, 8, 0, 8))), photo(2, plane((0, 16, 0, 16))), photo(2, plane((0, 8, 0, 8)))]
    counts = [count_photo(logits_of(a), b, GRID) for a, b in zip(found, labels, strict=True)]
    assert mask_figures(counts, [0, 1, 2], 0)["mask_iou_sign"]["value"] == 1
    assert objects_seen(counts)["worker"] == {"known": 1, "large": 0, "small": 0}


def test_cells_of_small_objects_do_not_count_for_large_ones() -> None:
    labels = photo(0, plane((0, 8, 0, 8), (13, 14, 13, 14)))
    found = photo(0, plane((0, 8, 0, 8), (12, 16, 12, 16)))  # the whole cell around the small one
    counts = count_photo(logits_of(found), labels, GRID)
    assert counts.found[0].tolist() == [64, 64]


def test_the_oracle_fills_cells_that_are_half_covered() -> None:
    mask = plane((0, 4, 0, 4), (4, 6, 4, 8), (8, 9, 8, 12))  # a whole cell, half a cell, a quarter
    assert (oracle_mask(mask, GRID) == plane((0, 4, 0, 4), (4, 8, 4, 8)).astype(bool)).all()
    np.testing.assert_allclose(cell_shares(mask, GRID)[[0, 1, 2], [0, 1, 2]], [1.0, 0.5, 0.25], atol=1e-6)
    thin = photo(0, plane((0, 3, 0, 16)))  # three quarters of a row of cells
    assert count_photo(logits_of(thin), thin, GRID).oracle[0].tolist() == [48, 64]


def test_cells_between_pixels() -> None:
    oracle = oracle_mask(plane((0, 7, 0, 7), size=10), (3, 3))
    assert (
        oracle == plane((0, 7, 0, 7), size=10).astype(bool)
    ).all()  # cells of 3 1/3 pixels; the second ends at 6 2/3
    values = np.arange(100, dtype=np.float32).reshape(10, 10)
    assert cell_maxima(values, (5, 5))[0].tolist() == [11, 13, 15, 17, 19]
    assert cell_maxima(values[:2, :2], (4, 4)).tolist() == [[0, 0, 1, 1]] * 2 + [[10, 10, 11, 11]] * 2


def test_patch_auc_is_the_share_of_pairs_in_order() -> None:
    labels = np.zeros((16, 16), np.float32)
    labels[0, 0] = labels[0, 4] = 1  # one pixel in each of two cells
    logits = np.full((16, 16), -6.0, np.float32)
    logits[0, 0], logits[0, 5], logits[8, 8], logits[12, 12] = 3, -1, 0, -1
    counts = count_photo(photo(3, logits), photo(3, labels), GRID)
    wins = 14 + (12 + 0.5)  # the second cell loses to one of 14 and ties with one
    value = mask_figures([counts, counts], GROUPS, 0)["patch_auc_worker"]["value"]
    assert value == pytest.approx(wins / 28)


def test_objects_are_split_by_their_size() -> None:
    large, small = split_by_size(plane((0, 4, 0, 4), (8, 10, 8, 9), (12, 13, 0, 8)), 8)
    assert (large == plane((0, 4, 0, 4), (12, 13, 0, 8))).all() and (small == plane((8, 10, 8, 9))).all()
    assert not split_by_size(plane(), 1)[0].any()


def test_intervals_resample_whole_groups() -> None:
    draw = np.random.default_rng(0)
    counts = []
    for _ in range(12):
        labels = photo(0, plane((0, 8, 0, 8)))
        counts.append(count_photo(logits_of(photo(0, plane((0, 8, 0, int(draw.integers(2, 16)))))), labels, GRID))
    alone = mask_figures(counts, np.arange(12), seed=0)["mask_iou_cone"]
    assert alone["low"] < alone["value"] < alone["high"]
    assert mask_figures(counts, np.arange(12), seed=0)["mask_iou_cone"] == alone
    together = mask_figures(counts, np.zeros(12), seed=0)["mask_iou_cone"]
    assert together == {"value": alone["value"], "low": None, "high": None}


def test_one_group_that_speaks_gives_no_interval() -> None:
    shown, empty = photo(0, plane((0, 8, 0, 8), (13, 14, 13, 14))), photo(0, plane())
    counts = [count_photo(logits_of(each), each, GRID) for each in (shown, empty, empty)]
    figures = mask_figures(counts, [0, 1, 2], seed=0)
    for name in ("mask_iou_cone", "oracle_iou", "patch_auc_cone"):
        assert figures[name]["value"] == 1 and figures[name]["low"] is None


def test_photos_without_the_class_that_are_marked_have_a_rate() -> None:
    shown, empty = photo(0, plane((0, 8, 0, 8))), photo(0, plane())
    wrong = photo(0, plane((0, 1, 0, 1)))
    counts = [count_photo(logits_of(found), empty, GRID) for found in (wrong, empty, empty)]
    counts.append(count_photo(logits_of(shown), shown, GRID))  # has the class: not among them
    figures = mask_figures(counts, np.arange(4), seed=0)
    assert figures["mask_false_rate_cone"]["value"] == pytest.approx(1 / 3)
    assert figures["mask_false_rate_sign"]["value"] == 0 and figures["mask_iou_cone"]["value"] == 1

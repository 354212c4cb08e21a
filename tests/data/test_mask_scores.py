"""Scores of masks in closed form."""

import numpy as np
import pytest

from natix_roadwork.data.mask_scores import cell_shares, mask_iou, oracle_iou, oracle_mask, patch_auc, split_by_size


def plane(*boxes: tuple[int, int, int, int], size: int = 16) -> np.ndarray:
    found = np.zeros((size, size), bool)
    for top, bottom, left, right in boxes:
        found[top:bottom, left:right] = True
    return found


def test_iou_of_a_class_counts_all_photos_together() -> None:
    expected = np.stack([[plane((0, 4, 0, 4)), plane()], [plane((0, 8, 0, 8)), plane()]])
    found = np.stack([[plane((0, 4, 2, 6)), plane()], [plane((0, 8, 0, 8)), plane()]])
    np.testing.assert_allclose(mask_iou(found, expected), [(8 + 64) / (24 + 64), np.nan])
    known = np.array([[True, True], [False, True]])
    np.testing.assert_allclose(mask_iou(found, expected, known)[0], 8 / 24)
    with pytest.raises(ValueError, match=r"\(2, 2, 16, 16\) and \(2, 16, 16\) must have one shape"):
        mask_iou(found, expected[0])


def test_oracle_fills_cells_that_are_half_covered() -> None:
    mask = plane((0, 4, 0, 4), (4, 6, 4, 8), (8, 9, 8, 12))  # a whole cell, half a cell, a quarter
    oracle = oracle_mask(mask, (4, 4))
    assert (oracle == plane((0, 4, 0, 4), (4, 8, 4, 8))).all()
    np.testing.assert_allclose(oracle_iou(mask[None, None], (4, 4)), [(16 + 8) / (16 + 16 + 4)])
    np.testing.assert_allclose(cell_shares(mask, (4, 4))[[0, 1, 2], [0, 1, 2]], [1.0, 0.5, 0.25], atol=1e-6)


def test_oracle_of_the_mask_s_own_size_is_the_mask() -> None:
    mask = np.random.default_rng(0).random((2, 3, 12, 10)) < 0.3
    assert (oracle_mask(mask, (12, 10)) == mask).all() and (oracle_iou(mask, (12, 10)) == 1).all()


def test_oracle_of_cells_between_pixels() -> None:
    oracle = oracle_mask(plane((0, 7, 0, 7), size=10), (3, 3))
    assert (oracle == plane((0, 7, 0, 7), size=10)).all()  # cells of 3 1/3 pixels, the second ends at 6 2/3


def test_patch_auc_is_the_share_of_pairs_in_order() -> None:
    shares = np.array([[0.0, 0.0, 0.3, 1.0, np.nan, 0.0]]).reshape(1, 1, 2, 3)
    scores = np.array([[0.1, 0.5, 0.5, 0.9, 99.0, -1.0]]).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(patch_auc(scores, shares), [(2.5 + 3) / 6])
    np.testing.assert_allclose(patch_auc(scores, shares, least_share=0.5), [1.0])
    assert np.isnan(patch_auc(scores, shares, known=np.array([[False]]))).all()
    assert np.isnan(patch_auc(scores, np.zeros_like(shares))).all()
    with pytest.raises(ValueError, match="must have one shape"):
        patch_auc(scores, shares[0])


def test_objects_are_split_by_their_size() -> None:
    large, small = split_by_size(plane((0, 4, 0, 4), (8, 10, 8, 9), (12, 13, 0, 8)), 8)
    assert (large == plane((0, 4, 0, 4), (12, 13, 0, 8))).all() and (small == plane((8, 10, 8, 9))).all()
    assert not split_by_size(plane(), 1)[0].any()

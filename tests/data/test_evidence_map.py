import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork.data.evidence_map import draw_evidence, evidence_map, photo_evidence
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.outputs import RoadworkOutput


BOXES = [(0, 0, 400, 300), (0, 0, 200, 200), (200, 100, 400, 300)]
SIZE = (400, 300)


def weights_on(view: int, token: int, num_tokens: int = 5) -> np.ndarray:
    """Everything on one token of one view, the other views on their first token."""
    tokens = np.zeros((len(BOXES), num_tokens))
    tokens[:, 0] = 1
    tokens[view] = np.eye(num_tokens)[token]
    return tokens


def test_a_grid_token_lies_on_its_cell() -> None:
    # The lower right cell of the third view: pixels 300-400 x 200-300.
    found = evidence_map(weights_on(2, 4), [0.0, 0.0, 1.0], [0, 1, 2], 2, BOXES, SIZE, width=400)
    assert found.shape == (300, 400)
    assert found.sum() == pytest.approx(1) and found[200:, 300:].sum() == pytest.approx(1)
    assert found[200:, 300:].std() < 1e-12


def test_a_pooled_token_lies_on_the_whole_view() -> None:
    found = evidence_map(weights_on(1, 0), [0.0, 1.0, 0.0], [0, 1, 2], 2, BOXES, SIZE, width=400)
    assert found[:200, :200].sum() == pytest.approx(1) and found[:200, :200].std() < 1e-12


def test_kept_views_are_found_by_their_indices() -> None:
    found = evidence_map(weights_on(2, 4), [0.25, 0.75], [1, 2], 2, BOXES, SIZE, width=400)
    assert found[200:, 300:].sum() == pytest.approx(0.75)
    assert found[:200, :200].sum() == pytest.approx(0.25)


def test_without_a_grid_each_view_is_even() -> None:
    found = evidence_map(np.ones((3, 1)), [1.0], [0], 0, BOXES, SIZE, width=400)
    np.testing.assert_allclose(found, 1 / found.size)


def test_a_letterboxed_global_view_leaves_its_padding_out() -> None:
    # 400 x 300 in a square: padding above and below is an eighth each, so an upper cell shows 150 of its 200 rows.
    found = evidence_map(weights_on(0, 1), [1.0], [0], 2, BOXES, SIZE, squash_global=False, width=400)
    assert found[:150, :200].sum() == pytest.approx(1)
    squashed = evidence_map(weights_on(0, 1), [1.0], [0], 2, BOXES, SIZE, width=400)
    np.testing.assert_allclose(found, squashed)


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"token_weights is \(3, 5\) for 3 boxes and evidence_grid=3"):
        evidence_map(np.ones((3, 5)), [1.0], [0], 3, BOXES, SIZE)


def test_a_batch_becomes_one_map_a_photo() -> None:
    processor = RoadworkImageProcessor(view_size=32)
    output = RoadworkOutput(
        token_weights=torch.full((2, 12, 5), 0.2),
        view_weights=torch.full((2, 3), 1 / 3),
        view_indices=torch.tensor([[0, 1, 2], [0, 10, 11]]),
    )
    first, second = photo_evidence(processor, output, 2, [(320, 240), (240, 320)])
    assert first.shape == (288, 384) and second.shape == (512, 384)
    assert first.sum() == pytest.approx(1) and second.sum() == pytest.approx(1)


def test_the_strongest_place_is_the_most_orange() -> None:
    photo = Image.new("RGB", SIZE, (100, 100, 100))
    shares = evidence_map(weights_on(2, 4), [0.0, 0.0, 1.0], [0, 1, 2], 2, BOXES, SIZE)
    picture = np.asarray(draw_evidence(photo, shares, width=400)).astype(int)
    assert picture.shape == (300, 400, 3)
    red_over_blue = picture[..., 0] - picture[..., 2]
    assert red_over_blue[210:290, 310:390].min() > 150 and red_over_blue[:150, :].max() == 0

import math

import numpy as np
import pytest
import torch

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.scenes import write_scenes
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.view_selection import ViewSelector
from natix_roadwork.training.token_features import Features
from natix_roadwork.training.view_selection import add_view_selector, fit_view_selector, noisy_or_loss


VIEWS, TOKENS, WIDTH = 6, 5, 16


def rows_with_evidence(num_rows: int, seed: int) -> tuple[Features, np.ndarray]:
    """Noise of very different scale a channel; in positives one token of one view, not the global one, is shifted."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((num_rows, VIEWS, TOKENS, WIDTH))
    labels = np.arange(num_rows) % 2
    where = rng.integers(1, VIEWS, num_rows)
    direction = np.linalg.qr(np.random.default_rng(9).standard_normal((WIDTH, WIDTH)))[0][0]
    for row in np.flatnonzero(labels):
        tokens[row, where[row], rng.integers(TOKENS)] += 6 * direction
    tokens = (tokens * np.logspace(-1, 1, WIDTH) + 3).astype(np.float32)
    mask = np.ones((num_rows, VIEWS), bool)
    return Features(tokens, mask, labels, np.arange(num_rows), 1), where


@pytest.fixture
def selector(tiny_model: RoadworkForImageClassification) -> ViewSelector:
    config = RoadworkConfig(**{**tiny_model.config.to_dict(), "select_views": 2, "thumbnail_size": 16})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViewSelector(config, tiny_model.backbone)


def test_noisy_or_is_its_closed_form() -> None:
    scores = torch.tensor([[0.3, -1.2, 2.0], [-3.0, -4.0, 9.0], [-40.0, -40.0, -40.0], [40.0, 40.0, 40.0]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True], [True, True, True]])
    none = math.prod(1 - 1 / (1 + math.exp(-score)) for score in (0.3, -1.2, 2.0))
    masked = math.prod(1 - 1 / (1 + math.exp(-score)) for score in (-3.0, -4.0))
    positive = noisy_or_loss(scores, mask, torch.ones(4, dtype=torch.long))
    negative = noisy_or_loss(scores, mask, torch.zeros(4, dtype=torch.long))
    assert positive[:2].tolist() == pytest.approx([-math.log(1 - none), -math.log(1 - masked)], rel=1e-4)
    assert negative[:2].tolist() == pytest.approx([-math.log(none), -math.log(masked)], rel=1e-4)
    assert positive[3] == pytest.approx(0, abs=1e-6) and negative[2] == pytest.approx(0, abs=1e-6)
    assert positive.isfinite().all() and negative.isfinite().all()


def test_photo_labels_teach_which_view_holds_the_evidence(selector: ViewSelector) -> None:
    train, _ = rows_with_evidence(400, 0)
    fit_view_selector(selector, train, num_epochs=60, learning_rate=1e-2)
    unseen, where = rows_with_evidence(200, 1)
    best = selector.scores(torch.from_numpy(unseen.view_features)).argmax(dim=1).numpy()
    found = (best == where)[unseen.labels == 1].mean()
    assert found > 0.8  # by chance 1/6


def test_masked_views_teach_nothing_and_the_fit_repeats(selector: ViewSelector) -> None:
    train, _ = rows_with_evidence(60, 0)
    train.view_mask[:, 3] = False
    fit_view_selector(selector, train, seed=5, num_epochs=2)
    first = selector.weight.clone()
    train.view_features[:, 3] *= 1000
    fit_view_selector(selector, train, seed=5, num_epochs=2)
    assert selector.weight.equal(first)
    fit_view_selector(selector, train, seed=6, num_epochs=2)
    assert not selector.weight.equal(first)


def test_one_class_is_refused(selector: ViewSelector) -> None:
    train, _ = rows_with_evidence(8, 0)
    with pytest.raises(ValueError, match="train labels are all 0"):
        fit_view_selector(selector, train.subset(train.labels == 0))


def test_a_trained_model_gets_a_selector(
    tiny_model: RoadworkForImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_scenes(
        tmp_path_factory.mktemp("scenes") / "s", num_rows=8, width=200, positive_share=0.5, test_share=0.0
    )
    rows = load_rows(str(folder), near_duplicates=False).splits["train"]
    processor = RoadworkImageProcessor(view_size=32)
    photo = rows[0]["image"]["bytes"]
    batch = processor(photo)
    all_views = tiny_model(**batch).view_indices
    add_view_selector(tiny_model, processor, rows, 3, thumbnail_size=16)
    mask = tiny_model.view_selector(tiny_model.backbone, tiny_model.extract_tokens, **batch)[1]
    assert int(mask.sum()) == 3 and bool(mask[0, 0])
    assert tiny_model(**batch).view_indices.shape == all_views.shape
    with pytest.raises(ValueError, match="select_views=12 must lie between 1 and num_views - 1 = 11"):
        add_view_selector(tiny_model, processor, rows, 12)
    with pytest.raises(ValueError, match="thumbnail_size=20 must be a multiple"):
        add_view_selector(tiny_model, processor, rows, 3, thumbnail_size=20)
    assert (tiny_model.config.select_views, tiny_model.config.thumbnail_size) == (3, 16)

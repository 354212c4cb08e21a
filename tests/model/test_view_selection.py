import copy

import pytest
import torch
from torch import Tensor

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.model.pruning import best_views, gather_views, scatter_views


ALL = torch.ones(1, 6, dtype=torch.bool)


def selecting(config: RoadworkConfig, num_views: int, **changes: object) -> RoadworkForImageClassification:
    """A model that selects, its other weights those of one that does not."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {**config.to_dict(), "select_views": num_views, "thumbnail_size": 16, **changes}
        model = RoadworkForImageClassification(RoadworkConfig(**settings)).eval()
        if model.view_selector is not None:
            model.view_selector.weight.normal_()
        return model


def plain(model: RoadworkForImageClassification) -> RoadworkForImageClassification:
    twin = copy.deepcopy(model)
    twin.view_selector = None
    return twin


def selected(
    model: RoadworkForImageClassification, pixels: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return model.view_selector(model.backbone, model.extract_tokens, pixels, mask)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("scores", "masked", "chosen"),
    [
        ([0, 1, 2, 3, 4, 5], [], [0, 4, 5]),  # the global view stays although it scores lowest
        ([9, 5, 4, 3, 2, 1], [], [0, 1, 2]),
        ([0, 1, 1, 1, 1, 1], [], [0, 1, 2]),  # ties go to the lower index
        ([0, 1, 2, 3, 4, 5], [4, 5], [0, 2, 3]),  # a degenerate view is passed over ...
        ([0, 1, 2, 3, 4, 5], [1, 2, 3, 4], [0, 1, 5]),  # ... until no other is left
    ],
)
def test_best_views(scores: list[float], masked: list[int], chosen: list[int]) -> None:
    mask = ALL.clone()
    mask[0, masked] = False
    assert best_views(torch.tensor([scores], dtype=torch.float32), mask, 3).tolist() == [chosen]


def test_gathered_views_return_to_their_places() -> None:
    views = torch.arange(2 * 4 * 3 * 5).reshape(2, 4, 3, 5) + 1
    indices = torch.tensor([[0, 3], [0, 1]])
    kept = gather_views(views, indices)
    assert kept[0, 1].equal(views[0, 3]) and kept[1, 1].equal(views[1, 1])
    back = scatter_views(kept, indices, 4)
    assert back[0, [0, 3]].equal(views[0, [0, 3]]) and back[1, [0, 1]].equal(views[1, [0, 1]])
    assert not back[0, [1, 2]].any() and not back[1, [2, 3]].any()


@pytest.mark.parametrize("number", [None, 12, 40])
def test_all_views_is_the_model_without_selection(tiny_config: RoadworkConfig, number: int | None) -> None:
    model = selecting(tiny_config, number)
    assert model.config.select_views is None and model.view_selector is None
    assert not [name for name in model.state_dict() if "selector" in name]


def test_no_more_views_than_asked_for_run_as_without_selection(tiny_config: RoadworkConfig, pixels: Tensor) -> None:
    model = selecting(tiny_config, 5)
    few = pixels[:, :5]
    assert model(pixel_values=few).logits.equal(plain(model)(pixel_values=few).logits)


def test_backbone_runs_on_the_selected_views_only(
    tiny_config: RoadworkConfig, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = selecting(tiny_config, 5)
    seen = []
    run = model.backbone.forward
    monkeypatch.setattr(
        model.backbone, "forward", lambda pixel_values: seen.append(pixel_values.shape) or run(pixel_values)
    )
    model(pixel_values=pixels)
    assert [tuple(shape) for shape in seen] == [(36, 3, 16, 16), (15, 3, 32, 32)]


def test_selection_answers_as_a_mask_over_all_views(tiny_config: RoadworkConfig, pixels: Tensor) -> None:
    model = selecting(tiny_config, 5, keep_views=12)
    valid = torch.ones(3, 12, dtype=torch.bool)
    valid[0, 4:] = False  # fewer valid views than are selected
    tokens, mask = selected(model, pixels, valid)
    assert mask.sum(dim=1).tolist() == [4, 5, 5] and mask[:, 0].all()
    assert not (mask & ~valid).any()
    masked = plain(model)(pixel_values=pixels, view_mask=mask)
    output = model(pixel_values=pixels, view_mask=valid)
    assert torch.allclose(output.logits, masked.logits, atol=1e-6)
    assert (output.view_weights[~mask] == 0).all()
    assert model(view_features=tokens, view_mask=mask).logits.equal(output.logits)


def test_the_view_with_the_best_cell_is_selected(tiny_config: RoadworkConfig, pixels: Tensor) -> None:
    model = selecting(tiny_config, 2)
    tokens = model.view_selector.thumbnail_tokens(model.backbone, pixels)
    best = (tokens @ model.view_selector.weight).amax(dim=2)[:, 1:].argmax(dim=1) + 1
    mask = selected(model, pixels)[1]
    assert mask.nonzero()[:, 1].reshape(3, 2).tolist() == [[0, index] for index in best.tolist()]
    assert len(set(best.tolist())) > 1  # so that the test can tell a constant choice


def test_uint8_pixels_give_the_scores_of_normalised_ones(tiny_config: RoadworkConfig) -> None:
    model = selecting(tiny_config, 3, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    raw = torch.randint(0, 256, (2, 12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor(model.config.image_mean), torch.tensor(model.config.image_std)
    normalised = (raw / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    both = [
        model.view_selector.scores(model.view_selector.thumbnail_tokens(model.backbone, pixels))
        for pixels in (raw, normalised)
    ]
    assert torch.allclose(*both, atol=1e-4)


def test_a_model_that_selects_survives_saving(
    tiny_config: RoadworkConfig, pixels: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    model = selecting(tiny_config, 4)
    model.save_pretrained(folder)
    assert (folder / "view_selection.py").is_file()  # what trust_remote_code runs where the package is absent
    assert not model.view_selector.weight.requires_grad  # DDP would miss its gradient
    loaded, info = RoadworkForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.select_views == 4
    assert loaded(pixel_values=pixels).logits.equal(model(pixel_values=pixels).logits)


def test_a_wrong_setting_is_named(tiny_config: RoadworkConfig) -> None:
    with pytest.raises(ValueError, match="select_views=0 must be"):
        selecting(tiny_config, 0)
    with pytest.raises(ValueError, match="thumbnail_size=20 must be a multiple of the backbone's patch of 16"):
        selecting(tiny_config, 4, thumbnail_size=20)
    assert selecting(tiny_config, None, thumbnail_size=20).config.thumbnail_size == 20


def test_a_checkpoint_without_a_selector_chooses_the_first_views(
    tiny_model: RoadworkForImageClassification, pixels: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    tiny_model.save_pretrained(folder)
    loaded, info = RoadworkForImageClassification.from_pretrained(
        folder, select_views=4, thumbnail_size=16, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"view_selector.weight", "view_selector.bias"}  # transformers warns of them
    assert selected(loaded, pixels)[1].tolist() == [[True] * 4 + [False] * 8] * 3

import pytest
import torch
from torch import Tensor

from natix_roadwork import RoadworkForImageClassification


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (2, 12, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def views_run(tiny_model: RoadworkForImageClassification) -> list[int]:
    """Views of each pass through the backbone."""
    passes: list[int] = []
    tiny_model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    return passes


def without_dropout(model: RoadworkForImageClassification) -> RoadworkForImageClassification:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def gradients(model: RoadworkForImageClassification, pixels: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(pixel_values=pixels, labels=torch.tensor([0, 1])).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_chunks_give_the_tokens_of_one_pass(
    tiny_model: RoadworkForImageClassification, pixels: Tensor, views_run: list[int]
) -> None:
    whole = tiny_model.extract_tokens(pixels)
    chunked = tiny_model.extract_tokens(pixels, view_chunk=7)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)
    tiny_model.config.view_chunk = 16
    torch.testing.assert_close(tiny_model.extract_tokens(pixels), whole, rtol=1e-5, atol=1e-6)
    assert views_run == [24, 7, 7, 7, 3, 16, 8]


def test_chunk_below_one_is_refused(tiny_model: RoadworkForImageClassification, pixels: Tensor) -> None:
    with pytest.raises(ValueError, match="view_chunk=0"):
        tiny_model.extract_tokens(pixels, view_chunk=0)


def test_frozen_backbone_runs_once_a_step_even_under_checkpointing(
    tiny_model: RoadworkForImageClassification, pixels: Tensor, views_run: list[int]
) -> None:
    tiny_model.activation_checkpointing_enable()
    found = gradients(tiny_model.train(), pixels)
    assert views_run == [24]
    assert found and not any(name.startswith("backbone.") for name in found)


def test_trained_backbone_gets_its_gradient_and_stays_in_evaluation(
    tiny_model: RoadworkForImageClassification, pixels: Tensor
) -> None:
    last = tiny_model.backbone.model.layer[-1]
    last.requires_grad_(True)
    found = gradients(without_dropout(tiny_model), pixels)
    of_backbone = {name for name in found if name.startswith("backbone.")}
    assert of_backbone == {f"backbone.model.layer.1.{name}" for name, _ in last.named_parameters()}
    assert all(found[name].abs().sum() > 0 for name in of_backbone)
    assert not any(module.training for module in tiny_model.backbone.modules())


@pytest.mark.parametrize("view_chunk", [None, 5])
def test_checkpointing_a_trained_backbone_changes_no_gradient(
    tiny_model: RoadworkForImageClassification, pixels: Tensor, views_run: list[int], view_chunk: int | None
) -> None:
    tiny_model.backbone.requires_grad_(True)
    plain = gradients(without_dropout(tiny_model), pixels)
    tiny_model.config.view_chunk = view_chunk
    tiny_model.activation_checkpointing_enable()
    again = gradients(tiny_model, pixels)
    assert plain.keys() == again.keys()
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-4, atol=1e-6)
    assert sum(views_run) == 3 * 24 and max(views_run[1:]) == (view_chunk or 12)


def test_nothing_is_recorded_for_a_trained_backbone_without_gradient(
    tiny_model: RoadworkForImageClassification, pixels: Tensor
) -> None:
    tiny_model.backbone.requires_grad_(True)
    with torch.no_grad():
        assert not tiny_model.extract_tokens(pixels).requires_grad

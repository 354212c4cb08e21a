"""The mask decoder and side evidence inside the model: live and cached grids, bypasses, checkpoints, bad input."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForImageClassification
from transformers.utils.generic import find_labels

from natix_roadwork import RoadworkConfig
from natix_roadwork import RoadworkForImageClassification as Model
from natix_roadwork.model.heads import MaskDecoder, class_presence


Build = Callable[..., Model]
WEIGHTS = {"focal": 0.4, "consistency": 0.25, "mask": 0.2}


@pytest.fixture
def build(tiny_config: RoadworkConfig) -> Build:
    def make(**changes: object) -> Model:
        torch.manual_seed(0)
        changed = {"loss_weights": WEIGHTS, "mask_size": 8, "dropout": 0.0} | changes
        return Model(RoadworkConfig.from_dict(tiny_config.to_dict() | changed)).eval()

    return make


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask_labels() -> Tensor:
    return (torch.rand(2, 6, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.2).float()


def test_live_and_cached_grids_give_the_same_masks_and_answers(build: Build, pixels: Tensor) -> None:
    model = build(mask_evidence=True)
    with torch.no_grad():
        live = model(pixels)
        tokens, grid = model.extract_tokens_and_grid(pixels)
        cached = model(view_features=tokens, global_grid=grid)
    assert grid.shape == (2, 2, 2, 16)
    assert live.mask_logits.shape == (2, 6, 8, 8)
    assert torch.equal(live.mask_logits, cached.mask_logits)
    assert torch.equal(live.logits, cached.logits)
    assert torch.equal(tokens, model.extract_tokens(pixels))


def test_the_grid_is_that_of_the_global_view_for_any_chunk(build: Build, pixels: Tensor) -> None:
    model = build()
    whole = model.extract_tokens_and_grid(pixels)[1]
    alone = model.extract_tokens_and_grid(pixels[:, :1])[1]
    torch.testing.assert_close(whole, alone)
    for view_chunk in (1, 5, 13):
        torch.testing.assert_close(model.extract_tokens_and_grid(pixels, view_chunk)[1], whole)
    cells = model.extract_tokens(pixels)[:, 0, -4:]
    torch.testing.assert_close(whole.flatten(1, 2), cells)  # a patch grid of 2 x 2 is the evidence grid


def test_without_a_mask_term_nothing_is_decoded(build: Build, pixels: Tensor) -> None:
    plain = build(loss_weights={"focal": 0.4, "consistency": 0.25})
    assert plain.mask_decoder is None and plain.side_evidence is None
    assert plain(pixels).mask_logits is None
    assert plain.config.has_mask_head is False


def test_masks_alone_do_not_change_the_answer(build: Build, pixels: Tensor) -> None:
    plain, masked = build(loss_weights={"focal": 0.4, "consistency": 0.25}), build()
    plain.load_state_dict(masked.state_dict(), strict=False)
    assert torch.equal(plain(pixels).logits, masked(pixels).logits)


def test_the_loss_teaches_the_decoder_and_only_rows_with_masks(
    build: Build, pixels: Tensor, mask_labels: Tensor
) -> None:
    model = build().train()
    labels = torch.tensor([0, 1])
    mask_labels[1] = torch.nan
    output = model(pixels, labels=labels, mask_labels=mask_labels)
    assert output.loss_counts["mask"].item() == 1
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.mask_decoder.parameters())
    assert model.mask_decoder.output.weight.grad.any()
    model.zero_grad()
    model(pixels, labels=labels, mask_labels=torch.full_like(mask_labels, torch.nan)).loss.backward()
    assert not model.mask_decoder.output.weight.grad.any()  # a zero gradient, which DDP waits for


def test_masks_do_not_learn_from_the_decision(build: Build, pixels: Tensor, mask_labels: Tensor) -> None:
    model = build(mask_evidence=True).train()
    nothing = torch.full_like(mask_labels, torch.nan)
    model(pixels, labels=torch.tensor([0, 1]), mask_labels=nothing).loss.backward()
    assert not model.mask_decoder.output.weight.grad.any()
    assert model.side_evidence.presence.weight.grad.any()


def test_evaluation_needs_no_masks(build: Build, pixels: Tensor) -> None:
    model = build()
    output = model(pixels, labels=torch.tensor([0, 1]))
    assert output.loss_counts["mask"].item() == 0 and torch.isfinite(output.loss)
    tokens = model.extract_tokens(pixels)
    assert "mask" not in model(view_features=tokens, labels=torch.tensor([0, 1])).loss_parts


def test_trainer_does_not_wait_for_mask_labels() -> None:
    assert find_labels(Model) == ["labels"]


def test_presence_rises_with_a_small_strong_spot() -> None:
    logits = torch.full((1, 6, 32, 32), -6.0)
    logits[0, 2, 10:14, 20:24] = 5.0
    assert class_presence(logits)[0].tolist() == pytest.approx([-6, -6, 5, -6, -6, -6])


def test_the_decoder_is_light() -> None:
    decoder = MaskDecoder(1280, 128, 0.1)
    assert sum(parameter.numel() for parameter in decoder.parameters()) <= 2_000_000
    assert decoder(torch.zeros(1, 14, 14, 1280)).shape == (1, 6, 128, 128)


def test_extra_evidence_counts_where_it_is_there(build: Build, pixels: Tensor) -> None:
    model = build(loss_weights=None, extra_evidence_size=4)
    bare = model(pixels).logits
    extra = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3))
    extra[1] = torch.nan
    logits = model(pixels, extra_evidence=extra).logits
    assert not torch.equal(logits[0], bare[0]) and torch.equal(logits[1], bare[1])
    padded = torch.cat([extra, torch.full((2, 2, 4), torch.nan)], dim=1)
    torch.testing.assert_close(model(pixels, extra_evidence=padded).logits, logits)


def test_every_weight_has_a_gradient_without_extra_evidence(build: Build, pixels: Tensor) -> None:
    model = build(loss_weights=None, extra_evidence_size=4).train()
    model(pixels, labels=torch.tensor([0, 1])).loss.backward()
    trained = {name: weight.grad for name, weight in model.side_evidence.named_parameters()}
    assert all(grad is not None and not grad.any() for grad in trained.values())


def test_rows_lose_extra_evidence_in_training(build: Build) -> None:
    module = build(loss_weights=None, extra_evidence_size=4, whole_metadata_dropout=0.5).side_evidence.train()
    correction = module(torch.zeros(400, 16), None, torch.ones(400, 1, 4))
    assert 0.4 < (correction == 0).all(dim=1).float().mean().item() < 0.6


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForImageClassification])
def test_both_classes_load_the_decoder(build: Build, pixels: Tensor, tmp_path: Path, auto: type) -> None:
    model = build(mask_evidence=True, extra_evidence_size=4)
    model.save_pretrained(tmp_path)
    loaded, facts = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not facts["missing_keys"] and not facts["unexpected_keys"]
    assert torch.equal(loaded(pixels).embedding, model(pixels).embedding)
    assert torch.equal(loaded(pixels).mask_logits, model(pixels).mask_logits)


BAD = [
    ({"global_grid": (2, 2, 2, 8)}, r"global_grid has shape \(2, 2, 2, 8\), expected \(2, h, w, 16\)"),
    ({"global_grid": (3, 2, 2, 16)}, r"global_grid has shape \(3, 2, 2, 16\)"),
    ({"global_grid": (2, 2, 2, 16), "extra_evidence": (2, 4)}, r"extra_evidence of shape \(2, 4\).*\(2, E, 4\)"),
    ({}, "mask_evidence=True reads the global view's patch grid: give global_grid"),
]


@pytest.mark.parametrize(("shapes", "message"), BAD)
def test_bad_input_is_named(build: Build, shapes: dict[str, tuple], message: str) -> None:
    model = build(mask_evidence=True, extra_evidence_size=4)
    inputs = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=message):
        model(view_features=torch.zeros(2, 12, 6, 16), **inputs)


def test_bad_values_are_named(build: Build, pixels: Tensor, mask_labels: Tensor) -> None:
    model = build(extra_evidence_size=4)
    labels = torch.tensor([0, 1])
    extra = torch.zeros(2, 1, 4)
    extra[1, 0, 2] = torch.nan
    with pytest.raises(ValueError, match=r"NaN values of extra_evidence in row 1"):
        model(pixels, extra_evidence=extra)
    with pytest.raises(ValueError, match=r"mask_labels outside \[0, 1\] in row 0"):
        model(pixels, labels=labels, mask_labels=mask_labels - 1)
    with pytest.raises(ValueError, match=r"mask_labels of shape \(2, 6, 4, 4\).*\(2, 6, 8, 8\)"):
        model(pixels, labels=labels, mask_labels=mask_labels[..., :4, :4])
    with pytest.raises(ValueError, match="mask term, but mask_labels are not given"):
        model.train()(pixels, labels=labels)
    with pytest.raises(ValueError, match="mask term: give global_grid"):
        model.train()(view_features=torch.zeros(2, 12, 6, 16), labels=labels)


def test_bad_settings_are_named(tiny_config: RoadworkConfig) -> None:
    for change, message in (
        ({"mask_evidence": True}, "mask_evidence=True must be False without a weight for mask"),
        ({"mask_size": 0}, "mask_size=0"),
        ({"extra_evidence_size": -1}, "extra_evidence_size=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            RoadworkConfig.from_dict(tiny_config.to_dict() | change)

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, TimmWrapperConfig

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification, RoadworkModel, RoadworkOutput


Model = RoadworkForImageClassification


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 12, 6, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (2, 12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))


@pytest.fixture
def build(tiny_config: RoadworkConfig) -> Callable[..., Model]:
    """Builds a model of the tiny config with other fields."""

    def build_with(**fields: Any) -> Model:
        config = RoadworkConfig.from_dict(tiny_config.to_dict() | fields)
        torch.manual_seed(0)
        return Model(config).eval()

    return build_with


@pytest.fixture(scope="module")
def plan_model() -> Model:
    """The plan's widths on a DINOv3 of ViT-H+'s width and two of its 32 layers."""
    backbone = DINOv3ViTConfig(
        hidden_size=1280, intermediate_size=1280, num_attention_heads=20, num_hidden_layers=2,
        num_register_tokens=4, patch_size=16, use_gated_mlp=True,
    )  # fmt: skip
    return Model(
        RoadworkConfig(
            backbone_config=backbone,
            view_size=32,
            feature_pooling="mean",
            evidence_grid=0,
            attention_gate="elementwise",
            feed_forward=False,
        )
    ).eval()


def test_plan_sizes(plan_model: Model) -> None:
    shapes = {}

    def note(name: str, values: tuple | Tensor) -> None:
        shapes[name] = tuple((values[0] if isinstance(values, tuple) else values).shape)

    hooks = [
        plan_model.pruning.register_forward_hook(
            lambda _, inputs, output: (note("views", inputs), note("kept", output))[0]
        ),
        plan_model.projection.register_forward_hook(lambda _, __, output: note("projected", output)),
        *(
            layer.register_forward_hook(lambda _, __, output, name=f"layer {index}": note(name, output))
            for index, layer in enumerate(plan_model.attention_layers)
        ),
        plan_model.view_fusion.register_forward_hook(lambda _, __, output: note("embedding", output)),
    ]
    output = plan_model(pixel_values=torch.randn(2, 12, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert shapes == {
        "views": (2, 12, 1280),
        "kept": (2, 8, 1280),
        "projected": (2, 8, 512),
        **{f"layer {index}": (2, 8, 512) for index in range(4)},
        "embedding": (2, 512),
    }
    assert output.logits.shape == (2, 2)


def test_plan_has_one_vector_a_view_and_its_gate_and_scorer_widths(plan_model: Model) -> None:
    assert plan_model.evidence_pooling is None
    assert [module.weight.shape for module in plan_model.pruning.scorer if hasattr(module, "weight")] == [
        (320, 1280),
        (1, 320),
    ]
    assert plan_model.attention_layers[0].attention.gate_proj.weight.shape == (512, 512)
    assert plan_model.pyramid.mix.weight.shape == (512, 896)
    assert [layer.weight.shape for layer in plan_model.view_fusion.gate if hasattr(layer, "weight")] == [
        (128, 512),
        (1, 128),
    ]
    assert plan_model.classifier.hidden.weight.shape == (256, 512)


@pytest.mark.parametrize(("num_views", "kept"), [(1, 1), (2, 2), (8, 8), (9, 8), (12, 8)])
def test_any_number_of_views_up_to_the_config(tiny_model: Model, num_views: int, kept: int, pixels: Tensor) -> None:
    output = tiny_model(pixel_values=pixels[:, :num_views], labels=torch.tensor([0, 1]))
    assert output.logits.shape == (2, 2)
    assert output.embedding.shape == (2, 16)
    assert output.view_logits.shape == (2, kept, 2)
    assert output.view_indices.shape == output.view_weights.shape == (2, kept)
    assert output.token_weights.shape == (2, num_views, 6)
    assert output.loss.shape == () and output.loss.isfinite()


def test_output_fields_come_in_their_declared_order(tiny_model: Model, tokens: Tensor) -> None:
    output = tiny_model(view_features=tokens, labels=torch.tensor([0, 1]))
    declared = [name for name in RoadworkOutput.__dataclass_fields__ if getattr(output, name) is not None]
    assert list(output.keys()) == declared and len(declared) > 8
    assert output[0] is output.loss
    assert tiny_model(view_features=tokens)[0].shape == (2, 2)  # logits come first without labels


def test_a_batch_of_plain_images_is_one_view_each(tiny_model: Model, pixels: Tensor) -> None:
    single = tiny_model(pixel_values=pixels[:, 0])
    assert torch.equal(single.logits, tiny_model(pixel_values=pixels[:, :1]).logits)


def test_one_view_is_its_own_embedding(tiny_model: Model, tokens: Tensor) -> None:
    output = tiny_model(view_features=tokens[:, :1])
    assert (output.view_weights == 1).all()
    torch.testing.assert_close(output.view_logits[:, 0], output.logits)


def test_cached_tokens_give_the_bits_of_live_pixels(tiny_model: Model, pixels: Tensor) -> None:
    live = tiny_model(pixel_values=pixels)
    cached = tiny_model(view_features=tiny_model.extract_tokens(pixels))
    for name in ("logits", "embedding", "view_logits", "view_weights", "token_weights"):
        assert torch.equal(live[name], cached[name]), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 5e-3)])
def test_tokens_cached_one_photo_at_a_time_are_close(
    tiny_model: Model, pixels: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    cached = torch.cat([tiny_model.extract_tokens(photo[None]) for photo in pixels]).to(dtype)
    live = tiny_model(pixel_values=pixels).logits
    torch.testing.assert_close(tiny_model(view_features=cached).logits, live, atol=tolerance, rtol=0)


def test_one_token_a_view_may_come_without_its_axis(build: Callable[..., Model], tokens: Tensor) -> None:
    model = build(feature_pooling="mean", evidence_grid=0)
    assert torch.equal(model(view_features=tokens[:, :, 0]).logits, model(view_features=tokens[:, :, :1]).logits)


def test_bytes_are_normalised_inside(tiny_model: Model, pixels: Tensor) -> None:
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    normalised = (pixels / 255 - mean) / std
    torch.testing.assert_close(tiny_model.extract_tokens(pixels), tiny_model.extract_tokens(normalised))
    assert not torch.allclose(tiny_model.extract_tokens(pixels), tiny_model.extract_tokens(pixels / 255))


def test_config_statistics_normalise_the_bytes(build: Callable[..., Model], pixels: Tensor) -> None:
    model = build(image_mean=[0.5] * 3, image_std=[0.25] * 3)
    torch.testing.assert_close(model.extract_tokens(pixels), model.extract_tokens((pixels / 255 - 0.5) / 0.25))


def test_order_of_views_is_free_without_positions(build: Callable[..., Model], tokens: Tensor) -> None:
    model, order = build(view_positions=False, keep_views=12), torch.randperm(12)
    before, after = model(view_features=tokens), model(view_features=tokens[:, order])
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.view_weights, before.view_weights[:, order])


def test_positions_tell_views_apart(build: Callable[..., Model], tokens: Tensor) -> None:
    model = build(view_positions=True, keep_views=12)
    nn.init.normal_(model.projection.positions.weight)
    assert not torch.allclose(model(view_features=tokens).logits, model(view_features=tokens.flip(1)).logits)


@pytest.mark.parametrize("num_masked", [2, 7])  # fewer than are dropped; more, so that masked views are kept
def test_masked_views_have_no_influence(tiny_model: Model, tokens: Tensor, num_masked: int) -> None:
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[:, -num_masked:] = False
    before = tiny_model(view_features=tokens, view_mask=mask, labels=torch.tensor([0, 1]))
    changed = tokens.clone()
    changed[:, -num_masked:] = 100 * torch.randn(2, num_masked, 6, 16)
    after = tiny_model(view_features=changed, view_mask=mask, labels=torch.tensor([0, 1]))
    for name in ("loss", "logits", "embedding", "view_indices", "view_weights"):
        assert torch.equal(before[name], after[name]), name
    masked = ~mask.gather(1, before.view_indices)
    assert masked.any() == (num_masked > 4)
    assert (before.view_weights[masked] == 0).all()


def test_global_view_counts_whatever_the_mask_says(tiny_model: Model, tokens: Tensor) -> None:
    output = tiny_model(view_features=tokens, view_mask=torch.zeros(2, 12, dtype=torch.bool))
    assert output.logits.isfinite().all()
    assert (output.view_weights[:, 0] == 1).all()


def test_keeping_all_views_equals_no_pruning(build: Callable[..., Model], tokens: Tensor) -> None:
    pruned, whole = build(keep_views=11), build(keep_views=12)
    assert whole.pruning is None
    weights = {name: value for name, value in pruned.state_dict().items() if not name.startswith("pruning")}
    whole.load_state_dict(weights)
    pruned.pruning.keep_views = pruned.config.keep_views = 12
    assert torch.equal(pruned(view_features=tokens).logits, whole(view_features=tokens).logits)


@pytest.mark.parametrize("gate", ["headwise", "elementwise", "none"])
def test_gradient_reaches_every_trainable_parameter_and_not_the_backbone(
    build: Callable[..., Model], pixels: Tensor, gate: str
) -> None:
    model = build(attention_gate=gate, dropout=0.0).train()
    model(pixel_values=pixels, labels=torch.tensor([0, 1])).loss.backward()
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("backbone.") for name in trained)
    without = [name for name, gradient in trained.items() if gradient is None or not gradient.abs().sum() > 0]
    assert without == []
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    named = ("pruning.scorer", "evidence_pooling", "view_fusion.gate", "projection.positions", "classifier")
    assert all(any(name.startswith(part) for name in trained) for part in named)


def test_training_mode_leaves_the_backbone_in_evaluation(build: Callable[..., Model], pixels: Tensor) -> None:
    model = build(dropout=0.0).train()
    assert model.training and model.classifier.training
    assert not any(module.training for module in model.backbone.modules())
    assert torch.equal(model(pixel_values=pixels).logits, model(pixel_values=pixels).logits)
    tokens = model.extract_tokens(pixels)
    model.backbone.train()  # DINOv3 would jitter its positions here
    assert not torch.equal(model.extract_tokens(pixels), tokens)


def test_dropout_acts_in_training_only(build: Callable[..., Model], tokens: Tensor) -> None:
    model = build(dropout=0.5)
    assert torch.equal(model(view_features=tokens).logits, model(view_features=tokens).logits)
    model.train()
    assert not torch.equal(model(view_features=tokens).logits, model(view_features=tokens).logits)


def test_soft_labels_train_as_hard_ones(tiny_model: Model, tokens: Tensor) -> None:
    hard = tiny_model(view_features=tokens, labels=torch.tensor([0, 1])).loss
    soft = tiny_model(view_features=tokens, labels=torch.tensor([[1.0, 0.0], [0.0, 1.0]])).loss
    assert torch.equal(hard, soft)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_tokens_give_finite_losses_and_gradients(tiny_model: Model, tokens: Tensor, scale: float) -> None:
    tiny_model.train()
    output = tiny_model(view_features=scale * tokens, labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert output.logits.isfinite().all() and output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in tiny_model.parameters() if p.grad is not None)


def test_loss_is_float32_under_autocast(tiny_model: Model, pixels: Tensor) -> None:
    expected = tiny_model(pixel_values=pixels, labels=torch.tensor([0, 1])).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tiny_model(pixel_values=pixels, labels=torch.tensor([0, 1])).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=2e-2, rtol=0)


def test_bare_model_gives_the_embedding_of_the_classifier(tiny_model: Model, tokens: Tensor) -> None:
    bare = RoadworkModel(tiny_model.config).eval()
    bare.load_state_dict(tiny_model.state_dict(), strict=False)
    output = bare(view_features=tokens)
    assert torch.equal(output.embedding, tiny_model(view_features=tokens).embedding)
    assert output.logits is None and not hasattr(bare, "classifier")


def test_patch_of_a_timm_backbone_is_checked_when_the_model_is_built(build: Callable[..., Model]) -> None:
    backbone = TimmWrapperConfig(
        architecture="vit_huge_plus_patch16_dinov3", model_args={"embed_dim": 32, "depth": 1, "num_heads": 2}
    )
    with pytest.raises(ValueError, match=r"view_size=40 .*16 pixels"):
        build(backbone_config=backbone, feature_dim=32, view_size=40)


def test_attention_gates_start_nearly_open(tiny_model: Model) -> None:
    gates = [layer.attention.gate_proj.bias for layer in tiny_model.attention_layers]
    assert all((gate == 2).all() for gate in gates)


def test_a_copy_shares_nothing(tiny_model: Model, tokens: Tensor) -> None:
    twin = copy.deepcopy(tiny_model)
    nn.init.zeros_(twin.classifier.output.weight)
    assert not torch.equal(twin(view_features=tokens).logits, tiny_model(view_features=tokens).logits)


def test_trainer_divides_the_loss_itself() -> None:
    assert Model.accepts_loss_kwargs is False

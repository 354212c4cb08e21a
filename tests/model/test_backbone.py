from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModel,
    ConvNextV2Config,
    Dinov2Config,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
)

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.model.backbone import check_view_size, freeze, hash_weights, load_backbone, view_tokens


VIT = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
CONVNEXT = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
TIMM_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TIMM_GAP = {**TIMM_VIT, "img_size": 64}
TIMM_SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "img_size": 64, "window_size": 4}
# Without a class token, whatever stands before the patches.
NO_CLASS_TOKEN = ("swin", "timm_registers")
# name: (backbone config, view size, width, tokens before the patches, patches a side)
FAMILIES = {
    "dinov3_vit": (DINOv3ViTConfig(**VIT, patch_size=16, num_register_tokens=4), 64, 16, 5, 4),
    "dinov3_convnext": (DINOv3ConvNextConfig(**CONVNEXT), 128, 16, 1, 4),
    "dinov2": (Dinov2Config(**VIT, patch_size=14, image_size=28), 56, 16, 1, 4),
    "convnextv2": (ConvNextV2Config(**CONVNEXT), 128, 16, None, 4),
    "vit": (ViTConfig(**VIT, patch_size=16, image_size=64), 64, 16, 1, 4),
    "swin": (SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, image_size=32), 32, 16, 0, 4),
    "timm_vit": (TimmWrapperConfig(architecture="vit_huge_plus_patch16_dinov3", model_args=TIMM_VIT), 64, 32, 5, 4),
    "timm_vit_2x2": (
        TimmWrapperConfig(architecture="vit_huge_plus_patch16_dinov3", model_args=TIMM_VIT), 32, 32, 5, 2
    ),
    "timm_registers": (
        TimmWrapperConfig(architecture="vit_medium_patch16_reg4_gap_256", model_args=TIMM_GAP), 64, 32, 4, 4
    ),
    "timm_cnn": (TimmWrapperConfig(architecture="tf_efficientnet_lite0", num_features=1280), 64, 1280, None, 2),
    "timm_swin": (
        TimmWrapperConfig(architecture="swin_tiny_patch4_window7_224", model_args=TIMM_SWIN), 64, 16, "NHWC", 8
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> SimpleNamespace:
    """One backbone of each kind with its views and its own output."""
    config, view_size, width, prefix, side = FAMILIES[request.param]
    torch.manual_seed(0)
    backbone = freeze(AutoModel.from_config(config))
    views = torch.randn(2, 3, view_size, view_size)
    with torch.no_grad():
        output = backbone(pixel_values=views).last_hidden_state
    if output.dim() == 4:
        patches = output if prefix == "NHWC" else output.permute(0, 2, 3, 1)
        class_token = None
    else:
        patches = output[:, prefix:].unflatten(1, (side, side))
        class_token = None if request.param in NO_CLASS_TOKEN else output[:, 0]
    return SimpleNamespace(
        backbone=backbone, config=config, views=views, width=width, side=side, patches=patches, class_token=class_token
    )


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Close in units of the tensor's own size: an untrained CNN gives 1e-21."""
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale)


def test_class_token_is_the_first_token_of_the_backbone(family: SimpleNamespace) -> None:
    tokens = view_tokens(family.backbone, family.views, "cls", 0)
    expected = family.patches.mean(dim=(1, 2)) if family.class_token is None else family.class_token
    assert tokens.shape == (2, 1, family.width)
    assert_same(tokens[:, 0], expected)


def test_mean_is_over_patches_only(family: SimpleNamespace) -> None:
    tokens = view_tokens(family.backbone, family.views, "mean", 0)
    assert_same(tokens[:, 0], family.patches.mean(dim=(1, 2)))


def test_cells_are_means_of_blocks_row_by_row(family: SimpleNamespace) -> None:
    tokens = view_tokens(family.backbone, family.views, "cls_mean", 2)
    block = family.side // 2
    cells = family.patches.unflatten(2, (2, block)).unflatten(1, (2, block)).mean(dim=(2, 4)).flatten(1, 2)
    num_pooled = 1 if family.class_token is None else 2
    assert tokens.shape == (2, num_pooled + 4, family.width)
    assert_same(tokens[:, num_pooled:], cells)
    assert (
        cells[:, 1] - cells[:, 2]
    ).abs().max() > 1e-3 * cells.abs().max()  # else row and column order could not be told apart


def test_every_family_classifies_and_cached_tokens_give_the_same_bits(family: SimpleNamespace) -> None:
    config = RoadworkConfig(
        backbone_config=family.config, feature_dim=family.width, view_size=family.views.shape[-1], num_views=2,
        evidence_grid=2, evidence_size=4, hidden_size=16, num_attention_heads=2, num_attention_layers=1,
    )  # fmt: skip
    model = RoadworkForImageClassification(config).eval()
    views = family.views.unsqueeze(0)
    live = model(pixel_values=views).logits
    assert live.shape == (1, 2) and live.isfinite().all()
    assert torch.equal(live, model(view_features=model.extract_tokens(views)).logits)


class MeanColour(nn.Module):
    """A backbone whose patch tokens are the patches' mean colours, after a class token and two registers."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PreTrainedConfig(patch_size=8)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        patches = F.avg_pool2d(pixel_values, 8).flatten(2).transpose(1, 2)
        prefix = torch.full((len(patches), 3, 3), 100.0)
        return SimpleNamespace(last_hidden_state=torch.cat([prefix, patches], dim=1))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (1, 2), (3, 0), (3, 3)])
def test_signal_in_one_patch_lights_its_own_cell(row: int, column: int) -> None:
    views = torch.zeros(1, 3, 32, 32)
    views[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    fine = view_tokens(MeanColour(), views, "cls_mean", 4)[0, :, 0]
    coarse = view_tokens(MeanColour(), views, "cls_mean", 2)[0, :, 0]
    assert fine[0] == 100 and fine[1] == 1 / 16
    assert fine[2:].nonzero().flatten().tolist() == [4 * row + column]
    assert coarse[2:].nonzero().flatten().tolist() == [2 * (row // 2) + column // 2]


def test_register_tokens_are_in_no_token() -> None:
    torch.manual_seed(0)
    backbone = freeze(AutoModel.from_config(FAMILIES["dinov3_vit"][0]))
    views = torch.randn(1, 3, 64, 64)
    before = view_tokens(backbone, views, "cls_mean", 2)

    def spoil_registers(module: nn.Module, inputs: tuple, output: SimpleNamespace) -> SimpleNamespace:
        output.last_hidden_state[:, 1:5] = 1e6
        return output

    backbone.register_forward_hook(spoil_registers)
    assert torch.equal(view_tokens(backbone, views, "cls_mean", 2), before)


def test_registers_without_a_class_token_leave_the_mean() -> None:
    config, view_size, width, num_registers, _ = FAMILIES["timm_registers"]
    backbone = freeze(AutoModel.from_config(config))
    assert backbone.timm_model.cls_token is None and backbone.timm_model.num_prefix_tokens == num_registers
    views = torch.randn(1, 3, view_size, view_size)
    tokens = view_tokens(backbone, views, "cls_mean", 0)
    assert tokens.shape == (1, 1, width)
    assert torch.equal(tokens, view_tokens(backbone, views, "cls", 0))
    with torch.no_grad():
        sequence = backbone(pixel_values=views).last_hidden_state
    torch.testing.assert_close(tokens[:, 0], sequence[:, num_registers:].mean(dim=1))


def test_frozen_backbone_wants_no_gradient_and_is_in_evaluation_mode(family: SimpleNamespace) -> None:
    assert not family.backbone.training
    assert not any(parameter.requires_grad for parameter in family.backbone.parameters())


def test_backbone_weights_are_channels_last() -> None:
    backbone = freeze(AutoModel.from_config(FAMILIES["timm_cnn"][0]))
    kernels = [weight for weight in backbone.parameters() if weight.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


@pytest.mark.parametrize("name", ["dinov3_vit", "dinov2", "timm_vit"])
def test_view_size_that_is_no_multiple_of_the_patch_is_refused(name: str) -> None:
    backbone = AutoModel.from_config(FAMILIES[name][0])
    with pytest.raises(ValueError, match=r"view_size=100 .*patch of 1[46] pixels, e\.g\. 9[68]"):
        check_view_size(backbone, 100)


class Weights(nn.Module):
    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def test_hash_ignores_names_order_and_layout_in_memory() -> None:
    kernel, bias = torch.randn(4, 3, 2, 2), torch.randn(4)
    expected = hash_weights(Weights(kernel=kernel, bias=bias))
    assert len(expected) == 64
    assert hash_weights(Weights(first=bias, second=kernel)) == expected
    assert hash_weights(Weights(kernel=kernel.to(memory_format=torch.channels_last), bias=bias)) == expected


@pytest.mark.parametrize("change", ["value", "shape", "missing"])
def test_hash_sees_values_shapes_and_missing_tensors(change: str) -> None:
    kernel, bias = torch.randn(4, 3), torch.randn(4)
    tensors = {"kernel": kernel, "bias": bias}
    expected = hash_weights(Weights(**tensors))
    if change == "value":
        tensors["bias"] = bias + torch.tensor([0, 0, 0, 1e-6])
    elif change == "shape":
        tensors["kernel"] = kernel.view(3, 4)
    else:
        del tensors["bias"]
    assert hash_weights(Weights(**tensors)) != expected


def test_loading_checks_the_hash(tmp_path: Path, tiny_backbone_config: DINOv3ViTConfig) -> None:
    backbone: PreTrainedModel = AutoModel.from_config(tiny_backbone_config)
    backbone.save_pretrained(tmp_path)
    found = hash_weights(backbone)
    assert hash_weights(load_backbone(str(tmp_path), expected_sha256=found)) == found
    with pytest.raises(ValueError, match=rf"{found}.*{'0' * 64}"):
        load_backbone(str(tmp_path), expected_sha256="0" * 64)

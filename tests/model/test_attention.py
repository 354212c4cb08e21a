from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.model.attention import GatedAttentionLayer, MultiScalePyramid, SelfAttention, ViewProjection


H, HEADS = 16, 4


def attention(gate: str, seed: int = 0) -> SelfAttention:
    torch.manual_seed(seed)
    return SelfAttention(H, HEADS, dropout=0.0, gate=gate)


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 6, H, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> Tensor:
    return torch.ones(2, 6, dtype=torch.bool)


@pytest.mark.parametrize("gate", ["headwise", "elementwise"])
def test_open_gate_is_plain_attention(gate: str, views: Tensor, mask: Tensor) -> None:
    gated, plain = attention(gate), attention("none", seed=1)
    plain.load_state_dict({name: value for name, value in gated.state_dict().items() if "gate" not in name})
    nn.init.zeros_(gated.gate_proj.weight)
    nn.init.constant_(gated.gate_proj.bias, 1e4)
    assert torch.equal(gated(views, mask), plain(views, mask))


@pytest.mark.parametrize("gate", ["headwise", "elementwise"])
def test_shut_gate_leaves_only_the_output_bias(gate: str, views: Tensor, mask: Tensor) -> None:
    gated = attention(gate)
    nn.init.constant_(gated.gate_proj.bias, -1e4)
    torch.testing.assert_close(gated(views, mask), gated.out_proj.bias.expand(2, 6, H))


@pytest.mark.parametrize(("gate", "width"), [("none", None), ("headwise", HEADS), ("elementwise", H)])
def test_gate_has_one_value_a_head_or_a_channel(gate: str, width: int | None, views: Tensor, mask: Tensor) -> None:
    module = attention(gate)
    assert module(views, mask).shape == views.shape
    assert (module.gate_proj is None) == (width is None)
    if width:
        assert module.gate_proj.weight.shape == (width, H)


def test_a_head_gate_shuts_its_own_head_only(views: Tensor, mask: Tensor) -> None:
    module = attention("headwise")
    nn.init.zeros_(module.gate_proj.weight)
    seen = []
    module.out_proj.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].unflatten(-1, (HEADS, -1))))
    module.gate_proj.bias.data = torch.tensor([1e4, -1e4, 1e4, 1e4])
    module(views, mask)
    assert (seen[0][:, :, 1] == 0).all()
    assert (seen[0][:, :, [0, 2, 3]] != 0).all()


def test_attention_follows_the_order_of_views(views: Tensor, mask: Tensor) -> None:
    layer = GatedAttentionLayer(H, HEADS, 0.0, "headwise", feed_forward=True).eval()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(layer(views[:, order], mask), layer(views, mask)[:, order])


def test_masked_views_do_not_reach_the_others(views: Tensor, mask: Tensor) -> None:
    layer = GatedAttentionLayer(H, HEADS, 0.0, "headwise", feed_forward=True).eval()
    mask[:, 4:] = False
    changed = views.clone()
    changed[:, 4:] = 1e3
    assert torch.equal(layer(changed, mask)[:, :4], layer(views, mask)[:, :4])
    mask[:, 4:] = True
    assert not torch.equal(layer(changed, mask)[:, :4], layer(views, mask)[:, :4])


def test_attention_is_that_of_torch(views: Tensor, mask: Tensor) -> None:
    ours, theirs = attention("none"), nn.MultiheadAttention(H, HEADS, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv_proj.weight.data, ours.qkv_proj.bias.data
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    mask[0, 3] = False
    expected, _ = theirs(views, views, views, key_padding_mask=~mask)
    torch.testing.assert_close(ours(views, mask), expected)


def test_feed_forward_is_optional(views: Tensor, mask: Tensor) -> None:
    layer = GatedAttentionLayer(H, HEADS, 0.0, "none", feed_forward=False)
    assert layer.feed_forward is None
    torch.testing.assert_close(layer(views, mask), views + layer.attention(layer.attention_norm(views), mask))


def test_gate_is_computed_in_float32_under_autocast(views: Tensor, mask: Tensor) -> None:
    module = attention("headwise")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(views, mask)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), module(views, mask), atol=2e-2, rtol=0)


def test_projection_adds_the_position_of_the_view_not_of_the_row(views: Tensor) -> None:
    projection = ViewProjection(H, 8, num_views=12, dropout=0.0, positions=True)
    indices = torch.tensor([[0, 2, 3, 7, 9, 11]]).expand(2, -1)
    without = ViewProjection(H, 8, num_views=12, dropout=0.0, positions=False)
    without.load_state_dict({name: value for name, value in projection.state_dict().items() if "pos" not in name})
    expected = projection.positions.weight[[0, 2, 3, 7, 9, 11]].expand(2, -1, -1)
    torch.testing.assert_close(projection(views, indices) - without(views, indices), expected)


def test_pyramid_has_three_widths_and_is_not_linear(views: Tensor) -> None:
    pyramid = MultiScalePyramid(H, dropout=0.0)
    levels = [level(views) for level in pyramid.levels]
    assert [level.shape[-1] for level in levels] == [H, H // 2, H // 4]
    assert pyramid(views).shape == views.shape
    for level in pyramid.levels:
        nn.init.zeros_(level[0].bias)
        assert not torch.allclose(level(-views), -level(views))


def test_a_model_may_leave_the_pyramid_out(tiny_config: RoadworkConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with_it = RoadworkForImageClassification(RoadworkConfig.from_dict(tiny_config.to_dict()))
    without = RoadworkForImageClassification(RoadworkConfig.from_dict(tiny_config.to_dict() | {"pyramid": False}))
    gone = with_it.state_dict().keys() - without.state_dict().keys()
    assert tiny_config.pyramid and gone and all(name.startswith("pyramid.") for name in gone)
    without.eval().save_pretrained(tmp_path)
    loaded, info = RoadworkForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    tokens = torch.randn(2, 12, 6, 16, generator=torch.Generator().manual_seed(0))
    assert not info["missing_keys"] and not info["unexpected_keys"] and not loaded.config.pyramid
    assert torch.equal(loaded(view_features=tokens).logits, without(view_features=tokens).logits)


def test_a_config_from_before_the_switch_has_the_pyramid(tiny_config: RoadworkConfig) -> None:
    older = {name: value for name, value in tiny_config.to_dict().items() if name != "pyramid"}
    torch.manual_seed(0)
    first = RoadworkForImageClassification(RoadworkConfig.from_dict(older))
    torch.manual_seed(0)
    second = RoadworkForImageClassification(tiny_config)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

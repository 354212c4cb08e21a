import pytest
import torch
from torch import Tensor, nn

from natix_roadwork.model.view_fusion import GatedViewFusion


H = 16


@pytest.fixture
def fusion() -> GatedViewFusion:
    torch.manual_seed(0)
    return GatedViewFusion(H, num_heads=4, dropout=0.0)


@pytest.fixture
def views() -> Tensor:
    return torch.randn(3, 5, H, generator=torch.Generator().manual_seed(1))


def all_valid(views: Tensor) -> Tensor:
    return torch.ones(views.shape[:2], dtype=torch.bool)


def test_embedding_is_the_weighted_mean_of_the_refined_views(fusion: GatedViewFusion, views: Tensor) -> None:
    embedding, refined, weights = fusion(views, all_valid(views))
    assert (embedding.shape, refined.shape, weights.shape) == ((3, H), (3, 5, H), (3, 5))
    torch.testing.assert_close(embedding, torch.einsum("bk,bkh->bh", weights, refined))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_weights_are_sigmoid_gates_over_their_sum(fusion: GatedViewFusion, views: Tensor) -> None:
    _, refined, weights = fusion(views, all_valid(views))
    gates = fusion.gate(refined).squeeze(-1).sigmoid()
    torch.testing.assert_close(weights, gates / gates.sum(dim=1, keepdim=True))


def test_one_view_is_returned_as_refined(fusion: GatedViewFusion, views: Tensor) -> None:
    embedding, refined, weights = fusion(views[:, :1], all_valid(views[:, :1]))
    assert torch.equal(embedding, refined[:, 0])
    assert (weights == 1).all()


@pytest.mark.parametrize("bias", [-300.0, 0.0, 300.0])
def test_gates_at_their_ends_stay_finite(fusion: GatedViewFusion, views: Tensor, bias: float) -> None:
    nn.init.constant_(fusion.gate[2].bias, bias)
    embedding, _, weights = fusion(views, all_valid(views))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    embedding.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in fusion.parameters())


def test_masked_views_weigh_nothing(fusion: GatedViewFusion, views: Tensor) -> None:
    mask = all_valid(views)
    mask[:, 2] = False
    embedding, _, weights = fusion(views, mask)
    assert (weights[:, 2] == 0).all()
    changed = views.clone()
    changed[:, 2] = 1e4
    embedding_again, _, weights_again = fusion(changed, mask)
    assert torch.equal(embedding, embedding_again) and torch.equal(weights, weights_again)
    without = views[:, [0, 1, 3, 4]]
    torch.testing.assert_close(embedding, fusion(without, all_valid(without))[0])


def test_order_of_views_does_not_matter(fusion: GatedViewFusion, views: Tensor) -> None:
    order = torch.tensor([4, 2, 0, 3, 1])
    embedding, _, weights = fusion(views, all_valid(views))
    embedding_again, _, weights_again = fusion(views[:, order], all_valid(views))
    torch.testing.assert_close(embedding_again, embedding)
    torch.testing.assert_close(weights_again, weights[:, order])


def test_strength_of_evidence_scales_the_gates(fusion: GatedViewFusion, views: Tensor) -> None:
    _, _, weights = fusion(views, all_valid(views))
    strength = torch.tensor([0.0, 3.0, -2.0, 0.5, 0.0]).expand(3, 5)
    embedding, refined, weights_again = fusion(views, all_valid(views), strength)
    expected = weights * strength.exp()
    torch.testing.assert_close(weights_again, expected / expected.sum(dim=1, keepdim=True))
    torch.testing.assert_close(embedding, torch.einsum("bk,bkh->bh", weights_again, refined))


def test_a_view_whose_tokens_are_all_hidden_weighs_nothing(fusion: GatedViewFusion, views: Tensor) -> None:
    strength = torch.zeros(3, 5).index_fill(1, torch.tensor([1]), torch.finfo(torch.float32).min)
    embedding, _, weights = fusion(views, all_valid(views), strength)
    assert (weights[:, 1] == 0).all() and embedding.isfinite().all()

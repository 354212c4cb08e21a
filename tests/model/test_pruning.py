import pytest
import torch
from torch import Tensor, nn

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.model.pruning import ViewPruning, gather_views


class GivenScores(nn.Module):
    """Scores a view by its first channel."""

    def forward(self, views: Tensor) -> Tensor:
        return views[..., :1]


def pruning_by_first_channel(keep_views: int) -> ViewPruning:
    pruning = ViewPruning(feature_dim=4, keep_views=keep_views)
    pruning.scorer = GivenScores()
    return pruning


def views_with_scores(scores: list[float]) -> Tensor:
    return torch.stack([torch.full((4,), score) + torch.arange(4) / 10 for score in scores]).unsqueeze(0)


ALL = torch.ones(1, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0, 1, 2, 3, 4, 5], [0, 4, 5]),  # the global view stays although it scores lowest
        ([9, 5, 4, 3, 2, 1], [0, 1, 2]),
        ([0, 1, 1, 1, 1, 1], [0, 1, 2]),  # ties go to the lower index
        ([0, 0, 7, 0, 0, 0], [0, 1, 2]),
        ([0, 1, 7, 0, 1, 0], [0, 1, 2]),
    ],
)
def test_best_views_are_kept_in_ascending_order(scores: list[float], kept: list[int]) -> None:
    views = views_with_scores(scores)
    vectors, mask, indices = pruning_by_first_channel(3)(views, ALL)
    assert indices.tolist() == [kept]
    assert mask.all()
    assert torch.equal(vectors, views[:, kept])


def test_masked_views_are_taken_only_when_valid_ones_run_out() -> None:
    views = views_with_scores([0, 1, 2, 3, 4, 5])
    valid = torch.tensor([[True, True, True, True, False, False]])
    assert pruning_by_first_channel(3)(views, valid)[2].tolist() == [[0, 2, 3]]
    few = torch.tensor([[True, False, True, False, False, False]])
    _, mask, indices = pruning_by_first_channel(3)(views, few)
    assert indices.tolist() == [[0, 1, 2]]
    assert mask.tolist() == [[True, False, True]]


def test_training_keeps_the_values_to_the_bit() -> None:
    torch.manual_seed(0)
    pruning = ViewPruning(feature_dim=16, keep_views=8).train()
    views, mask = 3 * torch.randn(64, 12, 16), torch.ones(64, 12, dtype=torch.bool)
    vectors, _, indices = pruning(views, mask)
    assert torch.equal(vectors, gather_views(views, indices))


def test_gradient_reaches_the_scorer_through_kept_and_dropped_views() -> None:
    torch.manual_seed(0)
    pruning = ViewPruning(feature_dim=16, keep_views=2).train()
    views = torch.randn(1, 6, 16, requires_grad=True)
    vectors, _, indices = pruning(views, ALL)
    vectors.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in pruning.parameters())
    dropped = [view for view in range(6) if view not in indices[0].tolist()]
    assert (views.grad[0, dropped].abs().sum(dim=1) > 0).all()


def test_training_moves_the_choice_away_from_views_that_cost() -> None:
    torch.manual_seed(0)
    pruning = ViewPruning(feature_dim=6, keep_views=2).train()
    views = torch.eye(6).unsqueeze(0)
    optimizer = torch.optim.Adam(pruning.parameters(), lr=0.05)
    for _ in range(60):
        vectors, _, _ = pruning(views, ALL)
        optimizer.zero_grad()
        vectors[:, :, 1:5].sum().backward()  # views 1 to 4 cost, view 5 does not
        optimizer.step()
    assert pruning(views, ALL)[2].tolist() == [[0, 5]]


def test_gather_takes_the_named_views() -> None:
    views = torch.randn(2, 5, 3)
    indices = torch.tensor([[0, 4], [1, 2]])
    assert torch.equal(gather_views(views, indices), torch.stack([views[0, [0, 4]], views[1, [1, 2]]]))


def test_keeping_all_views_builds_no_scorer(tiny_config: RoadworkConfig) -> None:
    tiny_config.keep_views = tiny_config.num_views
    model = RoadworkForImageClassification(tiny_config).eval()
    assert not any("pruning" in name for name in model.state_dict())
    indices = model(view_features=torch.randn(2, 12, 6, 16)).view_indices
    assert indices.tolist() == [list(range(12))] * 2


def test_fewer_views_than_are_kept_pass_unpruned(tiny_model: RoadworkForImageClassification) -> None:
    output = tiny_model(view_features=torch.randn(2, 5, 6, 16))
    assert output.view_indices.tolist() == [list(range(5))] * 2

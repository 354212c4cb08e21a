import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.model.losses import consistency_loss, focal_loss, soft_targets, total_loss


EVEN = torch.ones(2)


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(16, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(16) % 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_without_focus_it_is_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> None:
    loss = focal_loss(logits, soft_targets(labels, 2, smoothing), EVEN, gamma=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, label_smoothing=smoothing))


def test_soft_labels_are_cross_entropy_with_probabilities(logits: Tensor) -> None:
    probabilities = torch.rand(16, 1, generator=torch.Generator().manual_seed(1))
    targets = torch.cat([probabilities, 1 - probabilities], dim=1)
    loss = focal_loss(logits, soft_targets(targets, 2, 0.0), EVEN, gamma=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets))


def test_hard_labels_as_probabilities_change_nothing(labels: Tensor) -> None:
    assert torch.equal(soft_targets(labels, 2, 0.1), soft_targets(F.one_hot(labels, 2), 2, 0.1))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_closed_form(gamma: float) -> None:
    logits, alpha = torch.tensor([[0.3, -1.2]]), torch.tensor([0.7, 0.2])
    p = logits.softmax(dim=1)[0].tolist()
    expected = -sum(
        q * a * (1 - p_k) ** gamma * math.log(p_k) for q, a, p_k in zip((0.1, 0.9), (0.7, 0.2), p, strict=True)
    )
    assert focal_loss(logits, torch.tensor([[0.1, 0.9]]), alpha, gamma).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_right_answer_costs_less_than_wrong(gamma: float) -> None:
    targets = soft_targets(torch.tensor([1]), 2, 0.1)
    costs = [focal_loss(torch.tensor([[0.0, logit]]), targets, EVEN, gamma).item() for logit in (2.0, 0.0, -2.0)]
    assert costs == sorted(costs) and costs[0] < costs[1] < costs[2]


def test_focus_takes_weight_from_easy_rows() -> None:
    targets, easy, hard = (
        soft_targets(torch.tensor([1]), 2, 0.0),
        torch.tensor([[0.0, 3.0]]),
        torch.tensor([[3.0, 0.0]]),
    )
    ratios = [focal_loss(easy, targets, EVEN, gamma) / focal_loss(hard, targets, EVEN, gamma) for gamma in (0.0, 2.0)]
    assert ratios[1] < 0.01 * ratios[0]


def test_alpha_weighs_the_classes(logits: Tensor) -> None:
    ones = soft_targets(torch.ones(16, dtype=torch.long), 2, 0.0)
    single = focal_loss(logits, ones, torch.tensor([5.0, 1.0]), 2.0)
    torch.testing.assert_close(focal_loss(logits, ones, torch.tensor([5.0, 3.0]), 2.0), 3 * single)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_focal_is_finite_at_extreme_logits(gamma: float, size: float) -> None:
    logits = (size * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).requires_grad_()
    loss = focal_loss(logits, soft_targets(torch.tensor([1, 1]), 2, 0.1), EVEN, gamma)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    assert logits.grad[0].abs().sum() > 0  # a row that is wrong still learns


def test_focal_is_computed_in_float32_under_autocast(logits: Tensor, labels: Tensor) -> None:
    expected = focal_loss(logits.bfloat16().float(), soft_targets(labels, 2, 0.1), EVEN, 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = focal_loss(logits.bfloat16(), soft_targets(labels, 2, 0.1), EVEN, 2.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_identical_views_are_consistent(logits: Tensor) -> None:
    views = logits[:4, None].expand(-1, 3, -1)
    loss, count = consistency_loss(views, torch.ones(4, 3, dtype=torch.bool))
    assert abs(loss.item()) < 1e-6
    assert count == 4


def test_consistency_is_the_jensen_shannon_divergence() -> None:
    view_logits = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wide = torch.tensor([True, False, True, True]).expand(5, -1)
    p = view_logits[:, [0, 2, 3]].softmax(dim=-1)

    def entropy(values: Tensor) -> Tensor:
        return -(values * values.log()).sum(dim=-1)

    expected = (entropy(p.mean(dim=1)) - entropy(p).mean(dim=1)).mean()
    torch.testing.assert_close(consistency_loss(view_logits, wide)[0], expected.float())


@pytest.mark.parametrize("size", [20.0, 1e4])
def test_consistency_is_at_most_ln_2_and_finite(size: float) -> None:
    view_logits = (size * torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])).requires_grad_()
    loss, _ = consistency_loss(view_logits, torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    assert view_logits.grad.isfinite().all()


def test_views_that_are_not_wide_have_no_say() -> None:
    view_logits = torch.randn(2, 4, 2)
    wide = torch.tensor([[True, True, False, False], [True, False, True, False]])
    changed = view_logits.clone()
    changed[:, 3] = 50
    assert torch.equal(consistency_loss(view_logits, wide)[0], consistency_loss(changed, wide)[0])


@pytest.mark.parametrize("num_wide", [0, 1])
def test_fewer_than_two_wide_views_are_no_row_of_the_term(num_wide: int) -> None:
    view_logits = torch.randn(3, 4, 2, requires_grad=True)
    wide = torch.arange(4).expand(3, -1) < num_wide
    loss, count = consistency_loss(view_logits, wide)
    assert (loss, count) == (0, 0)
    loss.backward()
    assert (view_logits.grad == 0).all()


def test_photos_without_two_wide_views_do_not_dilute_the_mean() -> None:
    view_logits = torch.randn(2, 3, 2)
    both = consistency_loss(view_logits, torch.tensor([[True, True, True], [True, False, False]]))
    alone = consistency_loss(view_logits[:1], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(both[0], alone[0])
    assert both[1] == 1


WEIGHTS = {"focal": 0.4, "consistency": 0.25}


def test_total_is_the_weighted_mean_of_the_terms() -> None:
    parts = {"focal": torch.tensor(2.0), "consistency": torch.tensor(1.0)}
    counts = {"focal": torch.tensor(8.0), "consistency": torch.tensor(3.0)}
    assert total_loss(parts, counts, WEIGHTS).item() == pytest.approx((0.4 * 2 + 0.25) / 0.65)


def test_total_leaves_out_terms_without_rows() -> None:
    parts = {"focal": torch.tensor(2.0), "consistency": torch.tensor(0.0)}
    counts = {"focal": torch.tensor(8.0), "consistency": torch.tensor(0.0)}
    assert total_loss(parts, counts, WEIGHTS).item() == pytest.approx(2.0)


def test_model_compares_wide_views_only(tiny_model: RoadworkForImageClassification) -> None:
    features, labels = torch.randn(2, 12, 6, 16), torch.tensor([0, 1])
    output = tiny_model(view_features=features, labels=labels)
    wide = torch.isin(output.view_indices, torch.tensor([0, 10, 11]))
    expected, count = consistency_loss(output.view_logits, wide)
    assert torch.equal(output.loss_parts["consistency"], expected)
    assert output.loss_counts == {"focal": 2, "consistency": count}


def test_one_view_trains_on_the_focal_term_alone(tiny_model: RoadworkForImageClassification) -> None:
    output = tiny_model(view_features=torch.randn(2, 1, 6, 16), labels=torch.tensor([0, 1]))
    assert output.loss_counts["consistency"] == 0
    torch.testing.assert_close(output.loss, output.loss_parts["focal"])


def test_term_without_a_weight_is_off(tiny_config: RoadworkConfig) -> None:
    tiny_config.loss_weights = {"focal": 1.0}
    output = RoadworkForImageClassification(tiny_config)(
        view_features=torch.randn(2, 12, 6, 16), labels=torch.tensor([0, 1])
    )
    assert set(output.loss_parts) == set(output.loss_counts) == {"focal"}

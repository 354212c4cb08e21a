import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.training.ablation_parts import MeanOfViews, switch_off


def test_mean_is_over_the_valid_views() -> None:
    views = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    mean, same, weights = MeanOfViews()(views, torch.tensor([[True, True, False]]), torch.randn(1, 3))
    assert mean.tolist() == [[2.0, 3.0]] and weights.tolist() == [[0.5, 0.5, 0.0]] and same is views


def test_a_model_without_its_parts_still_trains(tiny_model: RoadworkForImageClassification) -> None:
    switch_off(tiny_model, ["view_fusion", "classifier"])
    tokens = torch.randn(4, 12, 6, 16, generator=torch.Generator().manual_seed(0))
    output = tiny_model.train()(view_features=tokens, labels=torch.tensor([0, 1, 0, 1]))
    output.loss.backward()
    assert output.view_logits.shape == (4, 8, 2) and not list(tiny_model.view_fusion.parameters())
    assert tiny_model.classifier.weight.grad.abs().sum() > 0 and tiny_model.classifier.weight.shape == (2, 16)

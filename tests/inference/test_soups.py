import copy

import pytest
import torch

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.inference.soups import weight_soup


@pytest.fixture
def fine_tuned(tiny_model: RoadworkForImageClassification) -> dict[str, RoadworkForImageClassification]:
    """Three members a small step away from one model."""
    made = {}
    for number, name in enumerate("abc"):
        member = copy.deepcopy(tiny_model)
        generator = torch.Generator().manual_seed(number)
        for parameter in member.classifier.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
        made[name] = member
    return made


def test_a_soup_is_the_mean_of_the_weights(fine_tuned: dict) -> None:
    soup = weight_soup(fine_tuned, dict.fromkeys("abc", "base"))
    states = [member.state_dict() for member in fine_tuned.values()]
    for key, value in soup.state_dict().items():
        expected = sum(state[key].double() for state in states) / 3
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    frozen = "backbone.model.norm.weight" if "backbone.model.norm.weight" in states[0] else next(iter(states[0]))
    assert torch.equal(soup.state_dict()[frozen], states[0][frozen])
    assert not torch.equal(fine_tuned["a"].classifier.output.weight, soup.classifier.output.weight)
    assert not soup.training


def test_a_soup_of_one_model_is_that_model(tiny_model: RoadworkForImageClassification) -> None:
    soup = weight_soup({"a": tiny_model, "b": copy.deepcopy(tiny_model)}, {"a": "base", "b": "base"})
    views = torch.randn(2, 12, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(soup(views).logits, tiny_model(views).logits)


def test_members_of_other_beginnings_are_refused(fine_tuned: dict) -> None:
    with pytest.raises(
        ValueError, match="member 'b' started from 'seed 1', 'a' from 'seed 0'; average their predictions"
    ):
        weight_soup(fine_tuned, {"a": "seed 0", "b": "seed 1", "c": "seed 0"})
    with pytest.raises(ValueError, match="member 'c' has no record of its initialisation"):
        weight_soup(fine_tuned, {"a": "base", "b": "base"})
    with pytest.raises(ValueError, match=r"members=\['a'\]; a soup needs at least two"):
        weight_soup({"a": fine_tuned["a"]}, {"a": "base"})


def test_members_of_other_configurations_are_refused(fine_tuned: dict, tiny_config: RoadworkConfig) -> None:
    tiny_config.num_attention_layers = 1
    other = RoadworkForImageClassification(tiny_config)
    with pytest.raises(ValueError, match="members 'a' and 'd' have different configurations: num_attention_layers"):
        weight_soup({"a": fine_tuned["a"], "d": other}, {"a": "base", "d": "base"})


def test_weights_that_do_not_fit_are_named(fine_tuned: dict) -> None:
    fine_tuned["b"].classifier.output = torch.nn.Linear(8, 3)
    with pytest.raises(ValueError, match=r"members 'a' and 'b' hold different weights at 'classifier.output.weight'"):
        weight_soup(fine_tuned, dict.fromkeys("abc", "base"))

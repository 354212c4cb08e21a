"""Weight soups: one model of the average weights of members that started from the same weights.

In come models of one configuration and the record of what each started from; out goes one model, as fast as a single
member. `souping.py` saves it as a member like any other: predict with it and let `recipes/ensemble.py` compare.
"""

import copy
from collections.abc import Mapping

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def weight_soup(members: Mapping[str, PreTrainedModel], initialised_from: Mapping[str, str]) -> PreTrainedModel:
    """Average the weights of members that were fine-tuned from one initialisation.

    Model soups (Wortsman et al., https://arxiv.org/abs/2203.05482) work because such members lie in one valley of the
    loss. Heads trained from different random weights do not: their average is no model. Merge adapters into their model
    before; averages of the two factors of an adapter are not the average of their product.

    Args:
        members: Models by member name, two or more.
        initialised_from: For each member, what its training started from, such as the hash of the weights.

    Returns:
        A copy of the first model with averaged weights, in evaluation mode. Averages are taken in float64.

    Raises:
        ValueError: If the record of a member is missing or differs, configurations or weights do not fit, or a buffer of
            whole numbers differs; the members are named.
    """
    if len(members) < 2:
        raise ValueError(f"members={list(members)}; a soup needs at least two")
    (first, model), *others = members.items()
    config = _settings(model)
    for name in members:
        if not initialised_from.get(name):
            raise ValueError(
                f"member {name!r} has no record of its initialisation; a soup cannot tell whether it fits"
            )
    for name, other in others:
        if initialised_from[name] != initialised_from[first]:
            raise ValueError(
                f"member {name!r} started from {initialised_from[name]!r}, {first!r} from {initialised_from[first]!r}; "
                "average their predictions instead"
            )
        found = _settings(other)
        differ = sorted(key for key in config.keys() | found.keys() if config.get(key) != found.get(key))
        if differ:
            raise ValueError(f"members {first!r} and {name!r} have different configurations: {', '.join(differ)}")
    soup = copy.deepcopy(model).eval()
    states = {name: member.state_dict() for name, member in members.items()}
    soup.load_state_dict({key: _average(key, states) for key in states[first]})
    return soup


def _settings(model: PreTrainedModel) -> dict[str, object]:
    """The configuration without where it was loaded from."""
    return {key: value for key, value in model.config.to_dict().items() if not key.startswith("_name_or_path")}


def _average(key: str, states: Mapping[str, Mapping[str, torch.Tensor]]) -> torch.Tensor:
    first, *_ = states
    tensors = []
    for name, state in states.items():
        if key not in state or state[key].shape != states[first][key].shape or len(state) != len(states[first]):
            raise ValueError(f"members {first!r} and {name!r} hold different weights at {key!r}")
        tensors.append(state[key])
    if tensors[0].is_floating_point():
        return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)
    if any(not torch.equal(tensor, tensors[0]) for tensor in tensors):
        raise ValueError(f"members {list(states)} differ in {key!r}, which holds whole numbers and has no average")
    return tensors[0]

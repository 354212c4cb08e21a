import re

import pytest
import torch
from torch import Tensor

from natix_roadwork import RoadworkForImageClassification as Model


BAD_INPUTS = [
    ({}, "exactly one of pixel_values and view_features"),
    ({"pixel_values": (2, 12, 3, 32, 32), "view_features": (2, 12, 6, 16)}, "exactly one of"),
    ({"pixel_values": (2, 12, 3, 48, 48)}, r"\(2, 12, 3, 48, 48\).*view_size=32"),
    ({"pixel_values": (2, 12, 1, 32, 32)}, r"\(2, 12, 1, 32, 32\).*\(B, V, 3, 32, 32\)"),
    ({"pixel_values": (3, 32, 32)}, r"pixel_values has shape \(3, 32, 32\)"),
    ({"view_features": (2, 12, 6, 8)}, r"\(2, 12, 6, 8\).*\(B, V, T, 16\)"),
    ({"view_features": (2, 13, 6, 16)}, r"\(2, 13, 6, 16\).*num_views=12"),
    ({"view_features": (2, 12, 9, 16)}, "9 tokens a view"),
    ({"view_features": (12, 16)}, r"\(12, 16\)"),
    ({"view_features": (2, 12, 6, 16), "view_mask": (2, 11)}, r"view_mask has shape \(2, 11\).*\(2, 12\)"),
]


@pytest.mark.parametrize(("shapes", "message"), BAD_INPUTS)
def test_input_of_a_wrong_shape_is_named(tiny_model: Model, shapes: dict[str, tuple], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model(**{name: torch.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("labels", [torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 1, dtype=torch.long)])
def test_labels_that_do_not_fit_are_refused(tiny_model: Model, labels: Tensor) -> None:
    with pytest.raises(ValueError, match=re.escape(f"labels of shape {tuple(labels.shape)}")):
        tiny_model(view_features=torch.zeros(2, 12, 6, 16), labels=labels)

import re

import pytest
import torch
from torch import Tensor
from transformers.utils.generic import find_labels

from natix_roadwork import RoadworkConfig
from natix_roadwork import RoadworkForImageClassification as Model
from natix_roadwork.model import metadata_fusion, model_inputs
from natix_roadwork.model.configuration_roadwork import METADATA_FIELDS


TOKENS = torch.zeros(3, 12, 6, 16)
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


@pytest.fixture
def reader(tiny_config: RoadworkConfig) -> Model:
    """A model that reads all metadata and has a weather head."""
    fields = {"metadata_fields": list(METADATA_FIELDS), "loss_weights": {"focal": 0.4, "weather": 0.15}}
    return Model(RoadworkConfig.from_dict(tiny_config.to_dict() | fields)).eval()


BAD_METADATA = [
    ({"gps": torch.zeros(2, 2)}, r"gps has shape \(2, 2\), expected \(3, 2\)"),
    ({"gps": torch.zeros(3, 2, dtype=torch.bfloat16)}, "gps is torch.bfloat16"),
    ({"gps": torch.tensor([[0.0, 0.0], [-118.2, 34.1], [0.0, 0.0]])}, r"gps in row 1 .*-118.*latitude in -90"),
    ({"gps": torch.tensor([[0.0, 181.0]] * 3)}, r"gps in row 0 .*181"),
    ({"gps": torch.tensor([[1.0, torch.nan]] * 3)}, "half a coordinate"),
    ({"gps": torch.tensor([[1.0, torch.inf]] * 3)}, "gps in row 0"),
    ({"weather_ids": torch.tensor([[0], [8], [0]])}, r"weather_ids in row 1 .*\[8\].*7 for an unknown one"),
    ({"scene_ids": torch.tensor([[-2]] * 3)}, r"scene_ids in row 0 .*\[-2\]"),
    ({"daytime_ids": torch.zeros(3, dtype=torch.long)}, r"daytime_ids of shape \(3,\)"),
    ({"daytime_ids": torch.zeros(3, 1)}, r"daytime_ids of shape \(3, 1\) and torch.float32"),
    ({"text_embeddings": torch.zeros(3, 768)}, r"text_embeddings of shape \(3, 768\).*\(3, 384\)"),
    ({"text_embeddings": torch.zeros(3, 384).index_fill(1, torch.tensor([4]), torch.nan)}, "NaN values of text"),
    ({"text_embeddings": torch.full((3, 384), torch.inf)}, "infinite values of text"),
]


@pytest.mark.parametrize(("inputs", "message"), BAD_METADATA)
def test_bad_metadata_is_named(reader: Model, inputs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reader(view_features=TOKENS, **inputs)


@pytest.mark.parametrize("bad", [torch.tensor([0, 7, 1]), torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0, 1])])
def test_bad_weather_labels_are_named(reader: Model, bad: Tensor) -> None:
    with pytest.raises(ValueError, match="weather_labels"):
        reader(view_features=TOKENS, labels=torch.tensor([0, 1, 1]), weather_labels=bad)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the model warns of."""
    said: list[str] = []
    for module in (model_inputs, metadata_fusion):
        monkeypatch.setattr(module.logger, "warning_once", said.append)
    return said


def test_metadata_that_is_not_read_is_ignored_with_a_warning(tiny_model: Model, warnings: list[str]) -> None:
    output = tiny_model(view_features=TOKENS, gps=torch.full((3, 2), 999.0))
    assert torch.equal(output.logits, tiny_model(view_features=TOKENS).logits)
    assert warnings == ["gps is ignored: the model reads metadata_fields=[]."]


def test_training_without_metadata_warns_and_the_deployed_call_does_not(reader: Model, warnings: list[str]) -> None:
    reader(view_features=TOKENS)
    assert warnings == []
    reader.train()(view_features=TOKENS)
    (warning,) = warnings
    assert "metadata_fields=['gps', 'weather'" in warning


def test_weather_labels_are_no_label_that_every_batch_needs() -> None:
    assert find_labels(Model) == ["labels"]
    assert "weather_labels" in Model.forward.__annotations__

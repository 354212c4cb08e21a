import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.raw_metadata import metadata_kwargs
from natix_roadwork.model.configuration_roadwork import METADATA_FIELDS


@pytest.fixture
def config(tiny_config: RoadworkConfig) -> RoadworkConfig:
    return RoadworkConfig.from_dict(tiny_config.to_dict() | {"metadata_fields": list(METADATA_FIELDS)})


def test_raw_values_become_arguments_of_forward(config: RoadworkConfig) -> None:
    photos = [
        {
            "gps": "40°26'N 79°59'W",
            "weather": "['Rainy']",
            "daytime": "Dark",
            "scene": ["Urban"],
            "text": "Cones.",
        },
        {"gps": (40.5, -80.0), "weather": "Ash", "text": "No Description"},
        {},
    ]
    kwargs = metadata_kwargs(photos, config)
    assert set(kwargs) == {"gps", "weather_ids", "daytime_ids", "scene_ids", "text_embeddings"}
    np.testing.assert_allclose(kwargs["gps"], [[40.4333, -79.9833], [40.5, -80.0], [np.nan] * 2], atol=1e-4)
    assert kwargs["weather_ids"][:, 0].tolist() == [1, len(config.vocabularies["weather"]), -1]
    assert kwargs["text_embeddings"].isnan().all(1).tolist() == [False, True, True]
    torch.manual_seed(0)
    model = RoadworkForImageClassification(config).eval()
    tokens = torch.randn(3, 12, 6, 16)
    logits = model(view_features=tokens, **kwargs).logits
    assert logits.isfinite().all() and not torch.equal(logits, model(view_features=tokens).logits)


def test_only_fields_of_the_model_are_given(tiny_config: RoadworkConfig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert metadata_kwargs([{"gps": "40, -80"}], tiny_config) == {}
    assert "photo 0: gps is not read: metadata_fields=[]" in caplog.text


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        ({"wether": "Sunny"}, "photo 1: 'wether' is none of .*; the nearest is 'weather'"),
        ({"gps": "0, 0"}, r"photo 1: gps='0, 0': \(0, 0\) is what a camera"),
        ({"gps": "somewhere"}, "photo 1: gps='somewhere': the coordinates are not two numbers"),
        ({"scene": 3}, "photo 1: scene=3: the tags are not a list"),
        ({"text": 3}, "photo 1: text=3: the value is not a string"),
    ],
)
def test_wrong_values_are_named(config: RoadworkConfig, photo: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metadata_kwargs([{}, photo], config)


def test_code_of_the_readme_runs(config: RoadworkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("## Use a model")[1]
    plain, with_metadata = re.findall(r"```python\n(.*?)```", readme.split("\n## ")[0], re.DOTALL)
    torch.manual_seed(0)
    RoadworkForImageClassification(config).save_pretrained(tmp_path / "runs/quickstart/model")
    RoadworkImageProcessor(view_size=32).save_pretrained(tmp_path / "runs/quickstart/model")
    Image.new("RGB", (120, 90), "gray").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(plain, names)
    bare = names["output"].logits
    exec(with_metadata, names)
    assert set(names["metadata"]) == {"gps", "weather_ids", "daytime_ids", "scene_ids", "text_embeddings"}
    assert bare.shape == (1, 2) and not torch.equal(bare, names["output"].logits)

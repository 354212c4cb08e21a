"""A model whose last view is depth: what its config allows, and that a photo without depth is answered."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import pipeline

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.mixing import mix_batch
from natix_roadwork.inference.member import load_member


def depth_model(config: RoadworkConfig, **values: object) -> RoadworkForImageClassification:
    torch.manual_seed(0)
    changed = {"num_views": 13, "depth_view": True, **values}
    return RoadworkForImageClassification(RoadworkConfig(**config.to_dict() | changed)).eval()


def views(num_views: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, num_views, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_config_knows_which_views_are_the_photo_s(tiny_config: RoadworkConfig) -> None:
    values = tiny_config.to_dict()
    config = RoadworkConfig(**values | {"num_views": 13, "depth_view": True, "wide_views": [0, 10, 11, 12]})
    assert config.photo_views == 12 and config.wide_views == [0, 10, 11] and config.uncut_views == [0, 10, 11, 12]
    assert tiny_config.photo_views == 12 and tiny_config.uncut_views == tiny_config.wide_views
    with pytest.raises(ValueError, match="num_views=1 must be at least 2 with a depth_view"):
        RoadworkConfig(**values | {"num_views": 1, "depth_view": True})
    with pytest.raises(ValueError, match="depth_view='yes' must be True or False"):
        RoadworkConfig(**values | {"depth_view": "yes"})


@pytest.mark.parametrize("changed", [{}, {"keep_views": 12}, {"keep_views": 13}, {"keep_views": 1}, {"view_chunk": 5}])
def test_no_depth_is_a_masked_depth(tiny_config: RoadworkConfig, changed: dict[str, int]) -> None:
    model, pixels = depth_model(tiny_config, **changed), views()
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[:, 12] = False
    with torch.no_grad():
        without = model(pixel_values=pixels[:, :12])
        masked = model(pixel_values=pixels, view_mask=mask)
        seen = model(pixel_values=pixels)
    assert torch.allclose(without.logits, masked.logits, atol=1e-5)
    if changed.get("keep_views") != 1:
        assert not torch.allclose(without.logits, seen.logits, atol=1e-5) or 12 not in seen.view_indices


def test_views_are_selected_with_and_without_depth(tiny_config: RoadworkConfig) -> None:
    model = depth_model(tiny_config, select_views=4, thumbnail_size=16)
    with torch.no_grad():
        assert all(torch.isfinite(model(pixel_values=views(count)).logits).all() for count in (12, 13))


def test_depth_has_an_embedding_of_its_own_and_gradients_reach_it(tiny_config: RoadworkConfig) -> None:
    model = depth_model(tiny_config, keep_views=13).train()
    output = model(pixel_values=views(), labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert model.projection.positions.weight.shape[0] == 13
    assert model.projection.positions.weight.grad[12].abs().sum() > 0


def test_a_saved_model_answers_a_bare_photo(tmp_path: Path, tiny_config: RoadworkConfig) -> None:
    model = depth_model(tiny_config)
    model.save_pretrained(tmp_path)
    RoadworkImageProcessor(view_size=32).save_pretrained(tmp_path)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    answers = pipeline("image-classification", model=str(tmp_path))(photo)
    assert {answer["label"] for answer in answers} == {"None", "Roadwork"}
    assert load_member(str(tmp_path)).model.config.depth_view
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["num_views"], config["depth_view"]) == (13, True) and "depth_folder" not in config


def test_a_processor_that_does_not_fit_is_refused(tmp_path: Path, tiny_config: RoadworkConfig) -> None:
    depth_model(tiny_config, num_views=12).save_pretrained(tmp_path)
    RoadworkImageProcessor(view_size=32).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"cuts 12 views .* num_views=12, depth_view=True"):
        load_member(str(tmp_path))


def test_cutmix_leaves_depth_alone(tiny_config: RoadworkConfig) -> None:
    config = depth_model(tiny_config).config
    pixels = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1, 1).expand(8, 13, 3, 4, 4)
    batch = {"pixel_values": pixels, "labels": torch.arange(8) % 2}
    taken = torch.zeros(13, dtype=torch.bool)
    for seed in range(20):
        draw = np.random.default_rng(seed)
        mixed = mix_batch(batch, draw, cutmix_alpha=1.0, wide_views=config.uncut_views)
        taken |= (mixed["pixel_values"] != pixels).flatten(2).any(2).any(0)
    assert taken.tolist() == [view not in (0, 10, 11, 12) for view in range(13)]

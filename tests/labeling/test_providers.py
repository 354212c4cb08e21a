"""From a recipe's keys to the model that marks: every provider through the run itself, its weights on disk."""

from pathlib import Path
from typing import Any

import pytest

from natix_roadwork.data.masks import mask_path, read_record
from natix_roadwork.labeling.provider_arguments import MODEL_PROVIDERS
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_masks import mark_photos
from natix_roadwork.training.yaml_args import parse_recipe
from tests.labeling.tiny_sam3 import save_tiny_sam3
from tests.marked_photos import files_of, settings_of


ROOT = Path(__file__).parents[2]
PROMPTS = '{"cone": ["cone", "post"], "sign": ["sign"]}'


def test_sam3_marks_a_data_set(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"provider": "sam3", "prompts": PROMPTS, "min_score": 0.0}
    asked["model"] = str(save_tiny_sam3(tmp_path / "sam3"))
    settings = settings_of(tmp_path, **asked)
    result = mark_photos(settings)
    assert result.details["photos_written"] == 12
    record = read_record(mask_path(settings.output_dir, "train/0.png"))
    assert record["provider"] == "sam3" and record["classes"] == ["cone", "sign"]
    assert record["prompts"] == {"cone": ["cone", "post"], "sign": ["sign"]}
    assert set(record["presence"]) == {"cone", "post", "sign"}
    assert all(found["prompt"] in record["presence"] for found in record["objects"])
    mark_photos(settings_of(tmp_path, "again", **asked))
    assert files_of(settings.output_dir) == files_of(tmp_path / "again")
    with pytest.raises(ValueError, match=r"holds masks of other settings.*nms_iou"):
        mark_photos(settings_of(tmp_path, **asked, nms_iou=0.1))


@pytest.mark.parametrize("provider", MODEL_PROVIDERS)
def test_a_model_that_is_not_there_is_named(tmp_path: Path, provider: str) -> None:
    asked = {"labels": '{"person": "worker"}'} if "labels" in MODEL_PROVIDERS[provider] else {}
    with pytest.raises((ValueError, ImportError), match=r"no_such_model|ultralytics"):
        mark_photos(settings_of(tmp_path, provider=provider, model=str(tmp_path / "no_such_model"), **asked))
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"provider": "sam4"}, "provider='sam4' must be one of scenes, human, sam3"),
        ({"provider": "sam3"}, "model is missing; provider=sam3 needs"),
        ({"provider": "scenes", "model": "x"}, "model='x' is not read by provider=scenes"),
        (
            {"provider": "text_boxes", "model": "x", "exemplars": "a"},
            "exemplars='a' is not read by provider=text_boxes",
        ),
        ({"provider": "sam3", "model": "x", "prompts": "{"}, "prompts='{' is no JSON"),
        *(
            ({"provider": name, "model": "x"}, f"labels is missing; provider={name} needs")
            for name in ("label_boxes", "label_masks", "ultralytics_boxes")
        ),
        (
            {"provider": "ultralytics_boxes", "model": "x", "labels": "{}", "model_revision": "main"},
            "model_revision='main' is not read by provider=ultralytics_boxes",
        ),
    ],
)
def test_keys_of_another_provider_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(tmp_path, **values)


@pytest.mark.parametrize("name", ["sam3", "boxes", "quickstart", "roadwork_human"])
def test_recipe_files_can_be_read(name: str) -> None:
    path = ROOT / "recipes" / "pseudo_masks" / f"{name}.yaml"
    (settings,) = parse_recipe(["--config", str(path)], [PseudoMaskArguments])
    assert settings.output_dir.startswith("runs/")
    assert settings.model_settings(settings.provider).get("prompts", {"cone": []}).keys() <= {
        *("cone", "barrier", "sign", "worker", "vehicle", "equipment")
    }

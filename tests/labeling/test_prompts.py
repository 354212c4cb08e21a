from pathlib import Path

import pytest
import yaml

from natix_roadwork.labeling.prompts import DEFAULT_PROMPTS, check_prompts, read_exemplars
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


def test_default_prompts_name_each_class_in_several_ways() -> None:
    assert check_prompts(None) == DEFAULT_PROMPTS == check_prompts(DEFAULT_PROMPTS)
    assert tuple(DEFAULT_PROMPTS) == MASK_CLASSES
    assert [phrases[0] for phrases in DEFAULT_PROMPTS.values()] == [
        "traffic cone",
        "construction barrier",
        "road work sign",
        "construction worker",
        "construction vehicle",
        "construction equipment",
    ]
    assert all(len(phrases) >= 3 for phrases in DEFAULT_PROMPTS.values())


@pytest.mark.parametrize("name", ["sam3", "boxes"])
def test_recipes_ask_for_the_default_prompts(name: str) -> None:
    path = Path(__file__).parents[2] / "recipes" / "pseudo_masks" / f"{name}.yaml"
    assert check_prompts(yaml.safe_load(path.read_text(encoding="utf-8"))["prompts"]) == DEFAULT_PROMPTS


def test_prompts_come_in_the_order_of_the_classes() -> None:
    found = check_prompts({"worker": [" person in vest "], "cone": ("traffic cone",)})
    assert list(found.items()) == [("cone", ["traffic cone"]), ("worker", ["person in vest"])]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["traffic cone"], r"prompts=\['traffic cone'\] must map"),
        ({}, "prompts={} must map"),
        ({"cones": ["traffic cone"]}, "prompts has the key 'cones', which is no class; classes are cone, barrier"),
        ({"cone": []}, r"prompts\['cone'\]=\[\] must be a list"),
        ({"cone": "traffic cone"}, r"prompts\['cone'\]='traffic cone' must be a list"),
        ({"cone": ["drum", 3]}, r"prompts\['cone'\] holds 3;"),
        ({"sign": [" "]}, r"prompts\['sign'\] holds ' ';"),
        ({"sign": ["a sign. a board"]}, "has no full stop"),
        ({"cone": ["drum", "Drum "]}, r"prompts\['cone'\] holds 'Drum ', which prompts\['cone'\] holds already"),
        ({"cone": ["drum"], "sign": ["drum"]}, r"prompts\['sign'\] holds 'drum', which prompts\['cone'\] holds"),
    ],
)
def test_wrong_prompts_are_named(prompts: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_prompts(prompts)


def test_exemplars_are_read(tmp_path: Path) -> None:
    path = tmp_path / "exemplars.json"
    path.write_text('{"a": {"cone": [[0, 1.5, 2, 3]]}}')
    found = read_exemplars(path)
    assert found.boxes == {"a": {"cone": [[0, 1.5, 2, 3]]}}
    path.write_text('{"a": {"cone": [[0, 1.5, 2, 4]]}}')
    assert len(found.digest) == 64 and read_exemplars(path).digest != found.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "must hold {row_id:"),
        ('{"a": []}', r"row 'a': \[\] must map"),
        ('{"a": {"cones": []}}', "row 'a' has the key 'cones', which is no class"),
        ('{"a": {"cone": []}}', "row 'a', class 'cone'"),
        ('{"a": {"cone": [[0, 0, 1]]}}', "row 'a', class 'cone'"),
        ('{"a": {"cone": [[2, 0, 1, 1]]}}', "0 <= left < right"),
        ('{"a": {"cone": [[0, 0, NaN, 1]]}}', "0 <= left < right"),
        ('{"a": {"cone": [[0, 0, "1", 1]]}}', "0 <= left < right"),
    ],
)
def test_wrong_exemplars_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "exemplars.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_exemplars(path)

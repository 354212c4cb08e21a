"""COCO files: what a category counts as, and files that cannot be used are named before anything is marked."""

import json
from pathlib import Path

import pytest

from natix_roadwork.labeling.coco_files import CATEGORY_KINDS, category_kind, read_annotations
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES
from tests.marked_photos import coco_of, write_coco


# As `instance-visualize.ipynb` of the ROADWork repository lists them.
ROADWORK = (
    *("Police Officer", "Police Vehicle", "Sidewalk", "Cone", "Fence", "Drum", "Barricade", "Barrier"),
    *("Work Vehicle", "Vertical Panel", "Tubular Marker", "Arrow Board", "Temporary Traffic Control Message Board"),
    *("Road", "Bike Lane", "Temporary Traffic Control Sign", "Work Equipment", "Worker", "Other Roadwork Objects"),
)


def test_every_category_of_roadwork_has_its_place() -> None:
    kinds = {name: category_kind(name) for name in ROADWORK}
    assert set(kinds.values()) == {*MASK_CLASSES, "none"}
    assert kinds["Drum"] == kinds["Tubular Marker"] == "cone" and kinds["Arrow Board"] == "sign"
    assert kinds["Police Officer"] == kinds["Road"] == "none"
    assert set(CATEGORY_KINDS.values()) == {*MASK_CLASSES, "none"}


def test_names_of_categories_are_read_with_leniency() -> None:
    assert category_kind("  TTC  sign ") == "sign"
    assert category_kind("Temporary Traffic Control Sign: left arrow") == "sign"
    assert category_kind("Traffic Light") is None


def test_aliases_go_first(tmp_path: Path) -> None:
    content = coco_of("train", 2, ("Cone", "Drum", "Gnome"))
    path = write_coco(tmp_path / "a.json", content)
    found = read_annotations([path], {"DRUM": "barrier", "Gnome": "none"})
    assert found.kinds == {"Cone": "cone", "Drum": "barrier", "Gnome": "none"} and found.classes == ("cone", "barrier")
    with pytest.raises(
        ValueError, match="class_aliases: 'Drum' is mapped to 'barrel', which is none of cone, barrier"
    ):
        read_annotations([path], {"Drum": "barrel"})


def test_unknown_categories_and_strays_are_counted(tmp_path: Path) -> None:
    content = coco_of("train", 8, ("Cone", "Gnome", "Elf", "Worker", "Work Vehicle", "Work Equipment"))
    content["annotations"].append({"id": 99, "image_id": 77, "category_id": 1, "segmentation": []})
    found = read_annotations([write_coco(tmp_path / "a.json", content)])
    assert found.unknown == {"Gnome": 2, "Elf": 2} and found.strays == 1
    assert found.classes == ("cone", "worker", "vehicle", "equipment")
    assert found.files[0]["name"] == "a.json" and len(found.files[0]["sha256"]) == 64


def test_files_of_other_classes_are_not_mixed(tmp_path: Path) -> None:
    paths = [write_coco(tmp_path / "a.json", coco_of("train", 2)), str(tmp_path / "b.json")]
    write_coco(tmp_path / "b.json", coco_of("dev", 2, ("Cone",)))
    with pytest.raises(ValueError, match=r"the files have categories of different classes .* run each by itself"):
        read_annotations(paths)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a.json' is no JSON"),
        ("[]", "has no list 'images'; a COCO file has images, annotations, categories"),
        ('{"images": [], "annotations": {}}', "has no list 'annotations'"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            r"images\[0\] needs file_name, height, id, width",
        ),
        (
            '{"images": [], "annotations": [{"image_id": [1]}], "categories": []}',
            r"annotations\[0\] needs category_id",
        ),
    ],
)
def test_files_that_are_none_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"annotations: .*{message}"):
        read_annotations([str(tmp_path / "a.json")])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotations: '.*nowhere.json' cannot be read: No such file"):
        read_annotations([str(tmp_path / "nowhere.json")])


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    content = coco_of("train", 2)
    content["images"][1]["id"] = 1
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a.json' lists several images under one id"):
        read_annotations([str(tmp_path / "a.json")])

"""Human marks of one photo: matched by name, drawn exactly, what is wrong named with its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.masks import MaskError
from natix_roadwork.labeling.human_provider import HumanProvider, photo_paths
from natix_roadwork.labeling.mask_provider import PhotoObjects
from tests.marked_photos import SIZE, coco_of, mask_of, polygon, write_coco, write_marked_photos


PHOTO = np.zeros((*SIZE[::-1], 3), np.uint8)
Find = Callable[..., PhotoObjects]


def row_at(path: str) -> dict[str, Any]:
    return {"row_id": path, "image": {"path": f"somewhere/{path}", "bytes": None}}


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """What is found in a photo of a file of eight, after a change to the file."""

    def build(
        path: str = "train/3.png",
        change: Callable[[dict[str, Any]], object] = lambda _: None,
        photo: np.ndarray = PHOTO,
        names: tuple[str, ...] = ("train/3.png",),
        prefix: bool = True,
    ) -> PhotoObjects:
        content = coco_of("train", 8, prefix=prefix)
        change(content)
        return HumanProvider([write_coco(tmp_path / "a.json", content)], names).find(row_at(path), photo)

    return build


def third_photo(content: dict[str, Any]) -> dict[str, Any]:
    return next(mark for mark in content["annotations"] if mark["image_id"] == 4)


def test_marks_are_drawn_to_the_pixel(find: Find) -> None:
    found = find()
    assert np.array_equal(found.bits(*SIZE), mask_of(3)) and not found.notes
    assert [(one.kind, one.prompt, one.score) for one in found.objects] == [
        ("worker", "Worker", 1.0),
        ("vehicle", "Work Vehicle", 1.0),
    ]


def test_a_listed_photo_without_marks_is_empty_and_another_is_missing(find: Find) -> None:
    assert find("train/2.png") == PhotoObjects()
    with pytest.raises(MaskError, match=r"row 'train/9.png': no annotation file lists '9.png'") as error:
        find("train/9.png")
    assert error.value.reason == "missing"


def test_settings_name_files_and_what_each_category_counts_as(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "a.json", coco_of("train", 8, ("Cone", "Gnome", "Road", "Worker")))
    provider = HumanProvider([path], ["train/3.png"])
    assert provider.classes == ("cone", "worker")
    assert provider.settings()["categories"] == {
        "Cone": "cone",
        "Gnome": "unknown",
        "Road": "none",
        "Worker": "worker",
    }


def test_marks_of_unknown_categories_are_counted(find: Find) -> None:
    found = find(change=lambda content: content["categories"][3].update(name="Gnome"))
    assert found.notes == {"unknown category: Gnome": 1} and [one.kind for one in found.objects] == ["vehicle"]


def test_marks_beyond_the_edge_are_clipped_and_counted(find: Find) -> None:
    def change(content: dict[str, Any]) -> None:
        third_photo(content)["segmentation"] = [polygon(50, 40, 90, 90)]

    found = find(change=change)
    assert found.notes == {"clipped at the photo's edge": 1}
    assert found.objects[0].box == (50, 40, *SIZE)
    outside = find(change=lambda content: third_photo(content).update(segmentation=[polygon(80, 60, 90, 90)]))
    assert len(outside.objects) == 1 and outside.notes["outside the photo, or of no pixel"] == 1


def test_broken_marks_name_row_file_and_annotation(find: Find) -> None:
    message = r"row 'train/3.png': a.json: annotation 3 has a polygon"
    with pytest.raises(MaskError, match=message) as error:
        find(change=lambda content: third_photo(content).update(segmentation=[[1, 2]]))
    assert error.value.reason == "broken annotation"
    message = r"row 'train/3.png': annotation 3 of a.json has category 55, which the file does not list"
    with pytest.raises(MaskError, match=message):
        find(change=lambda content: third_photo(content).update(category_id=55))


def test_a_photo_of_another_size_is_named(find: Find) -> None:
    with pytest.raises(MaskError, match=r"row 'train/3.png': a.json says 64x48, the upright photo has 48x64") as error:
        find(photo=np.zeros((64, 48, 3), np.uint8))
    assert error.value.reason == "wrong size"


def test_folders_tell_photos_of_one_name_apart(find: Find) -> None:
    both = ("train/3.png", "dev/3.png")
    assert find(names=both).objects
    for path, prefix in (("dev/3.png", True), ("train/3.png", False)):
        with pytest.raises(MaskError, match=r"'3.png' is the name of 2 photos and is listed as \['a.json: ") as error:
            find(path, names=both, prefix=prefix)
        assert error.value.reason == "ambiguous"


def test_a_photo_that_two_files_list_is_ambiguous(tmp_path: Path) -> None:
    paths = [write_coco(tmp_path / name, coco_of("train", 8)) for name in ("a.json", "b.json")]
    provider = HumanProvider(paths, ["train/3.png"])
    with pytest.raises(MaskError, match=r"listed as \['a.json: train/3.png', 'b.json: train/3.png'\]"):
        provider.find(row_at("train/3.png"), PHOTO)


def test_files_of_other_photos_stop_at_once(find: Find) -> None:
    with pytest.raises(
        ValueError, match=r"list none of the 1 photos, such as \['x.png'\]; photos are matched by file"
    ):
        find(names=("train/x.png",))


def test_paths_of_photos_follow_the_rows(tmp_path: Path) -> None:
    rows = load_rows(str(write_marked_photos(tmp_path / "photos")), near_duplicates=False).splits["train"]
    assert [Path(path).name for path in photo_paths(rows.select([5, 2]))] == ["5.png", "2.png"]

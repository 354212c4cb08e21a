"""A pseudo-mask run in this process: what it writes, counts, leaves out, refuses and tries again."""

import importlib.util
import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.data import scenes
from natix_roadwork.data.masks import mask_path, read_mask, read_record
from natix_roadwork.labeling import pseudo_masks
from natix_roadwork.labeling.mask_provider import FoundObject, PhotoObjects
from natix_roadwork.labeling.photo_marking import filtered
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_mask_report import mask_table
from natix_roadwork.labeling.pseudo_masks import mark_photos
from natix_roadwork.training.yaml_args import parse_recipe
from tests.marked_photos import SIZE, coco_of, files_of, mask_of, settings_of, write_coco


ROOT = Path(__file__).parents[2]


class Asked:
    """A provider that asks for two prompts, is sure of one object and not of another, and refuses one row."""

    name = "asked"
    classes = ("cone", "sign")

    def __init__(self) -> None:
        self.seen: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"prompts": {"cone": ["traffic cone"], "sign": ["sign"]}, "weights": "abc"}

    def find(self, row: dict[str, Any], photo: np.ndarray) -> PhotoObjects:
        self.seen.append(row["row_id"])
        if row["row_id"] == "train/2.png":
            raise ValueError("row 'train/2.png': too dark\nto see")
        big, small = np.ones((12, 10), bool), np.ones((9, 11), bool)
        objects = [
            FoundObject("cone", (0, 0, 10, 12), big, "traffic cone", 0.5),
            FoundObject("sign", (20, 0, 31, 9), small, "sign", 0.9),
            FoundObject("sign", (20, 20, 30, 32), big, "sign", 0.49),
        ]
        return PhotoObjects(objects, {"traffic cone": 0.75}, {"a note": 2})


def failures_in(folder: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (Path(folder) / "failures.jsonl").read_text().splitlines()]


def damaged_jpeg(photo: Path) -> bytes:
    """A JPEG that ends as it should, with damage that only decoding finds."""
    file = io.BytesIO()
    Image.open(photo).save(file, "JPEG")
    data, half = file.getvalue(), len(file.getvalue()) // 2
    return data[:half] + b"\xff\xc8" + data[half + 2 :]


def use(monkeypatch: pytest.MonkeyPatch) -> Asked:
    provider = Asked()
    monkeypatch.setattr(pseudo_masks, "load_provider", lambda *_: provider)
    return provider


def test_scenes_masks_are_written_as_they_are(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    result = mark_photos(settings)
    for split, count in (("train", 8), ("dev", 4)):
        for row in range(count):
            mask = read_mask(mask_path(settings.output_dir, f"{split}/{row}.png"), SIZE)
            assert np.array_equal(mask.bits, mask_of(row)) and mask.known.all()
    assert failures_in(settings.output_dir) == [] and result.details["photos_written"] == 12
    assert len(files_of(settings.output_dir, ())) == 2 * 12 + 3


def test_result_counts_by_split_label_and_class(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    details = mark_photos(settings).details
    assert details["rows"]["train"] == {"photos": 8, "marked": 8, "failed": 0}
    assert details["coverage"]["train"]["Roadwork"] == {
        **{"photos": 4, "any": 1.0, "cone": 0.25, "barrier": 0.5, "sign": 0.5},
        **{"worker": 0.25, "vehicle": 0.25, "equipment": 0.25},
    }
    assert details["coverage"]["train"]["None"]["any"] == 0.0 and details["coverage"]["dev"]["all"]["any"] == 0.5
    assert details["objects"]["sign"] == 3 and details["failures"] == {} and details["photos_per_second"] > 0


def test_record_holds_what_was_asked_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    settings = settings_of(tmp_path, min_area=100)
    mark_photos(settings)
    record = read_record(mask_path(settings.output_dir, "dev/0.png"))
    cone = {"kind": "cone", "prompt": "traffic cone", "score": 0.5, "area": 120, "box": [0, 0, 10, 12]}
    assert record == {
        "row_id": "dev/0.png",
        "size": list(SIZE),
        "provider": "asked",
        "classes": ["cone", "sign"],
        "prompts": {"cone": ["traffic cone"], "sign": ["sign"]},
        "presence": {"traffic cone": 0.75},
        "objects": [cone],
        "areas": {"cone": 120, "barrier": 0, "sign": 0, "worker": 0, "vehicle": 0, "equipment": 0},
        "left_out": {"score below min_score": 1, "area below min_area": 1},
        "notes": {"a note": 2},
    }


def test_limits_hold_from_the_value_on() -> None:
    found = [FoundObject("cone", (0, 0, 10, 10), np.ones((10, 10), bool), score=score) for score in (0.5, 0.4999)]
    assert [len(filtered(found, 0.5, area)[0]) for area in (100, 101)] == [1, 0]


def test_run_goes_on_after_failures_and_tries_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider, settings = use(monkeypatch), settings_of(tmp_path)
    with caplog.at_level(logging.WARNING):
        result = mark_photos(settings)
    line = {"row_id": "train/2.png", "split": "train", "reason": "not marked"}
    assert failures_in(settings.output_dir) == [{**line, "message": "row 'train/2.png': too dark to see"}]
    assert "not marked: row 'train/2.png': too dark to see" in caplog.messages
    assert result.details["rows"]["train"]["failed"] == 1 and result.details["notes"] == {"a note": 22}
    assert result.details["left_out"]["score below min_score"] == 11
    assert result.details["unknown_classes"] == ["barrier", "worker", "vehicle", "equipment"]
    assert "without a mask: {'not marked': 1}" in mask_table(result, settings.output_dir)
    provider.seen.clear()
    again = mark_photos(settings)
    assert provider.seen == ["train/2.png"] and again.details["failures"] == {"not marked": 1}
    assert "nothing was left to mark" in mask_table(again, settings.output_dir)


def test_bad_inputs_are_named_and_counted(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    train = tmp_path / "photos" / "train"
    photo = (train / "1.png").read_bytes()
    (train / "1.png").write_bytes(damaged_jpeg(train / "1.png"))
    (train / "7.png").write_bytes(photo[: len(photo) // 2])  # dropped when the data set is read
    (train / "masks" / "2.png").unlink()
    (train / "masks" / "3.png").write_bytes(b"")
    (train / "masks" / "4.png").write_bytes(photo)
    result = mark_photos(settings)
    reasons = {"unreadable photo": 1, "missing": 1, "damaged": 1, "wrong format": 1}
    assert result.details["failures"] == reasons and result.details["rows"]["train"]["marked"] == 3
    failures = failures_in(settings.output_dir)
    assert [failure["row_id"] for failure in failures] == [f"train/{row}.png" for row in (1, 2, 3, 4)]
    assert all(f"row {failure['row_id']!r}" in failure["message"] for failure in failures)
    assert any("photos without a mask" in text for text in result.warnings)
    assert any("rows dropped when the data set was read: 1, such as 'train/7.png'" in text for text in result.warnings)


def test_masks_belong_to_the_upright_photo(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    train = tmp_path / "photos" / "train"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for row in (1, 3):
        Image.open(train / f"{row}.png").save(train / f"{row}.png", "JPEG", exif=exif)
    turned = np.ascontiguousarray(np.rot90(mask_of(3), -1))
    Image.fromarray(turned).save(train / "masks" / "3.png")
    assert mark_photos(settings).details["failures"] == {"wrong size": 1}
    assert failures_in(settings.output_dir)[0]["row_id"] == "train/1.png"
    assert np.array_equal(read_mask(mask_path(settings.output_dir, "train/3.png")).bits, turned)


def test_human_masks_of_a_data_set(tmp_path: Path) -> None:
    settings_of(tmp_path)
    paths = [write_coco(tmp_path / f"{split}.json", coco_of(split, 4)) for split in ("train", "dev")]
    settings = settings_of(tmp_path, provider="human", annotations=paths)
    result = mark_photos(settings)
    assert result.details["failures"] == {"missing": 4} and result.details["rows"]["dev"]["marked"] == 4
    assert np.array_equal(read_mask(mask_path(settings.output_dir, "dev/3.png")).bits, mask_of(3))
    assert "sha256" in result.details["provider"]["annotations"][0]


def test_another_split_goes_into_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = use(monkeypatch)
    mark_photos(settings_of(tmp_path, splits=["dev"]))
    provider.seen.clear()
    mark_photos(settings_of(tmp_path, splits=["dev", "train"]))
    assert provider.seen == [f"train/{row}.png" for row in range(8)]


def test_masks_of_other_settings_are_never_mixed(tmp_path: Path) -> None:
    mark_photos(settings_of(tmp_path))
    before = files_of(tmp_path / "masks")
    with pytest.raises(ValueError, match=r"masks of other settings \(min_area: 0 there, 7 now\); go back to those"):
        mark_photos(settings_of(tmp_path, min_area=7))
    path = write_coco(tmp_path / "a.json", coco_of("train", 4))
    with pytest.raises(ValueError, match=r"provider.name: 'scenes' there, 'human' now"):
        mark_photos(settings_of(tmp_path, provider="human", annotations=[path]))
    photo = tmp_path / "photos" / "train" / "1.png"
    photo.write_bytes(photo.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"data.splits.train.photos: '.*' there, '.*' now"):
        mark_photos(settings_of(tmp_path))
    assert files_of(tmp_path / "masks") == before


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"output_dir='.*masks' holds files but no settings.json of masks; choose"):
        mark_photos(settings_of(tmp_path))


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    mark_photos(settings)
    whole = files_of(settings.output_dir)
    folder = Path(settings.output_dir)
    (folder / "train" / ".1.png_seg_mask.png.0123456789abcdef.tmp").write_bytes(b"half")
    (folder / "tmpabcdefgh.part").write_bytes(b"half")
    mask_path(folder, "train/1.png").unlink()  # its record was written, the mask was not
    mask_path(folder, "train/3.png").with_name("3.png_seg_mask.json").unlink()
    mark_photos(settings)
    assert files_of(folder) == whole


def test_record_of_a_photo_that_fails_now_is_removed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    mark_photos(settings)
    mask_path(settings.output_dir, "train/1.png").unlink()
    (tmp_path / "photos" / "train" / "masks" / "1.png").unlink()
    mark_photos(settings)
    assert not (Path(settings.output_dir) / "train" / "1.png_seg_mask.json").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_score": 1.5}, "min_score=1.5 must lie between 0 and 1"),
        ({"min_area": -1}, "min_area=-1 must be at least 0"),
        ({"num_workers": 0}, "num_workers=0 must be at least 1"),
        ({"splits": ["val"]}, "splits=.*'val' is no split"),
        ({"provider": "human"}, "annotations is empty; provider=human needs"),
        ({"annotations": ["a.json"]}, "is for provider=human, not scenes"),
        ({"provider": "human", "annotations": ["a"], "class_aliases": "["}, "class_aliases='\\[' is no JSON"),
        ({"provider": "human", "annotations": ["a"], "class_aliases": "[]"}, "must map names of categories"),
    ],
)
def test_settings_are_checked(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(tmp_path, **values)


def test_a_provider_that_cannot_start_stops_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings_of(tmp_path, provider="human", annotations=[str(tmp_path / "no.json")])
    with pytest.raises(ValueError, match=r"annotations: '.*no.json' cannot be read"):
        mark_photos(asked)
    monkeypatch.setitem(sys.modules, "natix_roadwork.labeling.human_provider", None)
    with pytest.raises(
        ValueError, match=r"provider=human needs pycocotools .* pip install 'natix-roadwork\[labeling\]'"
    ):
        mark_photos(asked)
    assert not (tmp_path / "masks").exists()


def test_a_lockbox_must_be_asked_for(tmp_path: Path) -> None:
    folder = scenes.write_scenes(
        tmp_path / "scenes", num_rows=24, width=200, test_share=0.25, positive_share=0.5, progress=False
    )
    common = {"dataset_name": str(folder), "splits": ["test"]}
    with pytest.raises(ValueError, match=r"is a lockbox; .* Leave test out, or give --allow_lockbox true"):
        mark_photos(settings_of(tmp_path, **common))
    result = mark_photos(settings_of(tmp_path, **common, allow_lockbox=True))
    assert list(result.details["coverage"]["test"]) == ["all"]  # not by label
    assert result.details["rows"]["test"]["failed"] == 0
    assert any("the lockbox was marked" in text for text in result.warnings)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes" / "pseudo_masks").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_variant_parses(path: Path) -> None:
    (settings,) = parse_recipe(["--config", str(path)], [PseudoMaskArguments])
    assert Path(settings.output_dir).parts[0] == "runs"
    blocks = [line for line in path.read_text().splitlines() if line in ("# Provider", "# Data", "# Run")]
    assert blocks == ["# Provider", "# Data", "# Run"]


def test_recipe_runs_and_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(tmp_path)
    path = ROOT / "recipes" / "pseudo_masks.py"
    spec = importlib.util.spec_from_file_location("pseudo_masks_recipe", path)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    values = {"dataset_name": settings.dataset_name, "output_dir": settings.output_dir, "near_duplicates": "false"}
    config = ["--config", str(ROOT / "recipes" / "pseudo_masks" / "quickstart.yaml")]
    recipe.main([*config, *(f"--{key}={value}" for key, value in values.items())])
    out = capsys.readouterr().out
    assert "train  Roadwork" in out and "12 photos in" in out and "every figure:" in out

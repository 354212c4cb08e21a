"""The quality page of masks: closed forms on hand-made masks, and bad input that is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork.data.masks import class_areas, mask_path, record_path, write_mask
from natix_roadwork.labeling.mask_quality import MaskQuality, QualityArguments, run_quality
from natix_roadwork.labeling.mask_quality_page import render


SIZE, SIDE, LEFT, TOP = (120, 90), 20, 30, 50  # of the photos; of the cone in each roadwork photo
NAMES = [f"{number:02d}.jpg" for number in range(12)]  # the first six are roadwork
ALL = ["cone", "barrier", "sign", "worker", "vehicle", "equipment"]


def cone(shift: int = 0) -> np.ndarray:
    bits = np.zeros(SIZE[::-1], np.uint8)
    bits[TOP : TOP + SIDE, LEFT + shift : LEFT + shift + SIDE] = 1
    return bits


EMPTY = np.zeros(SIZE[::-1], np.uint8)


def listed(bits: np.ndarray, prompt: str = "traffic cone", score: float = 0.9, classes: list[str] = ALL) -> dict:
    """The record of a prompted provider for a mask with at most one cone."""
    rows, columns = np.nonzero(bits)
    objects = []
    if len(rows):
        box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        objects = [{"kind": "cone", "prompt": prompt, "score": score, "area": int((bits > 0).sum()), "box": box}]
    prompts = {"cone": ["traffic cone", "traffic drum"]}
    record = {"provider": "p", "classes": classes, "prompts": prompts, "presence": {"traffic cone": score}}
    return {**record, "objects": objects, "areas": class_areas(bits)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with an orange cone each, or nothing."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "dev").mkdir()
    lines = []
    for number, name in enumerate(NAMES):
        pixels = np.full((*SIZE[::-1], 3), 60 + 5 * number, np.uint8)
        if number < 6:
            pixels[cone() > 0] = (255, 110, 0)
        Image.fromarray(pixels).save(folder / "dev" / name, quality=95)
        lines.append(json.dumps({"file_name": name, "label": int(number < 6)}))
    (folder / "dev" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def row_id(number: int) -> str:
    return f"dev/{NAMES[number]}"


def masks_of(folder: Path, shift: int = 0, false_positives: tuple[int, ...] = ()) -> Path:
    """Masks of every photo; photos of `false_positives` get a cone that is not there."""
    for number in range(len(NAMES)):
        bits = cone(shift) if number < 6 or number in false_positives else EMPTY
        prompt = "traffic drum" if number in false_positives else "traffic cone"
        write_mask(folder, row_id(number), bits, listed(bits, prompt, 0.5 + number / 100))
    return folder


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    for number in range(len(NAMES)):
        write_mask(folder, row_id(number), cone() if number < 6 else EMPTY, {"provider": "human"})
    return folder


def judge(photos: Path, masks: Path, out: Path, reference: Path | None = None, **keys: object) -> MaskQuality:
    keys = {"near_duplicates": False, "examples": 1, **keys}
    reference_ = None if reference is None else str(reference)
    return run_quality(QualityArguments(str(masks), str(photos), str(out), reference_, **keys), progress=False)


def values(out: Path) -> dict[str, float | None]:
    metrics = json.loads((out / "result.json").read_text())["metrics"]["dev"]
    return {name: metric["value"] for name, metric in metrics.items()}


def test_a_perfect_provider(photos: Path, truth: Path, tmp_path: Path) -> None:
    quality = judge(photos, masks_of(tmp_path / "m"), tmp_path / "out", truth)
    found = values(tmp_path / "out")
    perfect = [found[f"{name}/cone"] for name in ("iou_pooled", "iou_mean", "ap50", "ap", "positive_rate")]
    assert perfect == [1.0] * 5 and found["false_positive_rate/cone"] == found["false_positive_rate/any class"] == 0.0
    assert found["share_of_photos/cone"] == found["objects_a_photo/cone"] == 0.5
    assert found["share_of_pixels/cone"] == SIDE**2 / 2 / (SIZE[0] * SIZE[1])
    assert found["iou_pooled/sign"] is None and found["ap/sign"] is None  # neither side marks one
    assert quality.problems == {} and "every row has a mask that can be used" in render(quality)


def test_a_shifted_provider_has_the_closed_form(photos: Path, truth: Path, tmp_path: Path) -> None:
    judge(photos, masks_of(tmp_path / "m", shift=6), tmp_path / "out", truth)
    found = values(tmp_path / "out")
    assert found["iou_pooled/cone"] == found["iou_mean/cone"] == pytest.approx(14 / 26)
    assert (found["ap50/cone"], found["ap/cone"]) == (1.0, pytest.approx(0.1))  # of .5, .55 ... only .5 is reached


def test_false_positives_lower_average_precision_and_raise_the_rate(photos: Path, truth: Path, tmp_path: Path) -> None:
    quality = judge(photos, masks_of(tmp_path / "m", false_positives=(10, 11)), tmp_path / "out", truth)
    found = values(tmp_path / "out")
    assert found["false_positive_rate/cone"] == found["false_positive_rate/cone/traffic drum"] == pytest.approx(1 / 3)
    assert found["false_positive_rate/cone/traffic cone"] == 0.0 and found["positive_rate/cone/traffic drum"] == 0.0
    assert found["iou_pooled/cone"] == pytest.approx(6 / 8)
    assert found["ap50/cone"] == pytest.approx(
        6 / 8
    )  # the two have the highest scores: precision is 6/8 at any recall
    wrong = [example for example in quality.examples if example.why == "false positive"]
    assert [example.row_id for example in wrong] == [row_id(11)] and wrong[0].label == "None"


def test_a_rate_of_none_has_the_exact_interval(photos: Path, tmp_path: Path) -> None:
    quality = judge(photos, masks_of(tmp_path / "m"), tmp_path / "out")
    rate = quality.rates[0].false_positive_rate
    assert (rate.value, rate.low, rate.high) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 6)))
    assert quality.agreement == [] and "neither IoU nor average precision is known" in render(quality)


def test_small_reference_objects_do_not_count(photos: Path, truth: Path, tmp_path: Path) -> None:
    quality = judge(photos, masks_of(tmp_path / "m"), tmp_path / "out", truth, min_area=SIDE**2 + 1)
    assert quality.agreement[0].expected == 0 and quality.agreement[0].ap is None


def test_classes_that_were_not_looked_for_are_unknown(photos: Path, truth: Path, tmp_path: Path) -> None:
    for number in range(len(NAMES)):
        classes = ["cone"] if number else ["cone", "sign"]
        write_mask(tmp_path / "m", row_id(number), cone(), listed(cone(), classes=classes))
    quality = judge(photos, tmp_path / "m", tmp_path / "out", truth)
    assert quality.unknown_classes == ["barrier", "worker", "vehicle", "equipment"]
    assert [(cover.kind, cover.photos, cover.unknown) for cover in quality.coverage] == [
        ("cone", 12, 0),
        ("sign", 1, 11),
    ]
    assert [score.photos for score in quality.agreement] == [12, 1]
    assert "unknown and not absent: barrier, worker, vehicle, equipment" in render(quality)


def test_bad_input_is_counted_and_named(photos: Path, truth: Path, tmp_path: Path) -> None:
    masks = masks_of(tmp_path / "m")
    paths = [mask_path(masks, row_id(number)) for number in range(len(NAMES))]
    paths[0].unlink()  # its record stays
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    Image.new("L", (9, 9)).save(paths[2])
    Image.fromarray(EMPTY + 64).save(paths[3])
    record_path(paths[4]).write_text("{")
    write_mask(masks, row_id(5), EMPTY, listed(cone()))
    paths[6].rename(masks / "stray_seg_mask.png")
    mine = tmp_path / "truth"
    mine.mkdir()
    (mine / "dev").symlink_to(truth / "dev")
    quality = judge(photos, masks, tmp_path / "out", mine)
    expected = {"photo without a mask": [row_id(0), row_id(6)], "mask without a photo": ["stray_seg_mask.png"]}
    expected |= {"damaged": [row_id(1)], "wrong size": [row_id(2)], "unknown class": [row_id(3)]}
    expected |= {"damaged record": [row_id(4)], "record of another mask": [row_id(5)]}
    assert quality.problems == expected and quality.num_photos == 5
    page = render(quality)
    assert all(reason in page and all(name in page for name in names) for reason, names in expected.items())
    assert json.loads((tmp_path / "out" / "result.json").read_text())["details"]["problems"] == expected


def test_a_damaged_reference_costs_the_comparison_only(photos: Path, tmp_path: Path) -> None:
    masks, mine = masks_of(tmp_path / "m"), masks_of(tmp_path / "truth")
    path = mask_path(mine, row_id(1))
    path.write_bytes(path.read_bytes()[:60])
    mask_path(mine, row_id(2)).unlink()
    quality = judge(photos, masks, tmp_path / "out", mine)
    assert quality.problems == {"reference: damaged": [row_id(1)]}
    assert (quality.num_photos, quality.referenced, quality.reference_listed) == (12, 10, 10)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"masks": "nowhere"}, "is no folder"),
        ({"reference": "nowhere"}, "reference='nowhere' must be a folder"),
        ({"examples": 7}, "examples=7 must be 0 to 6"),
        ({"max_photos": -1}, "max_photos=-1"),
    ],
)
def test_arguments_are_checked(photos: Path, tmp_path: Path, keys: dict, message: str) -> None:
    settings = {"masks": str(masks_of(tmp_path / "m")), "dataset_name": str(photos), "near_duplicates": False, **keys}
    with pytest.raises(ValueError, match=message):
        run_quality(QualityArguments(output_dir=str(tmp_path / "out"), **settings), progress=False)


def test_a_folder_of_other_masks_is_refused(photos: Path, tmp_path: Path) -> None:
    write_mask(tmp_path / "m", "else", EMPTY, {})
    with pytest.raises(ValueError, match=r"has no mask of these 12 rows; the first would be .*00\.jpg_seg_mask\.png"):
        judge(photos, tmp_path / "m", tmp_path / "out")


def test_a_sample_is_seeded_and_said(photos: Path, tmp_path: Path) -> None:
    masks = masks_of(tmp_path / "m")
    drawn = [judge(photos, masks, tmp_path / "out", max_photos=8, seed=seed) for seed in (0, 0, 1)]
    assert [quality.num_photos for quality in drawn] == [8, 8, 8]
    assert render(drawn[0]) == render(drawn[1]) != render(drawn[2])
    assert "Only a random sample of them was read" in render(drawn[0])


def test_the_same_input_gives_the_same_bytes(photos: Path, truth: Path, tmp_path: Path) -> None:
    masks = masks_of(tmp_path / "m", false_positives=(8,))
    pages = []
    for name in "ab":
        judge(photos, masks, tmp_path / name, truth)
        pages.append((tmp_path / name / "quality.html").read_bytes())
    assert pages[0] == pages[1]


def test_figures_of_the_page_stand_in_the_result(photos: Path, truth: Path, tmp_path: Path) -> None:
    quality = judge(photos, masks_of(tmp_path / "m", shift=6, false_positives=(9,)), tmp_path / "out", truth)
    details = json.loads((tmp_path / "out" / "result.json").read_text())["details"]
    assert details["rates"][1]["false_positives"] == quality.rates[1].false_positives == 1
    assert details["looks"][0]["quantiles"]["colour"] == quality.looks[0].quantiles["colour"]
    assert [example["row_id"] for example in details["examples"]] == [e.row_id for e in quality.examples]
    assert "photo" not in details["examples"][0]
    assert "0.54" in (tmp_path / "out" / "quality.html").read_text()

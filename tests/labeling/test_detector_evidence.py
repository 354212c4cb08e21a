import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.extra_evidence import read_extra_evidence
from natix_roadwork.data.masks import mask_path, record_path
from natix_roadwork.labeling import pseudo_masks
from natix_roadwork.labeling.box_provider import BoxProvider
from natix_roadwork.labeling.detections import Detection
from natix_roadwork.labeling.detector_evidence import (
    FIGURE_NAMES,
    detection_figures,
    evidence_of_records,
    write_detections,
)
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_masks import mark_photos
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES
from tests.marked_photos import SIZE, settings_of, write_marked_photos


ROOT = Path(__file__).parents[2]


class BrightCorner(BoxProvider):
    """Finds a cone wherever the photo's first pixel is bright, and a worker always; counts the photos it saw."""

    name, classes = "label_boxes", MASK_CLASSES

    def __init__(self) -> None:
        self.seen, self.fails_after, self.min_score, self.nms_iou = 0, None, 0.0, 1.0

    def detect(self, photo: NDArray[np.uint8]) -> list[Detection]:
        if self.fails_after is not None and self.seen >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += 1
        found = [Detection("worker", (0, 0, 16, 12), 0.5, "person")]
        if photo[0, 0, 0] > 127:
            found += [Detection("cone", (0, 0, 32, 24), 0.9, "cone"), Detection("cone", (1, 1, 5, 5), 0.95, "cone")]
        return found

    def settings(self) -> dict[str, Any]:
        return {"provider": self.name}


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> BrightCorner:
    made = BrightCorner()
    monkeypatch.setattr(pseudo_masks, "load_provider", lambda *_: made)
    return made


def settings(folder: Path, **values: object) -> PseudoMaskArguments:
    keys = {
        "provider": "label_boxes",
        "model": "none",
        "labels": '{"person": "worker", "cone": "cone"}',
        "min_score": 0,
    }
    return settings_of(folder, "detections", **keys | {"num_workers": 1} | values)


def figures_of(values: NDArray[np.float32]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(FIGURE_NAMES, values, strict=True) if value}


def test_figures_of_a_photo() -> None:
    boxes = [Detection("sign", (0, 0, 10, 10), 0.4, ""), Detection("sign", (5, 0, 45, 10), 0.3, "")]
    found = detection_figures([*boxes, Detection("cone", (0, 0, 1, 1), 0.8, "")], size=(100, 40))
    assert found.shape == (18,) and found.dtype == np.float32 and len(set(FIGURE_NAMES)) == 18
    assert figures_of(found) == pytest.approx(
        {
            "cone.log_count": np.log(2), "cone.largest_side": (1 / 4000) ** 0.5, "cone.highest_score": 0.8,
            "sign.log_count": np.log(3), "sign.largest_side": 0.1**0.5, "sign.highest_score": 0.4,
        }
    )  # fmt: skip
    assert not detection_figures([], size=(100, 40)).any()
    with pytest.raises(ValueError, match="unknown class 'dog'; there are cone"):
        detection_figures([Detection("dog", (0, 0, 1, 1), 0.5, "")], size=(100, 40))


def test_a_run_leaves_figures_of_each_photo(detector: BrightCorner, tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    mark_photos(chosen)
    assert "18 figures of 12 of 12 photos, 12 with a detection" in write_detections(chosen)
    found = read_extra_evidence(tmp_path / "detections" / "evidence.arrow")
    assert found.values.shape == (12, 1, 18) and found.source["provider"]["name"] == "label_boxes"
    rows = load_rows(str(tmp_path / "photos"), near_duplicates=False, seed=0).splits["train"]
    for row_id, image in zip(rows["row_id"][:4], rows["image"][:4], strict=True):
        bright = np.asarray(Image.open(image["path"]))[0, 0, 0] > 127
        told = figures_of(found.lookup([row_id])[0, 0])
        assert told["worker.largest_side"] == pytest.approx((16 * 12 / (SIZE[0] * SIZE[1])) ** 0.5)
        assert told.get("cone.log_count", 0.0) == pytest.approx(np.log(3) if bright else 0.0)


def test_a_killed_run_goes_on_to_the_same_file(detector: BrightCorner, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    for name in ("whole", "killed"):
        write_marked_photos(tmp_path / name / "photos")
    whole, killed = settings(tmp_path / "whole"), settings(tmp_path / "killed")
    mark_photos(whole)
    write_detections(whole)
    detector.seen, detector.fails_after = 0, 5
    with pytest.raises(KeyboardInterrupt):
        mark_photos(killed)
    detector.fails_after = None
    mark_photos(killed)
    write_detections(killed)
    assert detector.seen == 12, "each photo was looked at once"
    one, other = (tmp_path / name / "detections" / "evidence.arrow" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()


def test_splits_that_follow_join_those_before(detector: BrightCorner, tmp_path: Path) -> None:
    for split, words in (("train", "8 of 12"), ("dev", "12 of 12")):
        chosen = settings(tmp_path, splits=[split])
        mark_photos(chosen)
        assert f"18 figures of {words} photos" in write_detections(chosen)


def test_rows_without_a_record_are_missing(detector: BrightCorner, tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    mark_photos(chosen)
    splits = load_rows(str(tmp_path / "photos"), near_duplicates=False, seed=0).splits
    lost = splits["train"]["row_id"][2]
    place = mask_path(chosen.output_dir, lost)
    place.unlink()
    record_path(place).unlink()
    found = evidence_of_records(chosen.output_dir, splits)
    assert len(found.row_ids) == 11 and np.isnan(found.lookup([lost])).all()


@pytest.mark.parametrize("provider", ["human", "scenes"])
def test_what_knows_the_label_is_refused(provider: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(
        json.dumps({"provider": {"name": provider}, "min_score": 0, "min_area": 0})
    )
    with pytest.raises(ValueError, match=rf"provider='{provider}' knows what the label knows"):
        evidence_of_records(tmp_path, {})
    with pytest.raises(ValueError, match=r"holds no settings.json of a pseudo-mask run"):
        evidence_of_records(tmp_path / "elsewhere", {})


@pytest.fixture
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detect_recipe", ROOT / "recipes" / "detect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_runs_and_prints(
    recipe: ModuleType, detector: BrightCorner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_marked_photos(tmp_path / "photos")
    keys = {"dataset_name": tmp_path / "photos", "output_dir": tmp_path / "out", "min_score": 0, "seed": 0}
    keys |= {"near_duplicates": "false", "use_cpu": "true", "num_workers": 1}
    recipe.main(
        [
            "--config",
            str(ROOT / "recipes" / "detect" / "boxes.yaml"),
            *(f"--{name}={value}" for name, value in keys.items()),
        ]
    )
    assert "18 figures of 12 of 12 photos" in capsys.readouterr().out
    with pytest.raises(ValueError, match="provider='scenes' knows"):
        recipe.main(["--provider", "scenes", "--dataset_name", "photos"])

"""The plug-in for ultralytics with a module that only looks like it."""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import natix_roadwork
from natix_roadwork.labeling.ultralytics_provider import UltralyticsProvider
from natix_roadwork.model.backbone import hash_weights


LABELS = {"person": "worker", "cone": "cone"}


class _Yolo:
    """Three boxes: a cone, the same person twice, a dog, and a cone at the limit."""

    def __init__(self, weights: str) -> None:
        self.weights, self.names = weights, {0: "person", 1: "cone", 2: "dog"}
        self.model, self.asked = torch.nn.Linear(2, 1), []

    def predict(self, photo: np.ndarray, **settings: Any) -> list[SimpleNamespace]:
        self.asked.append((photo, settings))
        boxes = [[1, 2, 9, 9], [10, 0, 20, 20], [10, 0, 20, 19], [0, 0, 5, 5], [20, 10, 29, 19]]
        numbers, scores = [1.0, 0.0, 0.0, 2.0, 1.0], [0.6, 0.8, 0.7, 0.9, 0.25]
        found = SimpleNamespace(xyxy=torch.tensor(boxes).float(), cls=torch.tensor(numbers), conf=torch.tensor(scores))
        return [SimpleNamespace(boxes=found)]


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    module = ModuleType("ultralytics")
    module.YOLO, module.__version__ = _Yolo, "8.0"
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    path = tmp_path / "yolo.pt"
    path.touch()
    return str(path)


def _provider(weights: str, **settings: Any) -> UltralyticsProvider:
    settings = {"labels": LABELS, "min_score": 0.25, "nms_iou": 0.5, **settings}
    return UltralyticsProvider.from_pretrained(weights, device="cpu", **settings)


def test_its_boxes_become_ours(weights: str) -> None:
    provider = _provider(weights)
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = provider.find({"row_id": "a"}, photo)
    assert [(one.kind, one.prompt, one.box) for one in found.objects] == [
        ("worker", "person", (10, 0, 20, 20)),
        ("cone", "cone", (1, 2, 9, 9)),
    ]
    ((asked, settings),) = provider.detector.asked
    assert np.array_equal(asked, photo[..., ::-1])
    assert settings == {"conf": 0.25, "iou": 0.5, "imgsz": 1280, "device": "cpu", "verbose": False}


def test_settings_hold_what_decides(weights: str) -> None:
    provider = _provider(weights)
    settings = provider.settings()
    assert settings["weights"] == hash_weights(provider.detector.model)
    assert (settings["provider"], settings["model"], settings["library"]) == (
        "ultralytics_boxes",
        "yolo.pt",
        "ultralytics 8.0",
    )
    assert (settings["labels"], settings["image_size"], settings["masks"]) == (LABELS, 1280, "filled boxes")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"labels": {"cow": "worker"}},
            r"labels names \['cow'\], which yolo.pt does not have; it has person, cone, dog",
        ),
        ({"image_size": 100}, "image_size=100 must be a positive multiple of 32"),
        ({"min_score": 2}, "min_score=2 must lie"),
    ],
)
def test_a_wrong_setting_is_named(weights: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _provider(weights, **settings)


def test_weights_are_never_fetched(weights: str) -> None:
    with pytest.raises(ValueError, match=r"model='yolo11n.pt' is no file"):
        _provider("yolo11n.pt")


def test_its_absence_is_said_with_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(ValueError, match=r"needs the package ultralytics.*AGPL-3.0.*install it.*yourself"):
        _provider("yolo.pt")


def test_nothing_imports_it_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ultralytics", raising=False)
    for module in pkgutil.walk_packages(natix_roadwork.__path__, "natix_roadwork."):
        importlib.import_module(module.name)
    assert "ultralytics" not in sys.modules
    # Where the package is not installed that proves nothing, so each file is read too.
    naming = []
    for path in Path(natix_roadwork.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            modules += [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            naming += [path.name for name in modules if name.split(".")[0] == "ultralytics"]
    assert naming == ["ultralytics_provider.py"]

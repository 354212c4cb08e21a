"""ONNX files: onnxruntime's answers are the model's to 1e-4, at any batch size and number of tokens."""

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.hub import onnx_export
from natix_roadwork.hub.export import LiteCard, export_lite
from natix_roadwork.hub.onnx_export import OPSET, export_head_onnx, export_lite_onnx
from natix_roadwork.training.distillation_student import vit_processor
from tests.saved_member import save_member
from tests.student_runs import recipe, tiny_student


BAR = 1e-4


def answers(path: Path, **inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {name: values.numpy() for name, values in inputs.items()})[0])


@pytest.mark.parametrize("name", ["vit", "efficientnet"])
def test_lite_student(name: str, tmp_path: Path) -> None:
    model, path = tiny_student(name), tmp_path / "lite.onnx"
    assert export_lite_onnx(model, vit_processor(), path) <= BAR
    for batch in (1, 5):
        pixels = torch.randn(batch, 3, 224, 224)
        with torch.no_grad():
            expected = model(pixel_values=pixels).logits
        assert (answers(path, pixel_values=pixels) - expected).abs().max() <= BAR
    stored = onnx.load(str(path))
    facts = {entry.key: entry.value for entry in stored.metadata_props}
    assert json.loads(facts["labels"]) == {"0": "None", "1": "Roadwork"} and facts["model_type"] == name
    assert json.loads(facts["preprocessor"])["image_processor_type"] == "ViTImageProcessor"
    assert [entry.version for entry in stored.opset_import if not entry.domain] == [OPSET]


def test_full_head_with_pruning(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "head.onnx"
    before = {name: weight.clone() for name, weight in tiny_model.state_dict().items()}
    assert export_head_onnx(tiny_model, path) <= BAR
    generator = torch.Generator().manual_seed(5)
    for batch, tokens in ((1, 5), (4, 5), (3, 6)):  # one pooled token or two, and four of the grid
        features = torch.randn(batch, 12, tokens, 16, generator=generator)
        mask = torch.rand(batch, 12, generator=generator) > 0.4
        with torch.no_grad():
            expected = tiny_model(view_features=features, view_mask=mask).logits
        assert (answers(path, view_features=features, view_mask=mask) - expected).abs().max() <= BAR
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_model.state_dict().items())
    assert path.stat().st_size < 2_000_000


def test_head_that_reads_masks_takes_the_grid(tiny_model: RoadworkForImageClassification, tmp_path: Path) -> None:
    changes = {"loss_weights": {"focal": 0.4, "mask": 0.2}, "mask_evidence": True, "mask_size": 8}
    config = type(tiny_model.config).from_dict(tiny_model.config.to_dict() | changes)
    model, path = RoadworkForImageClassification(config).eval(), tmp_path / "head.onnx"
    assert export_head_onnx(model, path) <= BAR
    generator = torch.Generator().manual_seed(5)
    features, grid = torch.randn(3, 12, 6, 16, generator=generator), torch.randn(3, 2, 2, 16, generator=generator)
    mask = torch.ones(3, 12, dtype=torch.bool)
    with torch.no_grad():
        expected = model(view_features=features, view_mask=mask, global_grid=grid).logits
    given = answers(path, view_features=features, view_mask=mask, global_grid=grid)
    assert (given - expected).abs().max() <= BAR


def test_a_difference_beyond_the_bar_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="a logit of onnxruntime differs by"):
        export_lite_onnx(tiny_student(), vit_processor(), tmp_path / "lite.onnx")


def test_script_takes_both_kinds_of_folder(
    tiny_model: RoadworkForImageClassification, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    export_lite(tiny_student(), vit_processor(), tmp_path / "lite", LiteCard("lite", ""), "stock-4.45")
    save_member(tmp_path / "full", tiny_model)
    for kind, inputs in (("lite", "pixel_values"), ("full", "view_features, view_mask")):
        recipe("export_onnx").main([str(tmp_path / kind), str(tmp_path / f"{kind}.onnx")])
        assert f"{inputs} -> logits" in capsys.readouterr().out

"""`natix-roadwork check`: each reason why a stock miner would earn nothing, on tiny folders built on the spot.

The verdicts of profile `stock-4.45` were compared with transformers 4.45.2 itself on these folders.
"""

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.cli import main
from natix_roadwork.hub import check_answers, model_card_json
from natix_roadwork.hub.check import CheckReport, check_folder
from natix_roadwork.hub.findings import Finding
from natix_roadwork.hub.probe_photos import probe_photos
from natix_roadwork.inference.challenge_answers import Answer
from tests.saved_member import save_member
from tests.stock_folders import change_json, save_stock


def _statuses(report: CheckReport) -> dict[str, str]:
    return {finding.name: finding.status for finding in report.findings}


def _line(report: CheckReport, name: str) -> Finding:
    return next(finding for finding in report.findings if finding.name == name)


def _failing(report: CheckReport) -> list[str]:
    return [finding.name for finding in report.findings if finding.status == "fail"]


@pytest.mark.parametrize("kind", ["vit", "swinv2", "dinov2"])
def test_stock_architectures_with_the_vit_processor_score(tmp_path: Path, photos: Path, kind: str) -> None:
    report = check_folder(save_stock(tmp_path / "m", kind), photos=photos)
    assert report.scores and _failing(report) == []
    expected = {"architecture", "labels", "image processor file", "remote code", "weights", "image processor loaded"}
    assert {name for name, status in _statuses(report).items() if status == "pass"} >= {*expected, "answers", "time"}
    assert "at most 1.0 grey levels" in _line(report, "image processor loaded").found


@pytest.mark.parametrize("kind", ["dinov2_with_registers", "timm"])
def test_a_newer_architecture_needs_a_newer_miner(tmp_path: Path, photos: Path, kind: str) -> None:
    folder = save_stock(tmp_path / "m", kind)
    assert _failing(check_folder(folder, photos=photos)) == ["architecture"]
    report = check_folder(folder, "modern", photos=photos)
    assert report.scores and "(profile modern)" in _line(report, "architecture").found


def test_an_unknown_architecture_loads_nowhere(tmp_path: Path, photos: Path) -> None:
    folder = save_stock(tmp_path / "m")
    change_json(folder / "config.json", model_type="my_net")
    report = check_folder(folder, "modern", photos=photos)
    assert _failing(report) == ["architecture"] and _statuses(report)["answers"] == "warn"


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (None, "LABEL_0"),
        ({0: "none", 1: "roadwork"}, "'roadwork' is spelt otherwise"),
        ({0: "None", 1: "Road work"}, "there are ['None', 'Road work']"),
    ],
)
def test_other_label_names_give_no_answer(tmp_path: Path, photos: Path, labels: dict | None, why: str) -> None:
    folder = save_stock(tmp_path / "m")
    change_json(folder / "config.json", id2label=labels, label2id=None)
    report = check_folder(folder, photos=photos)
    assert _failing(report) == ["labels", "answers"]
    assert why in _line(report, "labels").found and "KeyError: 'Roadwork'" in _line(report, "answers").found


@pytest.mark.parametrize(
    "labels", [{0: "Roadwork", 1: "None"}, {0: "None", 1: "Roadwork", 2: "Other"}, {0: "Roadwork"}]
)
def test_labels_are_read_by_name(tmp_path: Path, photos: Path, labels: dict) -> None:
    settings = {"num_labels": len(labels), "id2label": labels, "label2id": {name: row for row, name in labels.items()}}
    assert check_folder(save_stock(tmp_path / "m", **settings), photos=photos).scores


def test_another_processor_breaks_the_stock_miner_only(tmp_path: Path, photos: Path) -> None:
    folder = save_stock(tmp_path / "m", "dinov2", "bit")
    report = check_folder(folder, photos=photos)
    assert _failing(report) == ["image processor file"]
    assert "looks for BitImageProcessorFast" in _line(report, "image processor file").found
    assert check_folder(folder, "modern", photos=photos).scores


def test_a_timm_folder_gets_another_processor_than_its_file_says(tmp_path: Path, photos: Path) -> None:
    folder = save_stock(tmp_path / "m", "timm")
    timm = {"input_size": [3, 32, 32], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    change_json(folder / "config.json", pretrained_cfg=timm | {"interpolation": "bicubic", "crop_pct": 0.9})
    finding = _line(check_folder(folder, "modern", photos=photos), "image processor loaded")
    assert finding.status == "fail" and finding.found.startswith("TimmWrapperImageProcessor")


def test_pixels_that_differ_from_the_file_fail(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_stock(tmp_path / "m")
    loaded = check_answers.FolderAnswers(folder)
    loaded.processor.image_mean = [0.4, 0.5, 0.5]  # as a version with other rules would load it
    monkeypatch.setattr(check_answers, "FolderAnswers", lambda _: loaded)
    finding = _line(check_folder(folder, photos=photos), "image processor loaded")
    assert finding.status == "fail" and "26.5 grey levels" in finding.found


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_code_of_the_folder_fails(tmp_path: Path, photos: Path, file: str) -> None:
    folder = save_stock(tmp_path / "m")
    change_json(folder / file, auto_map={"AutoModelForImageClassification": "modeling_mine.Mine"})
    report = check_folder(folder, photos=photos)
    assert _failing(report) == ["remote code"] and _statuses(report)["answers"] == "warn"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "extra/head.pt", "model.pkl"])
def test_pickles_fail_and_are_not_opened(tmp_path: Path, photos: Path, name: str) -> None:
    folder = save_stock(tmp_path / "m")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"no pickle at all")
    report = check_folder(folder, photos=photos)
    assert _failing(report) == ["weights"] and name in _line(report, "weights").found
    (folder / "model.safetensors").unlink()
    loading = _line(check_folder(folder, photos=photos), "loading")
    assert loading.status == "fail" and "model.safetensors" in loading.found


def test_the_state_of_a_training_is_no_weight_but_not_to_be_published(tmp_path: Path, photos: Path) -> None:
    folder = save_stock(tmp_path / "m")
    (folder / "checkpoint-20").mkdir()
    (folder / "checkpoint-20" / "optimizer.pt").write_bytes(b"")
    report = check_folder(folder, photos=photos)
    assert report.scores and _statuses(report)["weights"] == "warn"
    (folder / "checkpoint-20" / "pytorch_model.bin").write_bytes(b"")
    assert _failing(check_folder(folder, photos=photos)) == ["weights"]


def test_missing_files_are_named(tmp_path: Path, photos: Path) -> None:
    folder = save_stock(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    assert "no .safetensors" in _line(check_folder(folder, photos=photos), "weights").found
    folder = save_stock(tmp_path / "n")
    (folder / "preprocessor_config.json").unlink()
    assert _failing(check_folder(folder, photos=photos)) == ["image processor file", "loading"]
    report = check_folder(tmp_path / "absent", photos=photos)
    assert _failing(report) == ["folder"] and "recipes/distill.py" in report.findings[0].fix


def test_our_full_model_is_named(tmp_path: Path, photos: Path, tiny_model: RoadworkForImageClassification) -> None:
    report = check_folder(save_member(tmp_path / "m", tiny_model), photos=photos)
    assert {"architecture", "remote code"} <= set(_failing(report))
    finding = _line(report, "architecture")
    assert "the full model" in finding.found and finding.fix.startswith("recipes/distill.py makes a lite folder")


def _changed_head(folder: Path, bias: float, weight: float | None = None) -> Path:
    model = AutoModelForImageClassification.from_pretrained(save_stock(folder))
    with torch.no_grad():
        model.classifier.bias[:] = bias
        if weight is not None:
            model.classifier.weight[:] = weight
    model.save_pretrained(folder)
    return folder


def test_nan_fails(tmp_path: Path, photos: Path) -> None:
    report = check_folder(_changed_head(tmp_path / "m", float("nan")), photos=photos)
    assert _failing(report) == ["answers"] and "NaN or outside [0, 1]" in _line(report, "answers").found


def test_a_model_that_always_ties_fails(tmp_path: Path, photos: Path) -> None:
    report = check_folder(_changed_head(tmp_path / "m", 0.0, 0.0), photos=photos)
    assert _failing(report) == ["ties"]
    assert _line(report, "answers").found.endswith("the same for every photo")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2, 0.9], [("answers", "pass"), ("ties", "pass")]),
        ([0.2, 0.5], [("answers", "pass"), ("ties", "warn")]),
        ([0.7, 0.7], [("answers", "warn"), ("ties", "pass")]),
        ([0.2, 1.2], [("answers", "fail")]),
        ([0.2, -0.1], [("answers", "fail")]),
        ([0.2, -1.0], [("answers", "fail")]),
        ([0.2, float("nan")], [("answers", "fail")]),
    ],
)
def test_probabilities(values: list[float], expected: list[tuple[str, str]]) -> None:
    found = check_answers.check_probabilities({f"{row}.jpg": Answer(value, 0.1) for row, value in enumerate(values)})
    assert [(finding.name, finding.status) for finding in found] == expected


@pytest.mark.parametrize(("seconds", "status"), [(0.2, "pass"), (4.0, "warn"), (9.5, "fail")])
def test_time(seconds: float, status: str) -> None:
    finding = check_answers.check_time({"a.jpg": Answer(0.4, 0.1), "b.jpg": Answer(0.4, seconds)})
    assert finding.status == status and "validators wait 9 s" in finding.found


def test_a_card_and_the_name_of_the_repository_are_checked(tmp_path: Path, photos: Path) -> None:
    folder = save_stock(tmp_path / "m")
    assert _statuses(check_folder(folder, photos=photos))["model_card.json"] == "warn"
    hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    path = model_card_json.write(folder, model_name="m", description="A model.", version="1.0.0", submitted_by=hotkey)
    report = check_folder(folder, photos=photos, repo_id="me/model")
    assert _statuses(report)["model_card.json"] == _statuses(report)["repo id"] == "pass"
    change_json(path, submission_time=99_999_999_999)
    report = check_folder(folder, photos=photos, repo_id="me/model-v1.0")
    assert _failing(report) == ["model_card.json", "repo id"]
    path.write_text("{")
    assert "cannot be read as JSON" in _line(check_folder(folder, photos=photos), "model_card.json").found


def test_probe_photos_are_jpegs_of_native_size(photos: Path, tmp_path: Path) -> None:
    taken = probe_photos(photos)
    assert list(taken) == ["0.png", "1.png", "2.png"] and all(data[:2] == b"\xff\xd8" for data in taken.values())
    drawn = probe_photos(None)
    sizes = {Image.open(io.BytesIO(data)).size for data in drawn.values()}
    assert sizes >= {(1920, 1080), (4032, 3024)} and probe_photos(None) == drawn
    with pytest.raises(ValueError, match="holds no photo"):
        probe_photos(tmp_path)


def test_real_street_photos_are_spread_over_the_folder(street_photos: Path) -> None:
    names = list(probe_photos(street_photos))
    assert len(names) == 16 and names == sorted(names)


def test_command_prints_lines_and_exits_by_the_verdict(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_stock(tmp_path / "m")
    assert main(["check", str(folder), "--photos", str(photos)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pass  architecture") and "a stock miner would score with it (0 fail" in lines[-1]
    assert main(["check", str(folder), "--photos", str(photos), "--repo-id", "a/b.c", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["scores"] is False and content["profile"] == "stock-4.45"
    assert content["findings"][-1]["name"] == "repo id" and content["findings"][-1]["status"] == "fail"
    assert main(["check", str(tmp_path / "absent"), "--photos", str(photos)]) == 1
    assert "there is no such folder" in capsys.readouterr().out
    assert main(["check", str(folder), "--photos", str(tmp_path / "none")]) == 2

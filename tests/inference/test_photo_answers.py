"""`natix-roadwork predict`: a line for every photo, an exit code that tells, and memory that does not grow with a folder."""

import json
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.cli import main
from natix_roadwork.inference import photo_answers
from tests.inference.conftest import save_model
from tests.inference.test_photo_model import save_stock


def write_photo(path: Path, low: int = 0, size: tuple[int, int] = (128, 96)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(low).integers(low, low + 100, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, saved_model: Path) -> Path:
    """Two good photos, four that cannot be read, one file that is no photo."""
    photos = tmp_path / "photos"
    good = write_photo(photos / "a.png")
    write_photo(photos / "sub" / "b.jpg", 140)
    (photos / "cut.png").write_bytes(good.read_bytes()[:3000])
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no photo")
    Image.new("1", (10_000, 8_100)).save(photos / "wide.png")
    (photos / "notes.txt").write_text("no photo")
    return photos


def test_every_photo_has_a_line_and_the_exit_code_tells_of_errors(
    folder: Path, saved_model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "answers.jsonl"
    assert main(["predict", str(folder), "--model", str(saved_model), "--jsonl", str(file), "--batch-size", "2"]) == 1
    lines, output = json_lines(file.read_text()), capsys.readouterr()
    names = [Path(line["path"]).relative_to(folder).as_posix() for line in lines]
    assert names == ["a.png", "cut.png", "empty.jpg", "text.jpg", "wide.png", "sub/b.jpg"]
    errors = {name: line["error"] for name, line in zip(names, lines, strict=True) if line["error"]}
    said = {
        "cut.png": "truncated",
        "empty.jpg": "empty",
        "text.jpg": "not a readable picture",
        "wide.png": "max_megapix",
    }
    assert errors.keys() == said.keys() and all(said[name] in error for name, error in errors.items())
    for line in lines:
        assert list(line) == ["path", "probability", "label", "error"]
        assert (line["label"] is None) == (line["error"] is not None)
        if line["error"] is None:
            assert line["label"] == ("Roadwork" if line["probability"] > 0.5 else "None")
    assert len(output.out.splitlines()) == 7 and output.out.count(" error ") == 4
    assert "6 photos: " in output.err and "4 could not be read" in output.err
    assert f"no photos by their names: 1 (1 .txt): {folder / 'notes.txt'}" in output.err


def test_json_lines_alone_on_standard_output_with_views(
    folder: Path, saved_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(folder / "sub"), str(folder / "a.png"), "--jsonl", "-", "--views", "--tta", "mean"]
    assert main([*words, "--model", str(saved_model)]) == 0
    lines = json_lines(capsys.readouterr().out)
    assert [Path(line["path"]).name for line in lines] == ["b.jpg", "a.png"]
    for line in lines:
        assert len(line["views"]) == 12 and [view["name"] for view in line["views"]][:2] == ["global", "tile_0_0"]
        kept = [view for view in line["views"] if view["state"] == "kept"]
        assert sum(view["weight"] for view in kept) == pytest.approx(1, abs=1e-5)
        assert {"box", "probability"} < kept[0].keys()


def test_a_lite_model_predicts_a_folder_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lite = str(save_stock(tmp_path / "lite"))
    assert main(["predict", str(folder / "sub"), "--model", lite]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["probability", "label", "photo"]
    assert 0 < float(row.split()[0]) < 1 and row.endswith("b.jpg")
    assert main(["predict", str(folder / "sub"), "--model", lite, "--jsonl", "-", "--views"]) == 2
    assert "sees a photo in one view" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.jpg", "--model", "m"], "'missing.jpg' does not exist"),
        ([".", "--model", "m", "--views"], "add --jsonl FILE"),
        ([".", "--model", "m", "--batch_size", "0"], "batch_size=0 must be at least 1"),
        ([".", "--model", "m", "--jsonl", "there.jsonl"], "jsonl='there.jsonl' exists; delete it"),
        (["a.png", "--model", "nowhere"], "model='nowhere': no model with its image processor"),
    ],
)
def test_wrong_use_is_one_line_and_code_two(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "a.png")
    (tmp_path / "there.jsonl").write_text("keep")
    assert main(["predict", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("natix-roadwork predict: ") and said in error and error.count("\n") == 1
    assert (tmp_path / "there.jsonl").read_text() == "keep"


def test_an_answer_that_is_no_number_is_an_error(
    folder: Path, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = RoadworkForImageClassification.from_pretrained(saved_model)
    for weight in broken.classifier.parameters():
        weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    RoadworkImageProcessor.from_pretrained(saved_model).save_pretrained(tmp_path / "broken")
    assert main(["predict", str(folder / "sub"), "--model", str(tmp_path / "broken"), "--jsonl", "-"]) == 1
    (line,) = json_lines(capsys.readouterr().out)
    assert line["probability"] is None and "not a finite number" in line["error"]


def test_lines_are_whole_when_a_run_is_cut_off(
    folder: Path, saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real = tmp_path / "answers.jsonl", photo_answers._answer
    seen: list[list[dict]] = []

    def watch(*arguments: object) -> photo_answers.PhotoAnswer:
        seen.append(json_lines(file.read_text()))
        return real(*arguments)

    monkeypatch.setattr(photo_answers, "_answer", watch)
    words = [str(folder / "a.png"), str(folder / "sub"), "--jsonl", str(file), "--batch-size", "1"]
    assert main(["predict", *words, "--model", str(saved_model)]) == 0
    assert [len(lines) for lines in seen] == [0, 1]


def test_a_large_folder_needs_neither_memory_nor_open_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """300 photos whose views are 1.8 MB each, with room for 24 more open files."""
    model, photo, folder = tmp_path / "model", write_photo(tmp_path / "first.jpg", size=(800, 600)), tmp_path / "many"
    save_model(model, view_size=224)
    RoadworkImageProcessor(view_size=224).save_pretrained(model)
    folder.mkdir()
    for number in range(300):
        os.link(photo, folder / f"{number:03d}.jpg")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 24, limits[1]))
    tracemalloc.start()
    try:
        assert main(["predict", str(folder), "--model", str(model), "--jsonl", "-", "--workers", "4"]) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    lines = json_lines(capsys.readouterr().out)
    assert len(lines) == 300 and np.ptp([line["probability"] for line in lines]) < 1e-5
    assert peak < 80e6, f"{peak / 1e6:.0f} MB for views that are 542 MB together"

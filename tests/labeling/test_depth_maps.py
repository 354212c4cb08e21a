"""Depth maps of a data set by a tiny Depth Anything: what is written, refused, counted, shared and resumed."""

import importlib.util
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from transformers import DepthAnythingForDepthEstimation, DPTConfig, DPTForDepthEstimation, DPTImageProcessor

from natix_roadwork.data.depth import DepthError, depth_path, read_depth
from natix_roadwork.labeling.depth_map_arguments import DepthMapArguments
from natix_roadwork.labeling.depth_maps import depth_table, make_depth_maps
from natix_roadwork.labeling.depth_model import DepthModel, grey
from natix_roadwork.training.yaml_args import parse_recipe
from tests.killed_runs import Moments, finish, in_child
from tests.labeling.tiny_depth import save_tiny_depth
from tests.marked_photos import SIZE, damaged_jpeg, files_of, write_marked_photos


ROOT = Path(__file__).parents[2]


def settings_of(folder: Path, name: str = "depth", **values: Any) -> DepthMapArguments:
    if not (folder / "photos").is_dir():
        write_marked_photos(folder / "photos", {"train": 5, "dev": 3})
        save_tiny_depth(folder / "model")
    common = {"near_duplicates": False, "seed": 0, "use_cpu": True, "longer_side": 32, "model": str(folder / "model")}
    paths = {"dataset_name": str(folder / "photos"), "output_dir": str(folder / name)}
    return DepthMapArguments(**common | paths | values)


def test_maps_are_small_grey_and_span_their_photo(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    result = make_depth_maps(settings)
    for row_id in ("train/0.png", "train/4.png", "dev/2.png"):
        depth = read_depth(depth_path(settings.output_dir, row_id), SIZE)
        assert depth.shape == (24, 32) and depth.min() == 0 and depth.max() == 255
    assert result.details["rows"]["train"] == {"photos": 5, "failed": 0}
    assert result.details["photos_written"] == 8 and len(files_of(settings.output_dir, ())) == 8 + 3
    assert "train         5       5       0" in depth_table(result, settings.output_dir)


def test_a_map_is_what_the_model_says_of_the_photo(tmp_path: Path) -> None:
    save_tiny_depth(tmp_path / "model")
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    model = DepthAnythingForDepthEstimation.from_pretrained(tmp_path / "model").eval()
    inputs = DPTImageProcessor.from_pretrained(tmp_path / "model")(images=photo, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).predicted_depth[0].numpy()
    found = DepthModel.from_pretrained(str(tmp_path / "model")).nearness(photo, expected.shape[::-1])
    assert np.allclose(found, expected, atol=1e-5)


def test_distance_becomes_nearness(tmp_path: Path) -> None:
    save_tiny_depth(tmp_path / "metric", depth_estimation_type="metric", max_depth=80)
    model = DepthModel.from_pretrained(str(tmp_path / "metric"))
    photo = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    assert model.predicts == "distance"
    near = model.nearness(photo, (56, 56))
    model.predicts = "nearness"
    assert np.allclose(near, 1 / np.maximum(model.nearness(photo, (56, 56)), 1e-3), rtol=1e-4)


def test_outliers_do_not_press_a_map_together() -> None:
    nearness = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    plain = grey(nearness)
    nearness[0, 0], nearness[-1, -1] = -1e6, 1e6
    assert np.abs(grey(nearness).astype(int) - plain).max() <= 1
    assert plain[50, 0] == 128 and plain[0, 50] == 0 and plain[-1, -50] == 255


def test_bad_photos_and_flat_maps_are_named_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, nearness = settings_of(tmp_path), DepthModel.nearness

    def flat(self: DepthModel, photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return nearness(self, photo, size) * 0

    photo = tmp_path / "photos" / "train" / "1.png"
    photo.write_bytes(damaged_jpeg(photo))
    with monkeypatch.context() as patched:
        patched.setattr(DepthModel, "nearness", flat)
        result = make_depth_maps(settings)
    assert result.details["failures"] == {"flat": 7, "unreadable photo": 1}
    lines = [json.loads(line) for line in (Path(settings.output_dir) / "failures.jsonl").read_text().splitlines()]
    assert lines[0]["row_id"] == "train/0.png" and "row 'train/0.png': nothing in it is nearer" in lines[0]["message"]
    again = make_depth_maps(settings)
    assert again.details["failures"] == {"unreadable photo": 1} and again.details["photos_written"] == 7
    assert any("photos without a depth map" in text for text in again.warnings)


def test_maps_of_other_settings_are_never_mixed(tmp_path: Path) -> None:
    make_depth_maps(settings_of(tmp_path))
    with pytest.raises(ValueError, match=r"holds depth maps of other settings \(longer_side: 32 there, 40 now\)"):
        make_depth_maps(settings_of(tmp_path, longer_side=40))


def run(asked: DepthMapArguments, wanted: int | None = None) -> int:
    moments = Moments(asked.output_dir, wanted)
    torch.set_num_threads(1)  # a forked child must not wait for its parent's threads
    make_depth_maps(asked)
    return moments.count


def test_killed_and_shared_runs_write_the_same_bytes(tmp_path: Path) -> None:
    whole = settings_of(tmp_path, "whole")
    finish(in_child(run, whole))
    for moment in (5, 20, 33):
        asked = settings_of(tmp_path, f"killed-{moment}")
        child = in_child(run, asked, moment)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        for path in Path(asked.output_dir).rglob("[!.]*.png"):
            read_depth(path, SIZE)
        finish(in_child(run, asked))
        assert files_of(asked.output_dir) == files_of(whole.output_dir)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    asked = settings_of(tmp_path, "two")

    def share(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
        PartialState._reset_state()
        run(asked)
        asked.state().destroy_process_group()

    finish(in_child(share, 0), in_child(share, 1))
    assert files_of(asked.output_dir) == files_of(whole.output_dir)


def test_models_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no_such' .* cannot be loaded"):
        DepthModel.from_pretrained(str(tmp_path / "no_such"))
    folder = tmp_path / "da3"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_name": "da3mono-large"}')
    with pytest.raises(ValueError, match=r"no depth model of type None.* Depth Anything 3 needs a version"):
        DepthModel.from_pretrained(str(folder))
    save_tiny_depth(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        DepthModel.from_pretrained(str(tmp_path / "model"))
    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, neck_hidden_sizes=[8] * 4
    )
    DPTForDepthEstimation(config).save_pretrained(tmp_path / "dpt")
    with pytest.raises(ValueError, match=r"dpt' \(dpt\) does not say what it predicts; give predicts: nearness"):
        DepthModel.from_pretrained(str(tmp_path / "dpt"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"predicts": "far"}, "predicts='far' must be one of auto, nearness, distance"),
        ({"longer_side": 8}, "longer_side=8 must lie between 16 and 4096"),
        ({"dtype": "int8"}, "dtype='int8' must be one of"),
        ({"num_workers": 0}, "num_workers=0 must be at least 1"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DepthMapArguments(dataset_name="photos", **values)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "depth_maps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_variant_parses(path: Path) -> None:
    (settings,) = parse_recipe(["--config", str(path)], [DepthMapArguments])
    assert Path(settings.output_dir).parts[0] == "runs"
    blocks = [line for line in path.read_text().splitlines() if line in ("# Model", "# Data", "# Run")]
    assert blocks == ["# Model", "# Data", "# Run"]


def test_recipe_runs_and_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(tmp_path)
    spec = importlib.util.spec_from_file_location("depth_maps_recipe", ROOT / "recipes" / "depth_maps.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    values = {key: getattr(settings, key) for key in ("dataset_name", "output_dir", "model", "longer_side")}
    config = ["--config", str(ROOT / "recipes" / "depth_maps" / "quickstart.yaml"), "--near_duplicates=false"]
    recipe.main([*config, *(f"--{key}={value}" for key, value in values.items())])
    out = capsys.readouterr().out
    assert "8 photos in" in out and "every figure:" in out


def test_depth_map_of_another_photo_is_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    make_depth_maps(settings)
    path = depth_path(settings.output_dir, "train/0.png")
    assert read_depth(path, (4032, 3024)).shape == (24, 32)
    with pytest.raises(DepthError, match=r"is 32x24, which is not the aspect of its upright photo of 48x64") as caught:
        read_depth(path, (48, 64))
    assert caught.value.reason == "wrong aspect"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DepthError, match=r"cannot be read"):
        read_depth(path, SIZE)
    with pytest.raises(DepthError, match=r"is missing; make it with recipes/depth_maps\.py"):
        read_depth(tmp_path / "no.png", SIZE)

"""A prediction by several processes, or killed and resumed, is the same file, byte for byte; others are never mixed in."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.inference import parts
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.predict import predict
from tests.killed_runs import FORK, Moments, finish, in_child
from tests.saved_member import member_and_photos, result_of, save_member


Build = Callable[..., PredictArguments]


@pytest.fixture
def settings(tmp_path: Path, tiny_model: RoadworkForImageClassification, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Settings of a prediction of two splits: dev in four parts of one batch, train in four of two."""
    torch.set_num_threads(1)
    monkeypatch.setattr(parts, "MOST_PARTS", 4)
    common = {"splits": ["dev", "train"], "per_device_eval_batch_size": 2, "member": "one"}
    return lambda name, **values: member_and_photos(
        tmp_path, tiny_model, output_dir=str(tmp_path / name), **common | values
    )


def run(asked: PredictArguments, wanted: int | None = None, parent: Connection | None = None) -> int:
    moments = Moments(asked.output_dir, wanted, parent)
    predict(asked)
    if parent is not None:
        time.sleep(60)  # the kill is on its way
    return moments.count


@pytest.fixture
def whole(settings: Build) -> tuple[bytes, int]:
    """The file of a prediction that nobody kills, and how many moments it has."""
    asked, (ours, theirs) = settings("whole"), FORK.Pipe()
    finish(in_child(lambda: theirs.send(run(asked))))
    return asked.path.read_bytes(), ours.recv()


def check_resumed(settings: Build, name: str, whole: tuple[bytes, int]) -> None:
    """Resume in a child, and compare with the run that nobody killed."""
    asked = settings(name, existing_run="resume")
    finish(in_child(run, asked))
    assert asked.path.read_bytes() == whole[0], name
    assert sorted(path.name for path in Path(asked.output_dir).iterdir()) == ["one.arrow", "result.json"]
    assert set(result_of(asked)["metrics"]) == {"dev", "train"}


def test_killed_prediction_resumes_byte_for_byte(settings: Build, whole: tuple[bytes, int]) -> None:
    for moment in (whole[1] // 2, whole[1] - 1):
        child = in_child(run, settings(f"killed-{moment}"), moment)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        check_resumed(settings, f"killed-{moment}", whole)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_killed_predictions_resume_byte_for_byte(settings: Build, whole: tuple[bytes, int]) -> None:
    for seed in range(int(os.environ.get("NATIX_KILLS", "20"))):
        draw, (ours, theirs) = random.Random(seed), FORK.Pipe()
        child = in_child(run, settings(f"killed-{seed}"), draw.randrange(1, whole[1] + 1), theirs)
        theirs.close()
        assert ours.poll(120)
        ours.recv_bytes()
        time.sleep(draw.uniform(0.0, 0.01))
        os.kill(child.pid, signal.SIGKILL)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        check_resumed(settings, f"killed-{seed}", whole)


def test_two_gloo_processes_give_the_bytes_of_one(settings: Build, whole: tuple[bytes, int]) -> None:
    asked = settings("two", feature_cache="off")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def share(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
        PartialState._reset_state()
        result = predict(asked)
        assert result.environment["world_size"] == 2 and set(result.metrics) == {"dev", "train"}
        asked.state().destroy_process_group()

    finish(in_child(share, 0), in_child(share, 1))
    assert asked.path.read_bytes() == whole[0]
    assert result_of(asked)["environment"]["world_size"] == 2


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let a prediction fail when that many parts are written."""
    write, written = parts.Parts.write, []

    def failing(*arguments: object) -> None:
        if len(written) == count:
            raise KeyboardInterrupt
        write(*arguments)
        written.append(arguments)

    monkeypatch.setattr(parts.Parts, "write", failing)


def test_what_is_there_is_not_computed_again(
    settings: Build, whole: tuple[bytes, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 5)
        predict(settings("stopped"))
    with monkeypatch.context() as patch:
        stop_after(patch, 3)  # of the eight parts, three are left
        predict(settings("stopped", existing_run="resume"))
    assert settings("stopped").path.read_bytes() == whole[0]
    monkeypatch.setattr(parts.Parts, "write", lambda *_: pytest.fail("computed again"))
    predict(settings("stopped", existing_run="resume"))


@pytest.mark.parametrize("finished", [False, True], ids=["parts", "file"])
def test_another_prediction_is_never_mixed_in(
    settings: Build, monkeypatch: pytest.MonkeyPatch, finished: bool, tmp_path: Path,
    tiny_model: RoadworkForImageClassification,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        if not finished:
            stop_after(patch, 3)
        try:
            predict(settings("mixed"))
        except KeyboardInterrupt:
            pass
    with pytest.raises(ValueError, match=r"output_dir=.* holds .* of an earlier run: continue it with --existing_run"):
        predict(settings("mixed"))
    other = r"existing_run=resume: .* holds answers of another prediction \({}"
    with pytest.raises(ValueError, match=other.format("batch_size: 2 there, 3 now")):
        predict(settings("mixed", existing_run="resume", per_device_eval_batch_size=3))
    with pytest.raises(ValueError, match=other.format(r"data.splits.train: \{.*\} there, 'nothing' now")):
        predict(settings("mixed", existing_run="resume", splits=["dev"]))
    with torch.no_grad():
        next(tiny_model.classifier.parameters()).add_(1.0)
    save_member(tmp_path / "model", tiny_model)
    with pytest.raises(ValueError, match=other.format("model_sha256: '")):
        predict(settings("mixed", existing_run="resume"))
    (tmp_path / "photos" / "dev" / "0.png").write_bytes((tmp_path / "photos" / "train" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"data.splits.dev.photos: '.*; model_sha256"):
        predict(settings("mixed", existing_run="resume"))


def test_a_damaged_part_is_named(settings: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 3)
        predict(settings("damaged"))
    part = next((settings("damaged").path.parent / ".parts").glob("dev-00-00001*"))
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"dev-00-00001.safetensors is damaged; delete it and start again"):
        predict(settings("damaged", existing_run="resume"))


def test_folders_of_others_are_left_alone(settings: Build, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is the model's own folder, whose result.json would be lost"):
        predict(settings("model", existing_run="overwrite"))
    predict(settings("shared"))
    with pytest.raises(ValueError, match=r"holds result.json of another run, without two.arrow; give each member"):
        predict(settings("shared", member="two", existing_run="resume"))

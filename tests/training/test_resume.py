"""A run that is killed and resumed ends with the same weights, bit for bit."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from natix_roadwork.training.checkpoints import last_complete_checkpoint, remove_incomplete
from tests.training_rows import pixel_model, pixel_trainer, weights


# A forked child needs no imports: a kill costs two seconds instead of fifteen.
FORK = multiprocessing.get_context("fork")
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")
RESULTS = ("final.safetensors", "last/model.safetensors", "last/ema.safetensors")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Moments(TrainerCallback):
    """Counts the moments of a run, steps and touched files, and tells the parent when one of them has come."""

    def __init__(self, folder: Path, wanted: int | None = None, parent: Connection | None = None) -> None:
        self.folder, self.wanted, self.parent, self.count = str(folder), wanted, parent, 0
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple) -> None:
        if event in FILE_EVENTS and self.folder in str(arguments[0]):
            self.tick()

    def tick(self) -> None:
        self.count += 1
        if self.count == self.wanted:
            self.parent.send_bytes(b"now")

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        self.tick()

    on_step_end = on_pre_optimizer_step = on_evaluate = on_step_begin


def _train(folder: Path, wanted: int | None = None, parent: Connection | None = None) -> None:
    trainer = pixel_trainer(folder)
    moments = Moments(folder, wanted, parent)
    trainer.add_callback(moments)
    resume = last_complete_checkpoint(folder) is not None
    if not resume:
        remove_incomplete(folder)
    trainer.train(resume_from_checkpoint=resume or None)
    save_file(weights(trainer.model), folder / "final.safetensors")
    (folder / "last").symlink_to(last_complete_checkpoint(folder))
    (folder / "moments").write_text(str(moments.count))


def _run(folder: Path) -> None:
    child = FORK.Process(target=_train, args=(folder,))
    child.start()
    child.join(120)
    assert child.exitcode == 0


def _kill_at(folder: Path, moment: int, delay: float) -> None:
    """Train in a child, and send it SIGKILL from outside some seconds after its nth moment."""
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_train, args=(folder, moment, theirs))
    child.start()
    theirs.close()
    assert ours.poll(120)
    ours.recv_bytes()
    time.sleep(delay)
    os.kill(child.pid, signal.SIGKILL)
    child.join(120)
    assert child.exitcode == -signal.SIGKILL, "the run ended before the kill"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nobody kills."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    _run(folder)
    return folder


@pytest.fixture
def kill_and_compare(uninterrupted: Path, tmp_path: Path) -> Callable[[int], None]:
    """Kill a run at a moment drawn from a seed, resume it, and compare it with the one nobody killed."""

    def play(seed: int) -> None:
        draw, folder = random.Random(seed), tmp_path / f"killed-{seed}"
        moments = int((uninterrupted / "moments").read_text())
        folder.mkdir()
        _kill_at(folder, draw.randrange(1, moments - 20), draw.uniform(0.0, 0.01))
        _run(folder)
        assert (folder / "last").readlink().name == (uninterrupted / "last").readlink().name
        for name in RESULTS:
            expected, found = load_file(uninterrupted / name), load_file(folder / name)
            assert expected.keys() == found.keys()
            assert [key for key in expected if not torch.equal(expected[key], found[key])] == [], (seed, name)

    return play


def test_killed_run_resumes_bit_for_bit(kill_and_compare: Callable[[int], None]) -> None:
    kill_and_compare(0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_killed_runs_resume_bit_for_bit(kill_and_compare: Callable[[int], None]) -> None:
    for seed in range(1, 1 + int(os.environ.get("NATIX_KILLS", "20"))):
        kill_and_compare(seed)


def test_training_changes_the_weights_until_the_end(uninterrupted: Path) -> None:
    """Equal weights after a resume mean something only if the steps after it change them."""
    start, end = weights(pixel_model()), load_file(uninterrupted / "last/model.safetensors")
    average = load_file(uninterrupted / "last/ema.safetensors")
    trained = [name for name in average if not torch.equal(start[name], end[name])]
    assert len(trained) > 0.8 * len(average) and any(name.startswith("pruning.") for name in trained)
    assert all(not torch.equal(average[name], end[name]) for name in trained)

"""Fold adapters whose run was killed and started again end with the same files, byte for byte."""

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

from tests.fold_runs import outcome, run_folds


FORK = multiprocessing.get_context("fork")  # a forked child needs no imports
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")


def _fold(base: Path, folder: Path, wanted: int | None = None, parent: Connection | None = None) -> None:
    """Run the recipe as the user starts it again: counts touched files, and says when one of them has come."""
    torch.set_num_threads(1)
    count = 0

    def hear(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in FILE_EVENTS and str(folder) in str(arguments[0]):
            count += 1
            if count == wanted:
                parent.send_bytes(b"now")

    sys.addaudithook(hear)
    run_folds(base, folder, existing_run="resume", ema_decay=0.9, train_classifier="true")
    folder.with_suffix(".moments").write_text(str(count))


def _run(base: Path, folder: Path) -> None:
    child = FORK.Process(target=_fold, args=(base, folder))
    child.start()
    child.join(300)
    assert child.exitcode == 0


def _kill_at(base: Path, folder: Path, moment: int, delay: float) -> None:
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_fold, args=(base, folder, moment, theirs))
    child.start()
    theirs.close()
    assert ours.poll(300)
    ours.recv_bytes()
    time.sleep(delay)
    os.kill(child.pid, signal.SIGKILL)
    child.join(120)
    assert child.exitcode == -signal.SIGKILL, "the run ended before the kill"


@pytest.fixture(scope="module")
def base(fold_base: Path) -> Path:
    return fold_base


@pytest.fixture(scope="module")
def uninterrupted(base: Path) -> Path:
    """Folder of a run that nobody kills."""
    folder = base.parent / "uninterrupted"
    _run(base, folder)
    return folder


@pytest.fixture
def kill_and_compare(base: Path, uninterrupted: Path, tmp_path: Path) -> Callable[[int], None]:
    """Kill a run at a moment drawn from a seed, start it again, and compare all it leaves."""

    def play(seed: int) -> None:
        draw, folder = random.Random(seed), tmp_path / f"killed-{seed}"
        moments = int(uninterrupted.with_suffix(".moments").read_text())
        _kill_at(base, folder, draw.randrange(1, moments - 4), draw.uniform(0.0, 0.01))
        _run(base, folder)
        expected, found = outcome(uninterrupted), outcome(folder)
        assert expected.keys() == found.keys()
        assert [name for name in expected if expected[name] != found[name]] == [], seed

    return play


def test_killed_folds_go_on_to_the_same_bytes(kill_and_compare: Callable[[int], None]) -> None:
    kill_and_compare(0)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_many_killed_folds_go_on_to_the_same_bytes(kill_and_compare: Callable[[int], None]) -> None:
    for seed in range(1, 1 + int(os.environ.get("NATIX_KILLS", "20"))):
        kill_and_compare(seed)

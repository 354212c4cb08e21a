"""An ablation that is killed at any moment goes on to the same files."""

import gc
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from natix_roadwork.training.ablation import ablate
from tests.ablation_runs import tiny_ablation, tiny_settings, tiny_training, write_sources


FORK = multiprocessing.get_context("fork")


def _start(sources: Path, folder: Path) -> multiprocessing.Process:
    def run() -> None:
        torch.set_num_threads(1)
        gc.freeze()  # each training starts with a collection
        args = tiny_training(folder, num_train_epochs=1)
        ablate(tiny_ablation("with_mixup", num_seeds=2), tiny_settings(sources), args)

    child = FORK.Process(target=run)
    child.start()
    return child


def _finish(sources: Path, folder: Path) -> tuple[dict[str, bytes], float]:
    started = time.monotonic()
    child = _start(sources, folder)
    child.join(120)
    assert child.exitcode == 0
    files = (*(folder / "rows").glob("*.arrow"), folder / "ablation.md")
    return {path.name: path.read_bytes() for path in files}, time.monotonic() - started


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ablations_end_with_the_same_files(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "sources")
    whole, seconds = _finish(sources, tmp_path / "whole")
    assert len(whole) == 5
    killed = 0
    for seed in range(int(os.environ.get("NATIX_KILLS", "20"))):
        folder = tmp_path / f"killed-{seed}"
        child = _start(sources, folder)
        time.sleep(random.Random(seed).uniform(0.1, 0.9) * seconds)
        os.kill(child.pid, signal.SIGKILL)
        child.join(120)
        killed += child.exitcode == -signal.SIGKILL
        assert _finish(sources, folder)[0] == whole
    assert killed

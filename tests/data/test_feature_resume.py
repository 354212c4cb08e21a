"""Features extracted by several processes, or killed and resumed, are the same files, byte for byte."""

import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data import feature_key
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_key import FeatureOptions
from tests.photo_rows import AddressedNoise, photo_rows


FORK = multiprocessing.get_context("fork")  # a forked child needs no imports
FILE_EVENTS = ("open", "os.rename", "os.link", "os.remove")
NUM_ROWS = 22
Extract = Callable[..., None]


class Moments:
    """Counts the moments of an extraction, photos and touched files, and tells the parent when one of them has come."""

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


@pytest.fixture
def extract(tiny_model: RoadworkForImageClassification, monkeypatch: pytest.MonkeyPatch) -> Extract:
    """Extract features into a folder, in six shards; meant for a child process."""
    torch.set_num_threads(1)
    monkeypatch.setattr(feature_key, "ROWS_A_SHARD", 4)
    rows, processor = photo_rows(NUM_ROWS), RoadworkImageProcessor(view_size=32)
    options = FeatureOptions(2, augmentation=AddressedNoise())

    def run(
        folder: Path, state: PartialState | None = None, wanted: int | None = None, parent: Connection | None = None
    ) -> int:
        moments, render = Moments(folder, wanted, parent), processor.render_views

        def counted(photo: object) -> object:
            moments.tick()
            return render(photo)

        processor.render_views = counted
        extract_features(rows, tiny_model, processor, options, folder=folder, state=state)
        return moments.count

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def in_child(function: Callable[..., object], *arguments: object) -> multiprocessing.Process:
    child = FORK.Process(target=function, args=arguments)
    child.start()
    return child


def finish(*children: multiprocessing.Process) -> None:
    for child in children:
        child.join(120)
        assert child.exitcode == 0


@pytest.fixture
def whole(extract: Extract, tmp_path: Path) -> tuple[dict[str, bytes], int]:
    """The files of an extraction that nobody kills, and how many moments it has."""
    ours, theirs = FORK.Pipe()
    finish(in_child(lambda: theirs.send(extract(tmp_path / "whole"))))
    return files(tmp_path / "whole"), ours.recv()


@pytest.fixture
def kill_and_compare(extract: Extract, whole: tuple[dict[str, bytes], int], tmp_path: Path) -> Callable[[int], None]:
    """Kill an extraction at a moment drawn from a seed, resume it, and compare it with the one nobody killed."""

    def play(seed: int) -> None:
        draw, folder = random.Random(seed), tmp_path / f"killed-{seed}"
        ours, theirs = FORK.Pipe()
        child = in_child(extract, folder, None, draw.randrange(1, whole[1] - 12), theirs)
        theirs.close()
        assert ours.poll(120)
        ours.recv_bytes()
        time.sleep(draw.uniform(0.0, 0.005))
        os.kill(child.pid, signal.SIGKILL)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL, "the extraction ended before the kill"
        assert "manifest.json" not in files(folder)
        finish(in_child(extract, folder))
        assert files(folder) == whole[0], seed

    return play


def test_killed_extraction_resumes_byte_for_byte(kill_and_compare: Callable[[int], None]) -> None:
    for seed in (0, 1):
        kill_and_compare(seed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_killed_extractions_resume_byte_for_byte(kill_and_compare: Callable[[int], None]) -> None:
    for seed in range(2, 2 + int(os.environ.get("NATIX_KILLS", "20"))):
        kill_and_compare(seed)


def test_two_gloo_processes_give_the_bytes_of_one(
    extract: Extract, whole: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def share(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
        PartialState._reset_state()
        state = PartialState(cpu=True)
        assert state.num_processes == 2 and state.process_index == rank
        extract(tmp_path / "two", state)
        state.destroy_process_group()

    finish(in_child(share, 0), in_child(share, 1))
    assert files(tmp_path / "two") == whole[0]


def test_two_runs_at_once_leave_the_bytes_of_one(
    extract: Extract, whole: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    finish(*[in_child(extract, tmp_path / "shared") for _ in range(2)])
    assert files(tmp_path / "shared") == whole[0]

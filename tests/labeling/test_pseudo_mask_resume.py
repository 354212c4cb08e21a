"""A pseudo-mask run of several processes, or killed and resumed, writes the same files, byte for byte."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from accelerate import PartialState

from natix_roadwork.data.masks import read_mask
from natix_roadwork.labeling import photo_marking
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_masks import mark_photos
from tests.killed_runs import FORK, Moments, finish, in_child
from tests.marked_photos import coco_of, files_of, polygon, settings_of, write_coco


Build = Callable[..., PseudoMaskArguments]


@pytest.fixture
def settings(tmp_path: Path) -> Build:
    """Settings of a run of human masks over two splits, with clipped, broken and missing ones among them."""
    settings_of(tmp_path)
    train, dev = coco_of("train", 7), coco_of("dev", 4)
    train["annotations"][0]["segmentation"] = [polygon(50, 40, 90, 90)]
    train["annotations"][2]["segmentation"] = [[1, 2]]
    paths = [write_coco(tmp_path / f"{name}.json", content) for name, content in (("train", train), ("dev", dev))]
    return lambda name: settings_of(tmp_path, name, provider="human", annotations=paths)


def run(asked: PseudoMaskArguments, wanted: int | None = None, parent: Connection | None = None) -> int:
    moments = Moments(asked.output_dir, wanted, parent)
    mark_photos(asked)
    if parent is not None:
        time.sleep(60)  # the kill is on its way
    return moments.count


@pytest.fixture
def whole(settings: Build) -> tuple[dict[str, bytes], int]:
    """The files of a run that nobody kills, and how many moments it has."""
    asked, (ours, theirs) = settings("whole"), FORK.Pipe()
    finish(in_child(lambda: theirs.send(run(asked))))
    files = files_of(asked.output_dir)
    assert len(files) == 2 * 10 + 2 and files["failures.jsonl"].count(b"\n") == 2
    return files, ours.recv()


def check_resumed(settings: Build, name: str, whole: tuple[dict[str, bytes], int]) -> None:
    """What the kill left is whole; resumed in a child, it becomes what the run that nobody killed wrote."""
    asked = settings(name)
    for path in Path(asked.output_dir).rglob("[!.]*.png"):
        read_mask(path)
    finish(in_child(run, asked))
    assert files_of(asked.output_dir) == whole[0], name


def test_killed_run_resumes_byte_for_byte(settings: Build, whole: tuple[dict[str, bytes], int]) -> None:
    for moment in (4, whole[1] // 2, whole[1] - 1):
        child = in_child(run, settings(f"killed-{moment}"), moment)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        check_resumed(settings, f"killed-{moment}", whole)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_killed_runs_resume_byte_for_byte(settings: Build, whole: tuple[dict[str, bytes], int]) -> None:
    for seed in range(int(os.environ.get("NATIX_KILLS", "20"))):
        draw, (ours, theirs) = random.Random(seed), FORK.Pipe()
        name, moment = f"killed-{seed}", draw.randrange(1, whole[1] + 1)
        child = in_child(run, settings(name), moment, theirs)
        theirs.close()
        assert ours.poll(120)
        ours.recv_bytes()
        time.sleep(draw.uniform(0.0, 0.01))
        os.kill(child.pid, signal.SIGKILL)
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
        check_resumed(settings, name, whole)


def test_two_gloo_processes_write_the_files_of_one(
    settings: Build, whole: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    asked = settings("two")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def share(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
        PartialState._reset_state()
        find = photo_marking.PhotoMarker._mark

        def counting(self: photo_marking.PhotoMarker, photo: object) -> object:
            with open(tmp_path / f"marked-by-{rank}", "a") as file:
                file.write(f"{photo.path}\n")
            return find(self, photo)

        photo_marking.PhotoMarker._mark = counting
        result = mark_photos(asked)
        assert result.environment["world_size"] == 2
        asked.state().destroy_process_group()

    finish(in_child(share, 0), in_child(share, 1))
    assert files_of(asked.output_dir) == whole[0]
    shares = [(tmp_path / f"marked-by-{rank}").read_text().splitlines() for rank in (0, 1)]
    assert [len(share) for share in shares] == [6, 6] and not set(shares[0]) & set(shares[1])


def test_what_is_there_is_not_marked_again(
    settings: Build, whole: tuple[dict[str, bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = photo_marking.write_mask, []

    def stop_after(count: int) -> None:
        def failing(*arguments: object) -> None:
            if len(written) == count:
                raise KeyboardInterrupt
            write(*arguments)
            written.append(arguments[1])

        monkeypatch.setattr(photo_marking, "write_mask", failing)

    stop_after(3)
    with pytest.raises(KeyboardInterrupt):
        mark_photos(settings("stopped"))
    stop_after(11)
    details = mark_photos(settings("stopped")).details
    assert len(written) == len(set(written)) == 10 and details["photos_written"] == 7
    assert files_of(settings("stopped").output_dir) == whole[0]
    stop_after(20)
    uninterrupted = mark_photos(settings("other")).details
    assert {**details, **dict.fromkeys(("seconds", "photos_written", "photos_per_second"))} == {
        **uninterrupted,
        **dict.fromkeys(("seconds", "photos_written", "photos_per_second")),
    }

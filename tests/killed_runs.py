"""Runs in forked children that are killed at chosen moments, for the tests of resuming."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection


FORK = multiprocessing.get_context("fork")  # a forked child needs no imports
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "shutil.rmtree")


class Moments:
    """Counts the files that a run touches in its folder, and dies or tells the parent when one of them has come."""

    def __init__(self, folder: str, wanted: int | None = None, parent: Connection | None = None) -> None:
        self.folder, self.wanted, self.parent, self.count = folder, wanted, parent, 0
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple) -> None:
        if event not in FILE_EVENTS or self.folder not in str(arguments[0]):
            return
        self.count += 1
        if self.count == self.wanted and self.parent is None:
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.count == self.wanted:
            self.parent.send_bytes(b"now")


def in_child(function: Callable[..., object], *arguments: object) -> multiprocessing.Process:
    child = FORK.Process(target=function, args=arguments)
    child.start()
    return child


def finish(*children: multiprocessing.Process) -> None:
    for child in children:
        child.join(120)
        assert child.exitcode == 0

"""Runs the members of an ensemble as processes of their own, one after another or one a device.

In come the members of `training/members.py` and the command that starts one; out goes what became of each. A member that
fails does not stop the others, and whatever ends this process by a signal ends the members' processes too.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from tqdm import tqdm

from natix_roadwork.runs import RESULT_NAME
from natix_roadwork.training.checkpoints import checkpoint_folders, last_complete_checkpoint
from natix_roadwork.training.members import Member, is_finished, note_settings


LOG_NAME = "train.log"
TAIL_LINES = 15
POLL_SECONDS = 1.0
GRACE_SECONDS = 20.0  # between asking a process to end and ending it
BAR = "{desc}{percentage:3.0f}%|{bar:20}| {n:.1f} of {total} members [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class Outcome:
    """What became of a member: trained now, skipped because it was trained before, or failed with its log's last lines."""

    member: Member
    state: Literal["trained", "skipped", "failed"]
    tail: Sequence[str] = ()


@dataclass(frozen=True)
class _Run:
    """A member's process, and where in its log it began to write."""

    member: Member
    process: subprocess.Popen
    log: Path
    start: int


def train_members(
    members: Sequence[Member], command: Sequence[str], slots: Sequence[Mapping[str, str]] = ({},)
) -> list[Outcome]:
    """Train every member that is not trained yet, and continue the ones that were killed.

    Of members that read the same backbone tokens, one computes them before a second one starts.

    Args:
        members: The members, started in this order.
        command: Words that start a run; a member's `arguments` follow.
        slots: Variables of the environment by place; as many members run at a time.

    Returns:
        What became of each, in the order of `members`.

    Raises:
        ValueError: If a member's folder holds a run of other settings; nothing is started then.
        SystemExit: If a signal asked this process to end, after the members' processes have ended.
    """
    outcomes = {member.name: Outcome(member, "skipped") for member in members if is_finished(member)}
    waiting, running = [member for member in members if member.name not in outcomes], dict[int, _Run]()
    shares: dict[str, float] = {}
    with _bar(len(members), len(outcomes)) as bar, _signals() as received:
        for name in outcomes:
            bar.write(f"{name}: trained before, skipped")
        try:
            while (waiting or running) and not received:
                ended = _fill(slots, waiting, running, command) + _ended(running)
                for outcome in ended:
                    outcomes[outcome.member.name] = outcome
                    bar.write("\n".join([f"{outcome.member.name}: {outcome.state}", *outcome.tail]))
                _show(bar, len(outcomes), running.values(), shares)
                if running and not ended:
                    time.sleep(POLL_SECONDS)
        finally:
            for name in _stop(running.values()):
                bar.write(f"{name}: stopped; the same command continues it")
    if received:
        raise SystemExit(128 + received[0])
    return [outcomes[member.name] for member in members]


def _bar(total: int, initial: int) -> tqdm:
    """The progress display; where nobody looks on, in a log, a line a minute will do."""
    interval = 1.0 if sys.stderr.isatty() else 60.0
    return tqdm(total=total, initial=initial, bar_format=BAR, mininterval=interval, miniters=0, smoothing=0)


def _fill(
    slots: Sequence[Mapping[str, str]], waiting: list[Member], running: dict[int, _Run], command: Sequence[str]
) -> list[Outcome]:
    """Start a member in each free slot; returns those that could not start."""
    failed = []
    for slot, variables in enumerate(slots):
        member = next((member for member in waiting if _may_start(member, running.values())), None)
        if slot in running or member is None:
            continue
        waiting.remove(member)
        try:
            running[slot] = _start(member, command, variables)
        except (OSError, ValueError) as error:
            failed.append(Outcome(member, "failed", [f"    {error}"]))
    return failed


def _may_start(member: Member, running: Iterable[_Run]) -> bool:
    """Whether no running member is still computing tokens that this one reads; its first checkpoint tells."""
    alike = [run for run in running if member.token_key is not None and run.member.token_key == member.token_key]
    return all(checkpoint_folders(run.member.folder) for run in alike)


def _start(member: Member, command: Sequence[str], variables: Mapping[str, str]) -> _Run:
    member.folder.mkdir(parents=True, exist_ok=True)
    path = member.folder / LOG_NAME
    with path.open("ab") as log:
        _lock(log, member)
        note_settings(member)
        words = [*command, *member.arguments]
        if log.tell():
            log.write(b"\n")  # a killed run leaves the line of its progress bar open
        log.write(f"$ {' '.join(words)}\n".encode())
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,  # a group of its own, so that all of it can be ended, and only by us
        )
    return _Run(member, process, path, start)


def _lock(log: IO[bytes], member: Member) -> None:
    """Lock a log for as long as a process of the run writes to it, also one that outlives a killed parent."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{member.folder} is being trained by another process; wait for it, or end it") from None


def _ended(running: dict[int, _Run]) -> list[Outcome]:
    """Take the runs whose process has ended out of `running`."""
    outcomes = []
    for slot, run in list(running.items()):
        code = run.process.poll()
        if code is None:
            continue
        del running[slot]
        _signal(run, signal.SIGKILL)  # what a killed launcher may have left of its group
        if code == 0 and (run.member.folder / RESULT_NAME).is_file():
            outcomes.append(Outcome(run.member, "trained"))
        else:
            outcomes.append(Outcome(run.member, "failed", _tail(run, code)))
    return outcomes


def _tail(run: _Run, code: int) -> list[str]:
    """The last lines that a run wrote, indented, after its exit code."""
    with run.log.open("rb") as log:
        log.seek(run.start)
        lines = log.read().decode(errors="replace").splitlines()
    kept = [line for line in lines if line.strip()][-TAIL_LINES:]
    return [f"    exit code {code}; the end of {run.log}:", *(f"    {line}" for line in kept)]


def _show(bar: tqdm, num_ended: int, running: Iterable[_Run], shares: dict[str, float]) -> None:
    """Bring the progress display up to date; the time left follows from the mean speed so far."""
    names = [run.member.name for run in running]
    shares.update({run.member.name: max(_share(run.member), shares.get(run.member.name, 0.0)) for run in running})
    bar.set_description_str("".join(f"{name} {shares[name]:.0%}, " for name in names), refresh=False)
    bar.update(num_ended + sum(shares[name] for name in names) - bar.n)


def _share(member: Member) -> float:
    """Share of a running member's steps that its last complete checkpoint has behind it."""
    try:
        checkpoint = last_complete_checkpoint(member.folder)
        if checkpoint is None:
            return 0.0
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # the run deletes old checkpoints while we look
        return 0.0
    return min(1.0, state["global_step"] / max(1, state["max_steps"]))


def _stop(running: Iterable[_Run]) -> list[str]:
    """End all runs, and return the names of their members."""
    runs = list(running)
    for run in runs:
        _signal(run, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for run in runs:
        try:
            run.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass  # ended the hard way below, with whatever else is left of the group
        _signal(run, signal.SIGKILL)
        run.process.wait()
    return [run.member.name for run in runs]


def _signal(run: _Run, number: signal.Signals) -> None:
    try:
        os.killpg(run.process.pid, number)
    except ProcessLookupError:
        pass  # the whole group has ended


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask this process to end, so that it leaves where no process is half started."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

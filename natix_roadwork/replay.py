"""Run the command of a `result.json` again and compare: same seed, same data, same numbers.

In comes the record of an earlier run, out come the new record, the numbers that differ, and the circumstances (versions,
threads, commit) that were not the same and may explain it.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from natix_roadwork.environment import LAUNCHERS
from natix_roadwork.runs import REMOVED, RESULT_NAME, Difference, RunResult, compare_results, flatten, read_result


@dataclass(frozen=True)
class Replay:
    """What running a recorded command again gave: the new result, how it differs, and what was not the same."""

    result: RunResult
    differences: list[Difference]
    warnings: list[str]


def replay(path: str | Path, output_dir: str | Path | None = None, tolerance: float = 1e-6) -> Replay:
    """Run a recorded command again from the current folder and compare the results.

    Args:
        path: The `result.json` of the earlier run.
        output_dir: Folder of the new run, absent or empty; default: the earlier folder's name with `-replay`.
        tolerance: Largest absolute difference of two metric values that still counts as equal.

    Raises:
        ValueError: If a file of the command or the data folder is missing, the new folder holds files, the command
            cannot be replayed, or it fails.
    """
    path = Path(path)
    old = read_result(path)
    target = (
        Path(output_dir) if output_dir else path.resolve().parent.with_name(f"{path.resolve().parent.name}-replay")
    )
    _check_replayable(old, target)
    command = replay_command(old.command, target)
    variables = {**os.environ, **old.environment.get("variables", {})}
    if "OMP_NUM_THREADS" not in old.environment.get("variables", {}):
        variables.pop("OMP_NUM_THREADS", None)
    code = subprocess.run(command, env=variables, check=False).returncode
    if code != 0:
        raise ValueError(f"the recorded command ended with exit code {code}: {shlex.join(command)}")
    new = read_result(target / RESULT_NAME)
    return Replay(new, compare_results(old, new, tolerance), _circumstances(old, new))


def replay_command(command: list[str], output_dir: Path) -> list[str]:
    """Return a recorded command ready to run: this Python, the new output folder, removed secrets left out.

    Raises:
        ValueError: If the command does not start with python, accelerate or torchrun.
    """
    if not command or command[0] not in LAUNCHERS:
        raise ValueError(f"command={command!r} cannot be replayed; it must start with one of {', '.join(LAUNCHERS)}")
    kept, skip = [], False
    for word, following in zip(command[1:], [*command[2:], ""], strict=True):
        alone = word == "--output_dir" or (word.startswith("--") and following == REMOVED)
        if not (skip or alone or word.startswith("--output_dir=") or word.endswith(f"={REMOVED}")):
            kept.append(word)
        skip = alone
    return [sys.executable, *LAUNCHERS[command[0]], *kept, "--output_dir", str(output_dir)]


def _check_replayable(old: RunResult, target: Path) -> None:
    for word in old.command[1:]:
        if word.endswith((".py", ".yaml", ".yml")) and not Path(word.split("=")[-1]).is_file():
            raise ValueError(
                f"{word} of the recorded command is not found from {Path.cwd()}; replay from the checkout"
            )
    name, source = old.data.get("name"), old.data.get("source")
    if name and source not in (None, "hub") and not Path(name).exists():
        raise ValueError(
            f"data {name!r} of the recorded run is not found from {Path.cwd()}; draw or copy it there again"
        )
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"output_dir={str(target)!r} holds files already; give a new folder")


def _circumstances(old: RunResult, new: RunResult) -> list[str]:
    """Name every version, thread count, machine fact and commit that was not the same."""
    facts = [
        {**flatten(result.environment), "commit": result.commit, "uncommitted changes": result.dirty}
        for result in (old, new)
    ]
    keys = sorted(facts[0].keys() | facts[1].keys())
    pairs = [(key, facts[0].get(key), facts[1].get(key)) for key in keys]
    return [f"{key} was {before}, is {after}" for key, before, after in pairs if before != after]

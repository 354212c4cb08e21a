"""The record of a run, `result.json`: written by every recipe, read by cards and the README.

A recipe opens a `RunRecorder`, hands it data, metrics and warnings, and lets it write; `replay` runs a record again.
Tokens and passwords are never written, nor are numbers that JSON does not know: NaN and infinities become null.
"""

import json
import math
import os
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from natix_roadwork.environment import environment, git_state, launch_command, peak_memory_bytes


RESULT_NAME = "result.json"
FORMAT_VERSION = 1
REMOVED = "<removed>"
_SECRET_KEY = re.compile(r"(^|[._-])(token|password|secret|api_key)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"hf_[A-Za-z0-9]{16,}|(?<=//)[^/@\s]+:[^/@\s]+(?=@)")

Metrics = dict[str, dict[str, dict[str, float | None]]]


@dataclass
class RunResult:
    """Everything `result.json` holds.

    Attributes:
        command: The command as it was given, secrets removed; it starts with python, accelerate or torchrun.
        config: Every setting of the run after defaults, recipe file and command line.
        commit: Commit of the checkout the package ran from; None outside one.
        dirty: Whether tracked files differed from that commit; None outside a checkout.
        data: `name`, `source`, `commit` (None for local data), `fingerprint` and `counts` of the rows.
        seed: Seed of the run.
        metrics: `{split: {metric: {"value", "low", "high"}}}`.
        baselines: `{baseline: {split: {metric: {"value", "low", "high"}}}}`.
        details: What else the run found out, free-form (best step, losses, view weights).
        environment: What `environment.environment` returns: versions, machine, thread count, world size.
        warnings: What a reader of the numbers must know.
        wall_seconds: Seconds since the recorder was entered.
        peak_memory_bytes: Largest resident memory of the main process plus that of its largest finished child.
        peak_gpu_memory_bytes: Most memory torch held on the process's GPU; None without one.
        format_version: Layout of this file.
    """

    command: list[str]
    config: dict[str, Any]
    commit: str | None
    dirty: bool | None
    data: dict[str, Any]
    seed: int
    metrics: Metrics
    baselines: dict[str, Metrics]
    details: dict[str, Any]
    environment: dict[str, Any]
    warnings: list[str]
    wall_seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None
    format_version: int = FORMAT_VERSION


@dataclass
class RunRecorder:
    """Context that measures a run and collects what `result.json` needs.

    Args:
        config: Every resolved setting of the run.
        seed: Seed of the run.

    Fill `data`, `metrics`, `baselines`, `details` and `warnings` while it is open, then call `write`.
    """

    config: Mapping[str, Any]
    seed: int
    data: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    baselines: dict[str, Metrics] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _started: float | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        """Start the clock."""
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; an error inside goes on."""

    def result(self) -> RunResult:
        """Return the record of the run up to now.

        Raises:
            ValueError: If the recorder was never entered.
        """
        if self._started is None:
            raise ValueError("RunRecorder was never entered; use it as `with RunRecorder(config, seed) as recorder:`")
        commit, dirty = git_state()
        return RunResult(
            command=launch_command(),
            config=dict(self.config),
            commit=commit,
            dirty=dirty,
            data=self.data,
            seed=self.seed,
            metrics=self.metrics,
            baselines=self.baselines,
            details=self.details,
            environment=environment(),
            warnings=self.warnings,
            wall_seconds=time.perf_counter() - self._started,
            peak_memory_bytes=peak_memory_bytes(),
            peak_gpu_memory_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        )

    def write(self, output_dir: str | Path) -> Path | None:
        """Write `result.json` into the folder, from the main process only; other processes get None."""
        if int(os.environ.get("RANK", "0")) != 0:
            return None
        return write_result(Path(output_dir) / RESULT_NAME, self.result())


@dataclass(frozen=True)
class Difference:
    """One number or fact in which two results differ; `path` is dotted, such as `metrics.dev.mcc.value`."""

    path: str
    old: object
    new: object

    def __str__(self) -> str:
        """Return one line for a reader."""
        return f"{self.path}: {self.old} -> {self.new}"


def write_result(path: str | Path, result: RunResult) -> Path:
    """Write a result whole or not at all, with sorted keys, secrets removed and NaN as null.

    Raises:
        ValueError: If a value has no JSON form; its place is named.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = _plain(asdict(result), "")
    values["command"] = _without_secrets(values["command"])
    text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    return path


def read_result(path: str | Path) -> RunResult:
    """Read a `result.json`.

    Raises:
        ValueError: If the file is absent or no JSON, has missing or unknown keys, or another format version.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the {RESULT_NAME} of a finished run")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, a result is an object")
    version = values.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version={version!r}, this package reads {FORMAT_VERSION}")
    known = {entry.name for entry in fields(RunResult)}
    missing, unknown = sorted(known - values.keys()), sorted(values.keys() - known)
    if missing or unknown:
        raise ValueError(f"{path}: missing keys {missing}, unknown keys {unknown}; is it another file or version?")
    return RunResult(**values)


def compare_results(old: RunResult, new: RunResult, tolerance: float = 1e-6) -> list[Difference]:
    """List in what two results differ: seed, world size, data, and every metric and baseline.

    Args:
        old: The earlier result.
        new: The later result.
        tolerance: Largest absolute difference of two metric values that still counts as equal.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance!r} is negative; 0 asks for equal numbers")
    sides = []
    for result in (old, new):
        facts = {"seed": result.seed, "world_size": result.environment.get("world_size"), "data": result.data}
        sides.append(flatten({**facts, "metrics": result.metrics, "baselines": result.baselines}))
    found = []
    for path in sorted(sides[0].keys() | sides[1].keys()):
        pair = [side.get(path, "absent") for side in sides]
        numeric = path.startswith(("metrics.", "baselines.")) and all(isinstance(value, int | float) for value in pair)
        if not (abs(pair[0] - pair[1]) <= tolerance if numeric else pair[0] == pair[1]):
            found.append(Difference(path, *pair))
    return found


def interval_text(metric: Mapping[str, float | None], sign: str = "", digits: int = 3) -> str:
    """Write a metric with its interval, where it has one; `undefined` where it has no value."""
    if metric["value"] is None:
        return "undefined"
    value, *ends = (
        "none" if metric[name] is None else f"{metric[name]:{sign}.{digits}f}" for name in ("value", "low", "high")
    )
    return value if metric["low"] is None else f"{value} [{', '.join(ends)}]"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one, its keys dotted."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _plain(value: Any, where: str) -> Any:  # noqa: ANN401 - any setting may arrive here
    """Bring a value to what JSON knows, secrets removed."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{where}.{key}" if where else str(key)) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        entries = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(entry, f"{where}[{index}]") for index, entry in enumerate(entries)]
    value = value.item() if isinstance(value, np.generic) else value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | Path):
        return REMOVED if _SECRET_KEY.search(where) and str(value) else _SECRET_VALUE.sub(REMOVED, str(value))
    if value is None or isinstance(value, bool | int):
        return value
    raise ValueError(f"{where}={value!r} of type {type(value).__name__} has no JSON form; give a number or a string")


def _without_secrets(command: list[str]) -> list[str]:
    words = []
    for word in command:
        if words and words[-1].startswith("-") and _SECRET_KEY.search(words[-1]):
            word = REMOVED
        key, mark, value = word.partition("=")
        words.append(f"{key}={REMOVED}" if mark and value and _SECRET_KEY.search(key) else word)
    return words

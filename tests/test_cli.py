import runpy
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

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


SPACE = Path(__file__).parents[1] / "recipes" / "space"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What would be served; gradio need not be there."""
    calls: list[tuple] = []
    page = SimpleNamespace(serve=lambda *arguments: calls.append(arguments))
    monkeypatch.setitem(sys.modules, "natix_roadwork.inference.demo", page)
    return calls


def test_demo_serves_a_model(served: list[tuple]) -> None:
    words = ["demo", "--model", "m", "--adapters", "a", "--device", "cpu", "--port", "7000"]
    assert main(words) == 0 and main(["demo", "--model", "m"]) == 0
    assert served == [("m", "cpu", "a", 7000), ("m", None, None, None)]


def test_demo_without_gradio_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "natix_roadwork.inference.demo", None)
    assert main(["demo", "--model", "m"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'natix-roadwork[demo]'" in error and error.count("\n") == 1


def test_space_serves_the_model_of_its_variable(served: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_ID", raising=False)
    with pytest.raises(SystemExit, match="MODEL_ID is not set"):
        runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    monkeypatch.setenv("MODEL_ID", "someone/roadwork")
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    assert served == [("someone/roadwork",)]


def test_space_is_what_the_hub_expects() -> None:
    settings = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert settings["sdk"] == "gradio" and (SPACE / settings["app_file"]).is_file()
    assert {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"} >= {
        settings["colorFrom"],
        settings["colorTo"],
    }
    assert len(settings["short_description"]) <= 60 and settings["license"] == "apache-2.0"
    project = tomllib.loads((SPACE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (gradio,) = (Requirement(line) for line in project["optional-dependencies"]["demo"])
    assert gradio.name == "gradio" and gradio.specifier.contains(settings["sdk_version"])
    assert SpecifierSet(project["requires-python"]).contains(f"{settings['python_version']}.0")
    requirement = Requirement((SPACE / "requirements.txt").read_text(encoding="utf-8").strip())
    assert requirement.name == project["name"] and requirement.extras == {"demo"}

import dataclasses
import json
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from natix_roadwork import environment
from natix_roadwork.runs import REMOVED, RunRecorder, RunResult, compare_results, read_result, write_result


class Strategy(str, Enum):  # noqa: UP042 - the form transformers' settings have
    STEPS = "steps"


def make_result(**changes: object) -> RunResult:
    with RunRecorder({"learning_rate": 1e-3}, seed=3) as recorder:
        recorder.metrics = {"dev": {"mcc": {"value": 0.5, "low": 0.4, "high": 0.6}}}
        recorder.baselines = {"knn": {"dev": {"mcc": {"value": 0.25, "low": 0.0, "high": 0.5}}}}
        recorder.data = {"name": "scenes", "fingerprint": "abc", "counts": {"train": 10}}
    return dataclasses.replace(recorder.result(), **changes)


def test_result_reads_back_equal(tmp_path: Path) -> None:
    result = make_result(warnings=["one-class dev split"])
    path = write_result(tmp_path / "new" / "result.json", result)
    assert read_result(path) == result
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]
    assert list(json.loads(path.read_text())) == sorted(json.loads(path.read_text()))


def test_values_become_plain_json(tmp_path: Path) -> None:
    config = {
        "a": np.float32(0.5),
        "b": float("nan"),
        "c": Path("x/y"),
        "d": (1, 2),
        "e": {"s": Strategy.STEPS},
        "f": {2, 1},
    }
    path = write_result(tmp_path / "result.json", make_result(config=config))
    assert read_result(path).config == {"a": 0.5, "b": None, "c": "x/y", "d": [1, 2], "e": {"s": "steps"}, "f": [1, 2]}


def test_value_without_json_form_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_result(tmp_path / "result.json", make_result())
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"config\.model\.dtype"):
        write_result(path, make_result(config={"model": {"dtype": torch.float32}}))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_secrets_are_not_written(tmp_path: Path) -> None:
    token = "hf_" + "a1B2" * 8
    config = {
        "hub_token": "s3cret",
        "num_pooled_tokens": 2,
        "deep": {"token": "s3cret"},
        "note": f"use {token}",
        "x_token": None,
    }
    command = [
        "python",
        "a.py",
        "--hub_token",
        "s3cret",
        "--api_key=s3cret",
        "--url",
        "https://me:s3cret@host/x",
        token,
    ]
    path = write_result(tmp_path / "result.json", make_result(config=config, command=command))
    text = path.read_text()
    assert "s3cret" not in text and token not in text
    assert read_result(path).config["num_pooled_tokens"] == 2 and read_result(path).config["x_token"] is None
    assert read_result(path).command[2:5] == ["--hub_token", REMOVED, f"--api_key={REMOVED}"]


def test_unknown_and_missing_keys_are_named(tmp_path: Path) -> None:
    path = write_result(tmp_path / "result.json", make_result())
    values = json.loads(path.read_text())
    del values["seed"]
    path.write_text(json.dumps({**values, "sead": 1}))
    with pytest.raises(ValueError, match=r"missing keys \['seed'\], unknown keys \['sead'\]"):
        read_result(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "holds a list"), ('{"format_version": 99}', "format_version=99")],
)
def test_broken_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_result(path)
    with pytest.raises(ValueError, match="does not exist"):
        read_result(tmp_path / "absent.json")


def test_recorder_measures_and_describes_the_run() -> None:
    with RunRecorder({}, seed=0) as recorder:
        block = np.ones(4_000_000)
    result = recorder.result()
    assert result.wall_seconds > 0 and result.peak_memory_bytes > block.nbytes
    assert result.environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert result.environment["num_threads"] == torch.get_num_threads()
    assert result.environment["world_size"] == 1
    assert result.command[0] in environment.LAUNCHERS


def test_recorder_outside_with_is_refused() -> None:
    with pytest.raises(ValueError, match="never entered"):
        RunRecorder({}, seed=0).result()


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunRecorder({}, seed=0) as recorder:
        monkeypatch.setenv("RANK", "1")
        assert recorder.write(tmp_path) is None and not list(tmp_path.iterdir())
        monkeypatch.setenv("RANK", "0")
        assert recorder.write(tmp_path) == tmp_path / "result.json"


def test_commit_is_none_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "site-packages" / "natix_roadwork" / "environment.py"))
    assert environment.git_state() == (None, None)


class Process:
    def __init__(self, *command: str) -> None:
        self.command = list(command)

    def cmdline(self) -> list[str]:
        return self.command


@pytest.mark.parametrize(
    ("above", "command"),
    [
        (
            ["/v/bin/python3.11", "/v/bin/accelerate", "launch", "--cpu", "r.py"],
            ["accelerate", "launch", "--cpu", "r.py"],
        ),
        (["python", "-m", "accelerate.commands.launch", "r.py"], ["accelerate", "launch", "r.py"]),
        (["python", "-m", "torch.distributed.run", "r.py"], ["torchrun", "r.py"]),
        (["/v/bin/torchrun", "--nproc_per_node", "2", "r.py"], ["torchrun", "--nproc_per_node", "2", "r.py"]),
        (["bash"], ["python", "r.py", "--seed", "1"]),
        ([], ["python", "r.py", "--seed", "1"]),
    ],
)
def test_command_is_the_launchers(above: list[str], command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.sys, "argv", ["r.py", "--seed", "1"])
    monkeypatch.setattr(environment.psutil.Process, "parents", lambda _: [Process(*above), Process("init")])
    assert environment.launch_command() == command


def test_equal_results_have_no_differences() -> None:
    assert compare_results(make_result(), make_result(wall_seconds=1.0)) == []


def test_differences_are_named_and_respect_the_tolerance() -> None:
    old = make_result()
    new = make_result(seed=4, metrics={"dev": {"mcc": {"value": 0.51, "low": 0.4, "high": None}}})
    found = compare_results(old, new)
    assert [difference.path for difference in found] == ["metrics.dev.mcc.high", "metrics.dev.mcc.value", "seed"]
    assert str(found[0]) == "metrics.dev.mcc.high: 0.6 -> None"
    assert [difference.path for difference in compare_results(old, new, tolerance=0.1)] == [
        "metrics.dev.mcc.high",
        "seed",
    ]


def test_missing_split_and_other_data_are_differences() -> None:
    new = make_result(metrics={}, data={"name": "scenes", "fingerprint": "abd", "counts": {"train": 10}})
    assert {difference.path for difference in compare_results(make_result(), new, tolerance=9.0)} == {
        *(f"metrics.dev.mcc.{key}" for key in ("value", "low", "high")),
        "data.fingerprint",
    }


def test_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance=-1"):
        compare_results(make_result(), make_result(), tolerance=-1)

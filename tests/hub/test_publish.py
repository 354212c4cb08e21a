"""The whole way: pushed to a Hub, loaded back by a process without the package, compared, and only then a success."""

import json
from pathlib import Path

import pytest

from natix_roadwork.cli import main
from tests.hub.conftest import HOTKEY, REPO, TOKEN
from tests.hub.hub_server import HubState


def command(trained: Path, **keys: object) -> list[str]:
    given = {"model": trained / "model", "repo_id": REPO, "use_cpu": "true", "output_dir": trained / "publish"} | keys
    words = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in given.items()}
    return ["publish", *(f"--{key}={value}" for key, value in words.items())]


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.process
def test_everything_is_pushed_in_one_commit_and_loaded_back(
    hub: HubState, trained: Path, parts: dict, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(command(trained, **parts)) == 0
    output = capsys.readouterr()
    files = hub.files(REPO)
    assert hub.asked.count("commit") == 1 and not [call for call in hub.asked if "unknown" in call and "POST" in call]
    assert output.out.splitlines()[-1].startswith("published: ") and "equal" in output.out
    wanted = {
        "model.safetensors",
        "adapters/fold1/adapter_model.safetensors",
        "members/base/dora/adapters/fold0/base.json",
    }
    wanted |= {"ensemble.json", "calibration.json", "statistics/model/feature_statistics.safetensors", "README.md"}
    assert wanted <= files.keys() and "training_args.bin" in output.out
    assert {Path(name).suffix for name in files} <= {"", ".safetensors", ".json", ".jsonl", ".md", ".py"}
    card = json.loads(files["model_card.json"])
    assert card["submitted_by"] == HOTKEY and isinstance(card["submission_time"], int)
    log = [json.loads(line) for line in files["lockbox_log.jsonl"].splitlines()]
    assert [entry["answers"] for entry in log] == ["model", "calibrated", "adapters", "ensemble"]
    assert all(entry["lockbox"]["rows"] == 8 and entry["date"] and len(entry["sha256"]) == 64 for entry in log)
    assert (
        json.loads((trained / "publish" / "result.json").read_text())["details"]["revision"] == hub.repos[REPO][-1][0]
    )
    everything = all_bytes(tmp_path) + b"".join(files.values()) + (output.out + output.err).encode()
    assert TOKEN.encode() not in everything
    assert str(tmp_path).encode() not in b"".join(data for name, data in files.items() if "safetensors" not in name)


@pytest.mark.process
def test_a_hub_that_serves_other_bytes_is_named_and_fails(
    hub: HubState, trained: Path, parts: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.served["adapters/fold1/adapter_model.safetensors"] = "adapters/fold0/adapter_model.safetensors"
    hub.served["members/second/model.safetensors"] = "members/first/model.safetensors"
    hub.served["calibration.json"] = None
    assert main(command(trained, **parts, score_lockbox="false")) == 1
    output = capsys.readouterr().out
    assert "differs: adapters/fold1: photo" in output and "differs: ensemble: photo" in output
    assert "differs: adapters/fold1/adapter_model.safetensors has other bytes" in output
    assert "differs: members/second: photo" in output and "differs: calibration.json cannot be loaded" in output
    assert "adapters/fold0: photo" not in output and output.splitlines()[-1].startswith("NOT published as trained")
    assert not (trained / "publish" / "result.json").exists()

"""A Hub that refuses, forgets or moves on: nothing is half published, no token is told, and a second try completes."""

import traceback
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from natix_roadwork.hub.publish import publish, push, warnings_of
from natix_roadwork.hub.publish_targets import HubTarget
from tests.hub.conftest import REPO, TOKEN, Arguments
from tests.hub.hub_server import HubState


def texts(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("call", ["create", "info", "preupload", "batch", "commit"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_one_line_without_the_token(
    hub: HubState, arguments: Arguments, trained: Path, call: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.refuse[call] = status
    with pytest.raises(ValueError, match="the Hub did not take it") as caught:
        publish(arguments(repo_id=REPO, score_lockbox=False))
    told = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in told + "".join(capfd.readouterr()) and str(status) in told and "\n" not in str(caught.value)
    assert TOKEN.encode() not in texts(trained) and not (trained / "publish" / "result.json").exists()
    assert REPO not in hub.repos or set(hub.files(REPO)) == {".gitattributes"}


def test_a_wrong_token_is_refused_before_anything_is_scored(
    hub: HubState, arguments: Arguments, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "Wrong" * 6)
    with pytest.raises(ValueError, match="status 401") as caught:
        push(arguments(repo_id=REPO))
    assert "Wrong" not in str(caught.value) and not (trained / "lockbox_log.jsonl").exists()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match="set HF_TOKEN in the environment"):
        push(arguments(repo_id=REPO))


def test_a_publishing_that_died_is_completed_by_running_it_again(
    hub: HubState, arguments: Arguments, trained: Path
) -> None:
    hub.refuse["commit"] = 403
    with pytest.raises(ValueError, match="nothing was published"):
        push(arguments(repo_id=REPO))
    assert set(hub.files(REPO)) == {".gitattributes"} and hub.large
    hub.refuse.clear()
    done, _ = push(arguments(repo_id=REPO))
    assert done.lockbox.new == 0 and len(done.lockbox.entries) == 1
    assert "model.safetensors" in hub.files(REPO) and len(hub.repos[REPO]) == 2


def test_the_same_again_makes_no_commit(hub: HubState, arguments: Arguments) -> None:
    first, _ = push(arguments(repo_id=REPO, score_lockbox=False))
    again, _ = push(arguments(repo_id=REPO, score_lockbox=False))
    assert again.revision == first.revision and len(hub.repos[REPO]) == 2


def test_files_of_an_earlier_publishing_go_and_those_of_others_stay(
    hub: HubState, arguments: Arguments, parts: dict
) -> None:
    push(arguments(repo_id=REPO, score_lockbox=False, **parts))
    for name in ("LICENSE.txt", "NOTES.md", "other.json"):
        HfApi(token=TOKEN).upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id=REPO)
    push(arguments(repo_id=REPO, score_lockbox=False))
    files = hub.files(REPO)
    assert {"LICENSE.txt", "NOTES.md", "other.json"} <= files.keys() and not [
        name for name in files if name.startswith(("adapters/", "members/"))
    ]
    assert "ensemble.json" not in files and "model_card.json" not in files


def test_a_repository_with_pickles_is_refused(hub: HubState, arguments: Arguments) -> None:
    api = HfApi(token=TOKEN)
    api.create_repo(REPO)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="training_args.bin", repo_id=REPO)
    with pytest.raises(ValueError, match=r"someone/roadwork holds training_args\.bin"):
        push(arguments(repo_id=REPO))


def test_a_commit_in_between_is_not_overwritten(hub: HubState, tmp_path: Path) -> None:
    target = HubTarget(REPO, private=False)
    HfApi(token=TOKEN).upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id=REPO)
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="commit has happened since"):
        target.push(tmp_path / "staged", "again")
    assert set(hub.files(REPO)) == {".gitattributes", "notes.txt"}


@pytest.mark.parametrize(("repo_id", "warned"), [("a/model-v1.0", True), ("a/model_v1", False)])
def test_a_name_that_the_subnet_refuses_is_warned_of(arguments: Arguments, repo_id: str, warned: bool) -> None:
    asked = arguments(repo_id=repo_id)
    lockbox = type("Scores", (), {"warnings": []})()
    assert any("dot" in warning for warning in warnings_of(asked, lockbox)) == warned


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"repo_id": "a/b", "folder": "c"}, "give one"),
        ({"repo_id": "b"}, "owner/name"),
        ({"version": "1.0"}, "X.Y.Z"),
        ({"hotkey": "0x12"}, "SS58"),
        ({"members": '{"a": "b"}'}, "belong together"),
        ({"ensemble": "e.json", "members": "[1"}, "no JSON"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: Arguments, keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments(**keys)

"""Members as processes: order, places, failures, signals. Shell scripts stand in for the training."""

import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.runs import RunRecorder
from natix_roadwork.training import member_runs
from natix_roadwork.training.checkpoints import mark_complete
from natix_roadwork.training.member_report import members_table, record_members, write_members
from natix_roadwork.training.member_runs import Outcome, train_members
from natix_roadwork.training.members import Member, parse_members


RECIPE = "dataset_name: photos\nfeature_cache: auto\nuse_cpu: true\n"
# The last argument is the member's folder; a member does what its own script says, else it "trains".
SCRIPT = """
for last; do :; done
out=${last#--output_dir=}
echo "$(basename $out)" >> order
if [ -f $(basename $out).sh ]; then . ./$(basename $out).sh; fi
cp prepared-$(basename $out).json $out/result.json
"""


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(member_runs, "POLL_SECONDS", 0.01)
    Path("small.yaml").write_text(RECIPE)
    Path("train.sh").write_text(SCRIPT)


def make(*names: str, view_sizes: tuple[int, ...] = ()) -> list[Member]:
    """Members with a result that their script will put in place; they read different tokens unless told otherwise."""
    sizes = view_sizes or tuple(range(64, 64 + 32 * len(names), 32))
    lines = [f"  {name}: {{recipe: small.yaml, view_size: {size}}}\n" for name, size in zip(names, sizes, strict=True)]
    Path("members.yaml").write_text("launch_config: small.yaml\nmembers:\n" + "".join(lines))
    members = parse_members(["--config", "members.yaml", "--output_dir", "out"])[1]
    for member in members:
        with RunRecorder(member.settings, 0) as recorder:
            recorder.metrics = {"dev": metrics_with_intervals([0, 1] * 8, [0.2, 0.7] * 8, groups=list("aabb") * 4)}
            recorder.details = {"splits": {"sha256": "same"}}
            recorder.warnings = ["few rows"]
            recorder.write(Path("prepared"))
        Path("prepared/result.json").rename(f"prepared-{member.name}.json")
    return members


def train(members: list[Member], slots: list[dict[str, str]] | None = None) -> dict[str, Outcome]:
    outcomes = train_members(members, ["sh", "train.sh"], slots or [{}])
    assert [outcome.member for outcome in outcomes] == members
    return {outcome.member.name: outcome for outcome in outcomes}


def states(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.state for name, outcome in outcomes.items()}


def test_members_are_trained_in_order_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    members = make("b", "a")
    assert states(train(members)) == {"b": "trained", "a": "trained"}
    assert Path("order").read_text().split() == ["b", "a"]
    assert Path("out/b/train.log").read_text().startswith("$ sh train.sh --config small.yaml --existing_run=resume")
    assert states(train(members)) == {"b": "skipped", "a": "skipped"}
    assert Path("order").read_text().split() == ["b", "a"]
    printed = capsys.readouterr()
    assert "b: trained before, skipped" in printed.out and "2.0 of 2 members" in printed.err


def test_a_member_that_fails_is_named_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    members = make("a", "b", "c")
    Path("a.sh").write_text("seq 100; echo out of memory >&2; exit 3")
    outcomes = train(members)
    assert states(outcomes) == {"a": "failed", "b": "trained", "c": "trained"}
    assert "    out of memory" in outcomes["a"].tail and "exit code 3" in outcomes["a"].tail[0]
    assert "    100" in outcomes["a"].tail and "    50" not in outcomes["a"].tail
    Path("a.sh").unlink()
    assert states(train(members)) == {"a": "trained", "b": "skipped", "c": "skipped"}
    assert "a: failed\n    exit code 3; the end of out/a/train.log" in capsys.readouterr().out


def test_a_run_without_a_result_has_failed() -> None:
    members = make("a")
    Path("a.sh").write_text("exit 0")
    assert states(train(members)) == {"a": "failed"}


def test_nothing_starts_where_a_folder_holds_other_settings() -> None:
    train(make("a"))
    with pytest.raises(ValueError, match=r"member 'a': .*view_size: 64 there, 96 now"):
        train(make("b", "a"))
    assert not Path("out/b").exists()


def test_each_place_trains_one_member_at_a_time() -> None:
    members = make("a", "b", "c")
    for name, other in ("ab", "ba"):
        Path(f"{name}.sh").write_text(
            f"touch {name}.here; until [ -f {other}.here ]; do sleep 0.01; done; echo $DEVICE"
        )
    Path("c.sh").write_text("echo $DEVICE")
    assert set(states(train(members, [{"DEVICE": "gpu 0"}, {"DEVICE": "gpu 1"}])).values()) == {"trained"}
    lines = {name: Path(f"out/{name}/train.log").read_text().splitlines()[-1] for name in "abc"}
    assert lines["a"] == "gpu 0" and lines["b"] == "gpu 1" and lines["c"] in ("gpu 0", "gpu 1")


def test_tokens_are_not_computed_twice_at_once() -> None:
    """b reads what a computes and waits for its first checkpoint; c reads other tokens and does not."""
    members = make("a", "b", "c", view_sizes=(64, 64, 96))
    Path("a.sh").write_text(
        "until [ -f c.here ]; do sleep 0.01; done; mkdir $out/checkpoint-1; touch tokens; sleep 0.1"
    )
    Path("b.sh").write_text("ls tokens || exit 1")
    Path("c.sh").write_text("touch c.here")
    assert set(states(train(members, [{}, {}])).values()) == {"trained"}
    assert Path("order").read_text().split()[-1] == "b"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_members(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    members = make("a", "b", "c")
    for name in "ab":
        Path(f"{name}.sh").write_text(f"sleep 1000 & echo $! > {name}.child; wait")

    def send() -> None:
        while not all(path.is_file() and path.read_text().strip() for path in map(Path, ("a.child", "b.child"))):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    before = signal.getsignal(number)
    thread.start()
    with pytest.raises(SystemExit) as left:
        train(members, [{}, {}])
    thread.join()
    assert left.value.code == 128 + number and signal.getsignal(number) is before
    children = [int(Path(f"{name}.child").read_text()) for name in "ab"]
    deadline = time.monotonic() + 20  # a killed process takes a moment to go
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in children):
        assert time.monotonic() < deadline, "a member's process was left"
        time.sleep(0.01)
    assert "a: stopped; the same command continues it" in capsys.readouterr().out
    assert not Path("out/c").exists()


def test_a_folder_in_use_is_left_alone() -> None:
    members = make("a", "b")
    Path("out/a").mkdir(parents=True)
    with Path("out/a/train.log").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        outcomes = train(members)
    assert states(outcomes) == {"a": "failed", "b": "trained"}
    assert "out/a is being trained by another process" in outcomes["a"].tail[0]


def test_progress_is_that_of_the_last_complete_checkpoint() -> None:
    (member,) = make("a")
    assert member_runs._share(member) == 0.0
    for step in (5, 10):
        checkpoint = member.folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 20}))
    mark_complete(member.folder / "checkpoint-5")
    assert member_runs._share(member) == 0.25


def test_the_report_tells_what_came_out() -> None:
    members = make("a", "b", "c")
    Path("b.sh").write_text("exit 1")
    outcomes = list(train(members).values())
    content = write_members(outcomes, "out")
    assert content == json.loads(Path("out/members.json").read_text())
    assert [(entry["name"], entry["folder"]) for entry in content["members"]] == [("a", "a"), ("c", "c")]
    assert content["failed"] == ["b"] and content["members"][0]["metrics"]["dev"]["mcc"]["value"] == 1.0
    table = members_table(outcomes, "out")
    assert "a                        trained" in table and "b                        failed" in table
    assert "1.000 [1.000, 1.000]" in table and table.count("warning: few rows") == 1
    with RunRecorder({}, 0) as recorder:
        record_members(recorder, outcomes)
    assert recorder.metrics["dev"]["c.mcc"]["value"] == 1.0 and recorder.details["states"]["b"] == "failed"


def test_members_of_different_rows_are_warned_of() -> None:
    members = make("a", "b")
    path = Path("prepared-b.json")
    path.write_text(path.read_text().replace('"same"', '"other"'))
    content = write_members(list(train(members).values()), "out")
    assert "give them one split_seed" in content["warnings"][-1]

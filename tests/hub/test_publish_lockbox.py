"""The lockbox is scored once for a set of weights, every scoring is noted, and the cards say what was done."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.data.scenes import SceneSettings, write_scenes
from natix_roadwork.hub import publish_lockbox
from natix_roadwork.hub.publish import push, warnings_of
from natix_roadwork.hub.publish_lockbox import merged_logs, read_log, read_log_file
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.predict import predict
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.runs import RunResult
from tests.hub.conftest import REPO, TOKEN, Arguments
from tests.hub.hub_server import HubState


def log_of(trained: Path) -> list[dict]:
    return read_log_file(trained / "out" / "lockbox_log.jsonl")


def change_weights(trained: Path) -> None:
    model = RoadworkForImageClassification.from_pretrained(trained / "model")
    with torch.no_grad():
        next(model.classifier.parameters()).add_(0.5)
    model.save_pretrained(trained / "model")


def test_scores_are_those_of_the_photos_and_stand_in_log_record_and_card(
    arguments: Arguments, parts: dict, trained: Path
) -> None:
    done, _ = push(arguments(**parts))
    assert [entry["answers"] for entry in log_of(trained)] == ["model", "calibrated", "adapters", "ensemble"]
    files = {path.parent.name: read_predictions(path) for path in (trained / "publish" / "lockbox").rglob("*.arrow")}
    assert len(files) == 5 and {len(found) for found in files.values()} == {8}  # model, its adapters, three members
    own = next(found for name, found in files.items() if name.startswith(done.lockbox.entries[0]["sha256"][:16]))
    expected = metrics_with_intervals(own.labels, own.probabilities, groups=own.groups, seed=0)["mcc"]
    assert done.lockbox.entries[0]["scores"]["mcc"] == pytest.approx(expected)
    record = json.loads((trained / "out" / "repo" / "result.json").read_text())
    assert record["details"]["published"]["lockbox"]["entries"] == log_of(trained)
    card = (trained / "out" / "repo" / "README.md").read_text()
    assert "scored once for these weights" in card and "| ensemble | " in card and done.lockbox.new == 4


def test_the_test_split_of_natix_shards_is_scored_by_publishing_alone(arguments: Arguments, trained: Path) -> None:
    scenes = write_scenes(
        trained / "scenes", SceneSettings(num_rows=30, width=200, test_share=0.4, positive_share=0.5), masks=False
    )
    done, _ = push(arguments(dataset_name=str(scenes)))
    box = done.lockbox.entries[0]["lockbox"]
    assert box["name"] == "scenes" and box["rows"] == 12 and 0 < box["roadwork"] <= 12
    (path,) = (trained / "publish" / "lockbox").rglob("*.arrow")
    asked = PredictArguments(model=str(trained / "model"), dataset_name=str(scenes), splits=["test"], output_dir="x")
    with pytest.raises(ValueError, match="is a lockbox, which is scored once"):
        predict(asked)
    assert len(read_predictions(path)) == 12


def test_the_same_weights_are_not_scored_again(
    arguments: Arguments, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(arguments())
    before = log_of(trained)
    monkeypatch.setattr(publish_lockbox, "predict", lambda *args, **kwargs: pytest.fail("scored again"))
    done, _ = push(arguments(folder=str(trained / "out" / "other"), output_dir=str(trained / "elsewhere")))
    assert log_of(trained) == before and done.lockbox.new == 0 and done.lockbox.entries == before
    assert (trained / "out" / "other" / "lockbox_log.jsonl").read_text() == (
        trained / "out" / "repo" / "lockbox_log.jsonl"
    ).read_text()


def test_other_weights_on_the_same_lockbox_are_warned_of(arguments: Arguments, trained: Path) -> None:
    push(arguments())
    change_weights(trained)
    done, _ = push(arguments())
    assert done.lockbox.earlier == 1 and len(log_of(trained)) == 2
    assert "1 earlier scores of other weights" in " ".join(warnings_of(arguments(), done.lockbox))
    assert "1 other sets of weights were scored" in (trained / "out" / "repo" / "README.md").read_text()


def test_what_was_seen_before_a_crash_is_noted_and_not_scored_again(
    arguments: Arguments, parts: dict, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = publish_lockbox.predict, []

    def dying(settings: PredictArguments, **options: bool) -> RunResult:
        calls.append(settings)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(settings, **options)

    monkeypatch.setattr(publish_lockbox, "predict", dying)
    with pytest.raises(KeyboardInterrupt):
        push(arguments(**parts))
    assert [entry["answers"] for entry in log_of(trained)] == ["model", "calibrated", "adapters"]
    assert not (trained / "out" / "repo").exists()
    done, _ = push(arguments(**parts))
    assert done.lockbox.new == 1 and len(calls) == 6 and (trained / "out" / "repo" / "ensemble.json").exists()


def test_left_out_and_absent_lockboxes_are_said_in_the_card(arguments: Arguments, trained: Path) -> None:
    push(arguments(score_lockbox=False))
    assert "Not scored: it was left out on request." in (trained / "out" / "repo" / "README.md").read_text()
    assert log_of(trained) == []
    for path in (trained / "photos" / "test").iterdir():
        path.unlink()
    (trained / "photos" / "test").rmdir()
    push(arguments())
    assert log_of(trained) == []
    assert "Not scored: the data set has no test split." in (trained / "out" / "repo" / "README.md").read_text()


def test_adapters_that_learned_from_it_are_marked(arguments: Arguments, parts: dict, trained: Path) -> None:
    (trained / "folds" / "folds.json").write_text('{"fold_target": "test"}')
    done, _ = push(arguments(adapters=parts["adapters"]))
    assert [entry["taught_by_it"] for entry in done.lockbox.entries] == [False, True]
    card = (trained / "out" / "repo" / "README.md").read_text()
    assert "**Transductive, not comparable**: adapters may have learned" in card
    assert any("optimistic" in warning for warning in done.warnings)


def test_the_log_of_the_repository_counts(
    hub: HubState, arguments: Arguments, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(arguments(repo_id=REPO))
    (trained / "lockbox_log.jsonl").unlink()
    monkeypatch.setattr(publish_lockbox, "predict", lambda *args, **kwargs: pytest.fail("scored again"))
    done, _ = push(arguments(repo_id=REPO, output_dir=str(trained / "elsewhere")))
    assert done.lockbox.new == 0 and len(read_log_file(trained / "lockbox_log.jsonl")) == 1
    push(arguments(repo_id=REPO, score_lockbox=False))
    assert len(hub.files(REPO)["lockbox_log.jsonl"].splitlines()) == 1  # a log is never lost
    HfApi(token=TOKEN).upload_file(path_or_fileobj=b"{}\n", path_in_repo="lockbox_log.jsonl", repo_id=REPO)
    with pytest.raises(ValueError, match="someone/roadwork, line 1 is no entry"):
        push(arguments(repo_id=REPO))


def test_logs_merge_to_one_entry_a_scoring_by_date() -> None:
    def entry(date: str, sha256: str, box: str = "a") -> dict:
        return {"date": date, "sha256": sha256, "lockbox": {"fingerprint": box}, "scores": {"mcc": {"value": 0.5}}}

    first, again, other = entry("2026-01-02", "x"), entry("2026-03-01", "x"), entry("2026-01-01", "y")
    elsewhere = entry("2026-02-01", "x", "b")
    assert merged_logs([again, elsewhere], [first, other]) == [other, first, elsewhere]
    with pytest.raises(ValueError, match="log, line 2 is no entry"):
        read_log(json.dumps(first) + "\n{\n", "log")

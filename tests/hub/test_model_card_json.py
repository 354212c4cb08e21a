"""The subnet's card: the accept and reject list of the validators' own check, and a round trip."""

import json
from pathlib import Path

import pytest

from natix_roadwork.hub import model_card_json


NOW = 1_780_000_000  # 2026-05-28T20:26:40Z
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
CARD = {
    "model_name": "roadwork-lite",
    "description": "A roadwork classifier.",
    "version": "1.2.0",
    "submitted_by": HOTKEY,
    "submission_time": NOW - 3600,
}


def _problems(**changes: object) -> list[tuple[str, bool]]:
    card = {key: value for key, value in (CARD | changes).items() if value is not ...}
    return [(problem.key, problem.fatal) for problem in model_card_json.validate(card, NOW)]


@pytest.mark.parametrize(
    "value",
    [
        NOW - 1,
        float(NOW - 1),
        (NOW - 1) * 1000,
        str(NOW - 1),
        str((NOW - 1) * 1000),
        "2026-05-28T20:00:00Z",
        "2026-05-28T22:00:00+02:00",
        "2026-05-28T20:00:00",
        "2026-05-28T20:00:00.123456Z",
    ],
)
def test_times_that_are_taken(value: object) -> None:
    assert _problems(submission_time=value) == []


@pytest.mark.parametrize(
    "value",
    [
        "2026-05-28",
        NOW + 60,
        (NOW + 60) * 1000,
        "2026-05-29T00:00:00Z",
        946_684_799,
        0,
        -5,
        True,
        None,
        "soon",
        "T",
        [],
    ],
)
def test_times_that_are_refused(value: object) -> None:
    assert _problems(submission_time=value) == [("submission_time", True)]


def test_offsets_and_milliseconds_are_the_same_moment() -> None:
    values = [1_700_000_000, 1_700_000_000_000, "1700000000", "2023-11-14T22:13:20Z", "2023-11-15T00:13:20+02:00"]
    assert {model_card_json.submission_seconds(value) for value in values} == {1_700_000_000.0}


@pytest.mark.parametrize(("days", "text"), [(30, None), (46, "beyond 45"), (91, "beyond 90")])
def test_age_is_a_notice(days: int, text: str | None) -> None:
    found = model_card_json.validate(CARD | {"submission_time": NOW - days * 86_400}, NOW)
    assert [problem.fatal for problem in found] == ([False] if text else [])
    assert text is None or text in found[0].message


@pytest.mark.parametrize("key", model_card_json.REQUIRED)
def test_each_required_key_is_asked_for(key: str) -> None:
    assert _problems(**{key: ...}) == [(key, True)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": "v1"}, [("version", False)]),
        ({"version": 1}, [("version", False)]),
        ({"version": "1.0.0-rc.1"}, []),
        ({"description": ...}, [("description", False)]),
        ({"submitted_by": "me"}, [("submitted_by", False)]),
        ({"submitted_by": HOTKEY[:-1] + "X"}, [("submitted_by", False)]),
        ({"submitted_by": ""}, [("submitted_by", True)]),
        ({"model_name": 7}, [("model_name", True)]),
        ({"notes": "free", "architecture": "ViT"}, []),
    ],
)
def test_other_keys(change: dict, expected: list) -> None:
    assert _problems(**change) == expected


@pytest.mark.parametrize(
    "repo_id", ["user/model", "user/model-v1_0", "https://huggingface.co/user/model/", "/u/m/sub"]
)
def test_names_that_are_taken(repo_id: str) -> None:
    assert model_card_json.repo_id_problem(repo_id) is None


@pytest.mark.parametrize(
    ("repo_id", "why"),
    [
        ("user/model-v1.0", "a dot"),
        ("us.er/model", "a dot"),
        ("model", "owner/name"),
        ("user/my model", "owner/name"),
        ("", "owner"),
    ],
)
def test_names_that_are_refused(repo_id: str, why: str) -> None:
    assert why in str(model_card_json.repo_id_problem(repo_id))


def test_a_written_card_is_valid_and_reads_back(tmp_path: Path) -> None:
    path = model_card_json.write(tmp_path, **{**CARD, "submission_time": None}, notes="lite")
    card = model_card_json.read(path)
    assert path.name == "model_card.json" and model_card_json.validate(card) == []
    assert isinstance(card["submission_time"], int) and card["notes"] == "lite"
    assert card == json.loads(path.read_text())


def test_a_card_that_would_be_refused_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model_card.json: submission_time=99999999999 lies in the future"):
        model_card_json.write(tmp_path, **CARD | {"submission_time": 99_999_999_999})
    with pytest.raises(ValueError, match="save the model first"):
        model_card_json.write(tmp_path / "absent", **CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match="holds a list"):
        model_card_json.read(tmp_path / "a.json")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        model_card_json.read(tmp_path / "b.json")

"""Every way in which what was loaded back can differ has a line of its own."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from natix_roadwork.hub import read_back
from natix_roadwork.hub.publish import Publishing, publish_summary
from natix_roadwork.hub.publish_check import compare, draw_photos
from natix_roadwork.hub.publish_lockbox import LockboxScores
from natix_roadwork.hub.read_back import NoPackage
from tests.hub.conftest import Arguments


WANTED = {"model": np.array([[0.5, -0.5], [1.0, 2.0]])}


def found(answers: object, **files: str) -> dict[str, dict]:
    return {"answers": {"model": answers}, "files": files, "errors": {}}


def test_equal_answers_and_files_have_no_difference() -> None:
    assert compare(WANTED, {"config.json": "a"}, found([[0.5, -0.5], [1.0, 2.00005]], **{"config.json": "a"})) == []


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ([[0.5, -0.5], [1.0, 2.001]], "model: photo 1 answers [1.0, 2.001], expected [1.0, 2.0]"),
        ([[float("nan"), -0.5], [1.0, 2.0]], "model: photo 0 answers [nan, -0.5], expected [0.5, -0.5]"),
        ([[0.5, -0.5]], "model answers with shape (1, 2), expected (2, 2)"),
    ],
)
def test_other_answers_are_named_by_photo(answers: list, line: str) -> None:
    assert compare(WANTED, {}, found(answers)) == [line]


def test_files_errors_and_missing_answers_are_named() -> None:
    back = {"answers": {}, "files": {"b.json": "2"}, "errors": {"a.json": "EntryNotFoundError: gone"}}
    lines = compare(WANTED, {"a.json": "1", "b.json": "1"}, back)
    assert lines == [
        "a.json cannot be loaded: EntryNotFoundError: gone",
        "b.json has other bytes than were pushed",
        "model was not answered",
    ]


def test_the_summary_ends_with_whether_it_is_published(arguments: Arguments) -> None:
    done = Publishing("a/b", "0" * 40, {"README.md": "x"}, [], LockboxScores(why_not="it was left out on request"))
    assert publish_summary(done, arguments()).endswith(
        "published: 1 files in a/b at 000000000000, loaded back and equal"
    )
    done.differences = ["model: photo 0 answers"]
    assert publish_summary(done, arguments()).endswith(
        "NOT published as trained: 1 differences in a/b at 000000000000"
    )


def test_the_package_can_be_hidden_and_errors_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="natix_roadwork"):
        NoPackage().find_spec("natix_roadwork.model")
    assert NoPackage().find_spec("json") is None
    job = {
        "name": str(tmp_path),
        "is_repo": False,
        "files": ["gone.json"],
        "members": [],
        "adapters": [],
        "photos": [],
    }
    back = read_back.main(json.loads(json.dumps(job | {"revision": "main"})))
    assert set(back["errors"]) == {"gone.json", "model"} and not any(
        isinstance(finder, NoPackage) for finder in sys.meta_path
    )


def test_photos_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    pairs = zip(draw_photos(tmp_path), draw_photos(tmp_path / "again"), strict=True)
    assert all(Path(one).read_bytes() == Path(other).read_bytes() for one, other in pairs)

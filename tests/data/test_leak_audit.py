import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from natix_roadwork.data.leak_audit import AuditResult, audit_features, audited_fields, resolve_metadata_fields
from natix_roadwork.data.leak_probes import PROBES, FieldFeatures, field_features, jpeg_quality, value_probabilities
from tests.leaking_rows import leaking_rows, shuffled_by_group


Rows = Callable[..., Dataset]


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows that leak through the named fields; each choice is made once."""
    made: dict[tuple, Dataset] = {}

    def make(**leaks: bool) -> Dataset:
        key = tuple(sorted(leaks))
        if key not in made:
            made[key] = leaking_rows(tmp_path_factory.mktemp("rows") / "d", **leaks)
        return made[key]

    return make


@pytest.fixture(scope="module")
def described(leaking: Rows) -> AuditResult:
    return audited_fields(leaking(description=True), num_samples=200)


def test_description_is_refused_and_nothing_else(described: AuditResult) -> None:
    assert set(described.flagged) == {"text", "travel_alteration"}
    assert described.allowed == ["gps", "weather", "daytime", "scene"]
    assert "whether it is there tells the label with MCC 0." in described.refused["text"]
    none, roadwork = described.present["text"]
    assert none < 0.2 and roadwork > 0.9


# File sizes follow the photo's size and coordinates the city, so they leak with it.
@pytest.mark.parametrize(
    ("leaks", "flagged"),
    [({}, set()), ({"photo_size": True}, {"photo_size", "file_bytes"}), ({"city": True}, {"city", "gps"})],
    ids=["none", "photo_size", "city"],
)
def test_planted_leaks_are_flagged_and_clean_fields_are_not(leaking: Rows, leaks: dict, flagged: set) -> None:
    assert set(audited_fields(leaking(**leaks), num_samples=200).flagged) == flagged


def test_shuffled_labels_flag_nothing(leaking: Rows) -> None:
    """A small form of `tests/benchmarks/leak_audit.py`."""
    rows = leaking(description=True)
    labels, groups = np.asarray(rows["label"][:]), np.asarray(rows["group"][:])
    fields = {name: field for name, field in field_features(rows).items() if name in ("text", "daytime", "gps")}
    for seed in range(3):
        shuffled = shuffled_by_group(labels, groups, seed)
        assert not audit_features(fields, shuffled, groups, num_samples=100).flagged


def test_result_is_json_and_a_table(described: AuditResult) -> None:
    values = json.loads(json.dumps(described.as_dict()))
    assert values["allowed"] == described.allowed and values["limits"] == {"max_presence_mcc": 0.3, "max_low_mcc": 0.1}
    assert {"field", "probe", "mcc", "low", "high"} == set(values["table"][0])
    text = described.summary()
    assert "refused: text:" in text and "shortcut: travel_alteration:" in text


def _field(present: np.ndarray, values: np.ndarray) -> FieldFeatures:
    return FieldFeatures(present, np.column_stack([present, values]).astype(float), np.empty((len(present), 0)))


def _groups(num_rows: int) -> np.ndarray:
    return np.array([f"g{n // 2}" for n in range(num_rows)])


def test_group_that_repeats_a_value_tells_nothing() -> None:
    """A value that only identifies a place is learned by ungrouped folds, not by these."""
    labels = np.repeat(np.random.default_rng(0).integers(0, 2, 100), 4)
    groups = np.repeat([f"g{n}" for n in range(100)], 4)
    field = _field(np.ones(400, bool), np.repeat(np.random.default_rng(1).normal(size=100), 4))
    assert not audit_features({"gps": field}, labels, groups, num_samples=100).flagged


def test_field_of_nan_is_absent_and_refused() -> None:
    labels = np.tile([0, 0, 1, 1], 20)
    field = _field(np.zeros(80, bool), np.full(80, np.nan))
    result = audit_features({"gps": field}, labels, _groups(80), num_samples=50)
    assert result.absent == ["gps"] and result.refused == {"gps": "no row has a value"} and not result.table


def test_presence_alone_is_refused_above_its_limit() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 200), 2)
    present = np.where(rng.random(400) < 0.25, labels == 0, labels == 1)
    result = audit_features({"weather": _field(present, present)}, labels, _groups(400), num_samples=50)
    assert "whether it is there" in result.refused["weather"]


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 1] * 10, ["a"] * 20, "all 20 rows are in one group, 'a'"),
        ([1] * 20, list("abcdefghijklmnopqrst"), "20 Roadwork"),
        ([0] + [1] * 19, list("abcdefghijklmnopqrst"), "None rows lie in 1 group"),
    ],
)
def test_rows_that_cannot_be_audited_are_refused(labels: list[int], groups: list[str], message: str) -> None:
    field = _field(np.ones(20, bool), np.arange(20))
    with pytest.raises(ValueError, match=message):
        audit_features({"gps": field}, np.array(labels), np.array(groups))


@pytest.mark.parametrize("quality", [30, 50, 75, 88, 95])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    assert jpeg_quality(buffer) == pytest.approx(quality, abs=1.5)


def test_other_formats_have_no_jpeg_quality() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    assert np.isnan(jpeg_quality(buffer))


def _refused() -> Dataset:
    raise AssertionError("no audit is needed")


def test_no_metadata_asks_for_no_audit() -> None:
    choice = resolve_metadata_fields([], [], _refused)
    assert (choice.fields, choice.record) == ([], {})


@pytest.mark.parametrize(("asked", "allow"), [(["wether"], []), (["auto"], ["txt"]), (["auto", "text"], [])])
def test_unknown_fields_are_named(asked: list[str], allow: list[str]) -> None:
    with pytest.raises(ValueError, match="is none of gps, weather, daytime, scene, text"):
        resolve_metadata_fields(asked, allow, _refused)


@pytest.fixture
def audit(described: AuditResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natix_roadwork.data.leak_audit.audited_fields", lambda rows, **options: described)


@pytest.mark.usefixtures("audit")
def test_auto_takes_what_passed_and_what_is_allowed() -> None:
    choice = resolve_metadata_fields(["auto"], [], list)
    assert choice.fields == ["gps", "weather", "daytime", "scene"]
    assert choice.record["asked"] == "auto" and choice.record["overridden"] == {}
    leaky = resolve_metadata_fields("auto", ["text"], list)
    assert leaky.fields[-1] == "text" and "MCC" in leaky.record["overridden"]["text"]
    json.dumps(leaky.record)


@pytest.mark.usefixtures("audit")
def test_named_field_that_leaks_needs_to_be_allowed() -> None:
    with pytest.raises(
        ValueError, match=r"names 'text', which the leak audit refuses.*allow_leaking_fields: \[text\]"
    ):
        resolve_metadata_fields(["weather", "text"], [], list)
    assert resolve_metadata_fields(["weather", "text"], ["text"], list).fields == ["weather", "text"]


def test_photos_without_metadata_leave_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = leaking_rows(tmp_path / "d", num_rows=60)
    empty = {"latitude": np.nan, "longitude": np.nan, "weather": [], "daytime": [], "scene": [], "text": ""}
    bare = Dataset.from_list([row | empty for row in rows], features=rows.features)
    choice = resolve_metadata_fields("auto", [], lambda: bare, num_samples=20)
    assert choice.fields == [] and set(choice.record["audit"]["refused"].values()) == {"no row has a value"}
    assert "leaves no metadata" in caplog.text


def test_a_field_missing_in_all_rows_that_a_fold_learns_from_is_scored() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    values = np.full((40, 2), np.nan)
    values[:, 0] = rng.normal(size=40)
    values[:4, 1] = 1.0  # only the first fold's held-out rows have any
    folds = [(np.arange(8, 40), np.arange(8)), (np.arange(32), np.arange(32, 40))]
    field = FieldFeatures(np.isfinite(values[:, 1]), values, np.empty((40, 0)))
    for probe in PROBES:
        probabilities = value_probabilities(field, labels, folds, probe, seed=0)
        assert np.isfinite(probabilities[[*range(8), *range(32, 40)]]).all()

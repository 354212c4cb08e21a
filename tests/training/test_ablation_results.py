import dataclasses
from pathlib import Path

import numpy as np
import pytest

from natix_roadwork.data.predictions import Predictions
from natix_roadwork.metrics import mcc, paired_difference
from natix_roadwork.runs import RunRecorder
from natix_roadwork.training.ablation_results import (
    COMMANDS,
    GAINS,
    LOSES,
    NOT_HERE,
    WITHIN,
    difference_of,
    elsewhere_line,
    markdown_table,
    measured_line,
    metrics_of,
    verdict_of,
)
from natix_roadwork.training.ablation_rows import AblationRow


NUM_ROWS = 60
LABELS = np.arange(NUM_ROWS) % 2
ROW = AblationRow("without_pyramid", "5 pyramid", "pyramid True -> False", has_component=False)


def training(name: str, num_wrong: int, seed: int = 0) -> Predictions:
    """Answers of which as many are wrong."""
    margins = np.where(LABELS, 2.0, -2.0)
    margins[np.random.default_rng(seed).permutation(NUM_ROWS)[:num_wrong]] *= -1
    ids = np.array([f"row:{row}" for row in range(NUM_ROWS)])
    return Predictions(
        member=name,
        row_ids=ids,
        labels=LABELS,
        groups=np.array([f"video {row // 3}" for row in range(NUM_ROWS)]),
        splits=np.full(NUM_ROWS, "train"),
        logits=np.stack([np.zeros(NUM_ROWS), margins], 1).astype(np.float32),
        embeddings=np.zeros((NUM_ROWS, 0), np.float32),
        folds=np.zeros(NUM_ROWS, np.int64),
        transforms=np.zeros(NUM_ROWS, np.int64),
    )


def mcc_of(found: Predictions) -> float:
    return mcc(found.labels, found.margins > 0)


def test_one_training_is_the_paired_bootstrap() -> None:
    a, b = training("a", 6, 1), training("b", 15, 2)
    plain = paired_difference(LABELS, a.probabilities, b.probabilities, groups=a.groups, seed=7)
    assert difference_of([a], [b], seed=7) == plain
    assert plain.value == pytest.approx(mcc_of(a) - mcc_of(b)) and metrics_of([a])["mcc"]["value"] == mcc_of(a)


def test_seeds_widen_the_interval_by_their_spread() -> None:
    first, second = [training("a", 6, 1), training("a1", 12, 3)], [training("b", 15, 2), training("b1", 14, 4)]
    found = difference_of(first, second, seed=7)
    pooled = paired_difference(
        np.tile(LABELS, 2),
        np.concatenate([one.probabilities for one in first]),
        np.concatenate([one.probabilities for one in second]),
        groups=np.tile(first[0].groups, 2),
        seed=7,
    )
    by_seed = [mcc_of(a) - mcc_of(b) for a, b in zip(first, second, strict=True)]
    error = np.sqrt(pooled.standard_error**2 + np.var(by_seed, ddof=1) / 2)
    assert found.standard_error == pytest.approx(error) and error > pooled.standard_error
    assert found.value == pooled.value == pytest.approx(np.mean(by_seed), abs=0.02)
    assert found.low == pytest.approx(pooled.low - 1.96 * (error - pooled.standard_error))
    assert found.high == pytest.approx(pooled.high + 1.96 * (error - pooled.standard_error))


def test_equal_seeds_add_no_spread() -> None:
    a, b = training("a", 6, 1), training("b", 15, 2)
    twice = difference_of([a, a], [b, b], seed=7)
    assert dataclasses.asdict(twice) == pytest.approx(dataclasses.asdict(difference_of([a], [b], seed=7)))


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.11, GAINS), (0.1, WITHIN), (0.0, WITHIN), (-0.1, WITHIN), (-0.11, LOSES)]
)
def test_verdict_counts_standard_errors(value: float, verdict: str) -> None:
    assert verdict_of({"value": value, "standard_error": 0.1}) == verdict


def test_difference_is_what_the_component_brings() -> None:
    found = {"default": [training("default", 4)], "without_pyramid": [training("without_pyramid", 16, 1)]}
    line = measured_line(ROW, "default", found, "")
    assert line["difference_of"] == ["default", "without_pyramid"] and line["difference"]["value"] > 0.3
    assert line["verdict"] == GAINS and line["mcc"]["value"] == mcc_of(found["without_pyramid"][0])
    turned = measured_line(dataclasses.replace(ROW, has_component=True), "default", found, "")
    assert turned["difference"]["value"] == -line["difference"]["value"] and turned["verdict"] == LOSES


def test_table_has_a_line_a_row() -> None:
    found = {"default": [training("default", 4)], "without_pyramid": [training("without_pyramid", 4)]}
    lines = [measured_line(ROW, "default", found, "a|b"), elsewhere_line(AblationRow("tta", "19 TTA", "x"), None)]
    header, rule, first, second = markdown_table(lines).splitlines()
    assert header.startswith("| component | row |") and rule.count("---") == header.count("|") - 1
    mcc_text = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**lines[0]["mcc"])
    assert first == (
        f"| 5 pyramid | `without_pyramid` | pyramid True -> False | {mcc_text} | `default` | 0.00 [0.00, 0.00] | 0.000 "
        f"| {WITHIN}; a\\|b |"
    )
    assert NOT_HERE in second and "recipes/tta.py" in second and "--more_results" in second


def test_other_recipes_are_there() -> None:
    assert all((Path(__file__).parents[2] / script).is_file() for script in COMMANDS.values())


def test_figures_of_other_recipes_are_taken_from_their_result(tmp_path: Path) -> None:
    names = ("tta", "adapters", "ensemble")
    tta, adapters, ensemble = (AblationRow(name, "19 x", "x", against=None, kind="elsewhere") for name in names)
    interval = {"value": 0.8, "low": 0.7, "high": 0.9}
    with RunRecorder({}, seed=0) as recorder:
        recorder.metrics = {"dev": {"mcc": interval}}
        path = recorder.write(tmp_path / "plain")
        assert elsewhere_line(tta, str(path))["mcc"] == interval
        assert "holds no difference" in elsewhere_line(tta, str(path))["note"]
        difference = {"value": 0.02, "low": -0.01, "high": 0.05, "standard_error": 0.015}
        recorder.details = {"difference": {"value": 0.02, "low": 0.005, "high": 0.035}}
        recorder.details |= {"difference_to_base": {"mcc": difference | {"value": -0.02}}}
        recorder.details |= {"ensemble": {"method": "mean"}, "difference_to_best_member": {"mean": difference}}
        path = str(recorder.write(tmp_path / "paired"))
    lines = [elsewhere_line(row, path) for row in (tta, adapters, ensemble)]
    assert [line["verdict"] for line in lines] == [GAINS, LOSES, GAINS] and lines[2]["difference"] == difference
    assert lines[0]["difference"]["standard_error"] == pytest.approx(0.03 / 3.92)
    with pytest.raises(ValueError, match=r"absent\.json does not exist"):
        elsewhere_line(tta, str(tmp_path / "absent.json"))


def test_the_report_has_no_gain_to_measure() -> None:
    line = elsewhere_line(AblationRow("report", "20 error report", "x", against=None, kind="elsewhere"), None)
    assert "no gain" in line["note"] and line["difference"] is None


def test_differences_of_rows_out_of_fold_are_widened() -> None:
    a, b = (
        dataclasses.replace(one, folds=np.arange(len(one)) % 5) for one in (training("a", 6, 1), training("b", 15, 2))
    )
    plain = paired_difference(LABELS, a.probabilities, b.probabilities, groups=a.groups, seed=7)
    found = difference_of([a], [b], seed=7)
    assert found.standard_error == pytest.approx(1.5 * plain.standard_error)
    assert found.high - found.value == pytest.approx(1.5 * (plain.high - plain.value))

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evaluate
import numpy as np
import pytest
from transformers import EvalPrediction

from natix_roadwork.calibration import refined_loss
from natix_roadwork.metrics import binary_metrics
from natix_roadwork.training.metric import REPORTED, RoadworkMetric, compute_metrics, roadwork_probabilities


LOGITS = np.array([[2.0, -1.0], [0.5, 0.25], [-1.0, 3.0], [0.0, 1.0], [1.0, 1.0]], dtype=np.float32)
LABELS = np.array([0, 1, 1, 1, 0])


@pytest.fixture
def expected() -> dict[str, float]:
    margins = LOGITS[:, 1].astype(float) - LOGITS[:, 0]
    values = binary_metrics(LABELS, 1.0 / (1.0 + np.exp(-margins)))
    values["refined_loss"] = refined_loss(margins, LABELS)
    return {name: pytest.approx(values[name]) for name in (*REPORTED, "refined_loss")}


def test_logits_and_probabilities_give_the_same(expected: dict[str, float]) -> None:
    assert RoadworkMetric().compute(predictions=LOGITS, references=LABELS) == expected
    assert RoadworkMetric().compute(predictions=roadwork_probabilities(LOGITS), references=LABELS) == expected


def test_it_is_an_evaluate_metric_that_collects_batches(expected: dict[str, float]) -> None:
    metric = RoadworkMetric()
    assert isinstance(metric, evaluate.Metric)
    metric.add_batch(predictions=LOGITS[:2], references=LABELS[:2])
    metric.add(prediction=LOGITS[2], reference=LABELS[2])
    metric.add_batch(predictions=LOGITS[3:], references=LABELS[3:])
    assert metric.compute() == expected
    assert metric.compute(predictions=[0.9, 0.1], references=[1, 0])["mcc"] == pytest.approx(1.0)


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, float]) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.chdir(tmp_path)
    assert RoadworkMetric().compute(predictions=LOGITS, references=LABELS) == expected
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_do_not_wait_for_each_other(expected: dict[str, float]) -> None:
    metrics = [RoadworkMetric() for _ in range(8)]
    for metric in metrics:
        metric.add_batch(predictions=LOGITS, references=LABELS)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda metric: metric.compute(), metrics)) == [expected] * 8


def test_the_global_random_state_stays() -> None:
    np.random.seed(5)
    first = np.random.random()
    np.random.seed(5)
    RoadworkMetric().compute(predictions=LOGITS, references=LABELS)
    assert np.random.random() == first


def test_trainer_function_takes_logits_or_a_tuple(expected: dict[str, float]) -> None:
    assert compute_metrics(EvalPrediction(predictions=LOGITS, label_ids=LABELS)) == expected
    assert compute_metrics(EvalPrediction(predictions=(LOGITS, np.zeros((5, 3))), label_ids=LABELS)) == expected


def test_soft_labels_count_as_their_larger_entry(expected: dict[str, float]) -> None:
    soft = np.stack([1.0 - LABELS, LABELS], axis=1) * 0.8 + 0.1
    assert compute_metrics(EvalPrediction(predictions=LOGITS, label_ids=soft)) == expected


def test_undefined_metrics_are_nan_and_stay_out_of_the_trainers_log() -> None:
    labels = np.zeros(5, dtype=int)
    values = RoadworkMetric().compute(predictions=LOGITS, references=labels)
    assert math.isnan(values["auc"]) and math.isnan(values["fnr"]) and math.isnan(values["refined_loss"])
    logged = compute_metrics(EvalPrediction(predictions=LOGITS, label_ids=labels))
    assert set(logged) == {"mcc", "accuracy", "ece"}
    assert logged["mcc"] == 0.0 and logged["accuracy"] == pytest.approx(0.6)


def test_certain_probabilities_have_a_finite_loss() -> None:
    values = RoadworkMetric().compute(predictions=[1.0, 0.0, 0.0], references=[1, 0, 1])
    assert 0.1 < values["refined_loss"] < 1.0


def test_probabilities_are_stable_and_symmetric() -> None:
    logits = np.array([[0.0, 0.0], [0.0, 1000.0], [1000.0, 0.0], [0.0, math.log(3.0)]])
    assert roadwork_probabilities(logits) == pytest.approx([0.5, 1.0, 0.0, 0.75])


@pytest.mark.parametrize(
    ("logits", "message"), [([[0.0, 1.0], [np.nan, 0.0]], r"logits\[1\]"), ([[0.0, 1.0, 2.0]], r"shape \(1, 3\)")]
)
def test_bad_logits_are_named(logits: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roadwork_probabilities(logits)

"""The metric of every evaluation: MCC, accuracy, missed roadwork, AUC and calibration error, without the Hub.

`RoadworkMetric` is an `evaluate.Metric` built from this file, so nothing is fetched; predictions stay in memory, so no
cache file is written or locked, also with several processes. `compute_metrics` hands it to `transformers.Trainer`.
"""

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray
from transformers import EvalPrediction

from natix_roadwork.calibration import refined_loss
from natix_roadwork.metrics import binary_metrics


REPORTED = ("mcc", "accuracy", "fnr", "auc", "ece")
LARGEST_MARGIN = 36.0  # where a probability in float64 is as good as 0 or 1
DESCRIPTION = (
    "Roadwork against none at the cut 0.5: MCC, accuracy, false-negative rate, AUC, calibration error; and the log loss "
    "that is left at the best temperature."
)
INPUTS = """
Args:
    predictions: `(N,)` probabilities of roadwork, or `(N, 2)` logits (None, Roadwork).
    references: `(N,)` true classes, 0 None and 1 Roadwork.
Returns:
    mcc, accuracy, fnr, auc, ece, refined_loss; NaN where undefined (auc and refined_loss with one class, fnr without
    roadwork).
"""


class RoadworkMetric(evaluate.Metric):
    """Metrics of `natix_roadwork.metrics` in the shape of the evaluate library.

    Every process computes on the predictions it was given; gathering them first is the Trainer's work.
    """

    def __init__(self) -> None:
        """Keep predictions in memory and leave the global random state alone."""
        super().__init__(keep_in_memory=True, seed=0)

    def _build_data_dir(self) -> str:
        return ""  # nothing is cached, so no folder is made: a read-only home works

    def _info(self) -> evaluate.MetricInfo:
        references = datasets.Value("int64")
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=[
                datasets.Features({"predictions": number, "references": references}),
                datasets.Features({"predictions": datasets.Sequence(number, length=2), "references": references}),
            ],
        )

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        predictions = np.asarray(predictions, dtype=np.float64)
        probabilities = predictions if predictions.ndim == 1 else roadwork_probabilities(predictions)
        values = binary_metrics(references, probabilities)
        # Of one class alone a sharp enough temperature makes any loss: there is nothing to tell apart.
        both = len(np.unique(references)) == 2
        values["refined_loss"] = refined_loss(_margins(predictions), references) if both else None
        return {name: float("nan") if values[name] is None else values[name] for name in (*REPORTED, "refined_loss")}


def _margins(predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logit of Roadwork minus logit of None, from logits `(N, 2)` or probabilities `(N,)`."""
    if predictions.ndim == 2:
        return predictions[:, 1] - predictions[:, 0]
    with np.errstate(divide="ignore"):
        return np.clip(np.log(predictions) - np.log1p(-predictions), -LARGEST_MARGIN, LARGEST_MARGIN)


def roadwork_probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    """Turn logits `(N, 2)` into probabilities of roadwork `(N,)`, in float64.

    Raises:
        ValueError: If the shape is another or a logit is not finite; the row is named.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise ValueError(f"logits have shape {logits.shape}; they need two columns, None and Roadwork")
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise ValueError(f"logits[{bad[0]}]={logits[bad[0]].tolist()} is not finite ({len(bad)} such rows)")
    return 0.5 * (1.0 + np.tanh(0.5 * (logits[:, 1] - logits[:, 0])))


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the metrics of one evaluation for `transformers.Trainer`.

    Args:
        prediction: `predictions` are logits `(N, 2)` or a tuple that starts with them; `label_ids` are classes `(N,)` or
            soft labels `(N, 2)`, whose larger entry counts (equal entries count as None).

    Returns:
        mcc, accuracy, fnr, auc, ece and refined_loss; an undefined one is left out, so that the Trainer's log stays plain JSON.
    """
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    labels = np.asarray(prediction.label_ids)
    values = RoadworkMetric().compute(
        predictions=np.asarray(logits, dtype=np.float64),
        references=labels.argmax(axis=1) if labels.ndim == 2 else labels,
    )
    return {name: value for name, value in values.items() if not np.isnan(value)}

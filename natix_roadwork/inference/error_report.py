"""The error report as numbers: how often a member is wrong, on which slices, and on which rows most.

In come predictions, the rows they speak of, and what is at hand of the run: its record, its model. Out goes `ReportData`,
which `report_page.py` turns into a page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.calibration import fit_temperature
from natix_roadwork.data.brightness import brightness_of
from natix_roadwork.data.predictions import LEARNED_FROM, Predictions
from natix_roadwork.inference.curves import (
    CalibrationTest,
    ReliabilityBin,
    ThresholdCurve,
    calibration_test,
    reliability_bins,
    threshold_curve,
)
from natix_roadwork.inference.report_charts import KINDS, ErrorMap
from natix_roadwork.inference.report_rows import run_warnings, training_settings
from natix_roadwork.inference.row_evidence import EvidenceReader
from natix_roadwork.inference.row_slices import row_slices
from natix_roadwork.inference.slice_scores import (
    Slice,
    SliceScore,
    adjusted,
    score_slices,
    with_adjusted,
)
from natix_roadwork.inference.suggestions import Suggestion, suggest
from natix_roadwork.inference.worst_rows import WorstRow, worst_lines, worst_row_cards
from natix_roadwork.metrics import CUT, metrics_with_intervals
from natix_roadwork.runs import RunResult
from natix_roadwork.training.gps_inputs import gps_of


# The model's probability may differ this much from the predictions' by rounding alone.
SAME_MODEL = 0.02

Metrics = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class ReportData:
    """Everything the page says.

    Attributes:
        member: Name of the member.
        dataset_name: The data set.
        splits: Splits the rows come from.
        learned_from: Splits whose labels trained the member or chose its epoch.
        num_rows: Rows.
        num_positives: Roadwork rows.
        num_groups: Groups of rows that belong together.
        metrics: Every metric with its interval; the MCC is None where the rows have one label only.
        baselines: Metrics of each baseline of the run on the same split, by name.
        ablation: Rows of an ablation table, `details.ablation` of its result; empty without one.
        confusion: Counts by `tp`, `fp`, `tn`, `fn`.
        reliability: Points of the reliability curve.
        threshold: MCC over the cut.
        calibration: Test of the probabilities.
        calibration_p: Its p-value, adjusted together with those of the slices.
        temperature: What the margins would have to be divided by for the smallest log loss on these rows.
        scores: All slices, by dimension.
        undivided: Dimensions in which all rows have one value, or none.
        num_tests: Tests that the p-values are adjusted for.
        worst: Rows with the largest log loss.
        errors: Rows with coordinates; None without any.
        suggestions: What to try, as hypotheses.
        unanswered: Slices that stand out without a recipe key that answers to them.
        warnings: What a reader must know.
        seed: Seed of samples, permutations and regions.
    """

    member: str
    dataset_name: str
    splits: list[str]
    learned_from: list[str]
    num_rows: int
    num_positives: int
    num_groups: int
    metrics: Metrics
    baselines: dict[str, Metrics]
    ablation: list[dict[str, Any]]
    confusion: dict[str, int]
    reliability: list[ReliabilityBin]
    threshold: ThresholdCurve
    calibration: CalibrationTest
    calibration_p: float | None
    temperature: float
    scores: list[SliceScore]
    undivided: list[str]
    num_tests: int
    worst: list[WorstRow]
    errors: ErrorMap | None
    suggestions: list[Suggestion]
    unanswered: list[SliceScore]
    warnings: list[str] = field(default_factory=list)
    seed: int = 0

    def tables(self) -> dict[str, list[SliceScore]]:
        """Return the slices of each dimension, in order."""
        return {
            name: [score for score in self.scores if score.dimension == name]
            for name in dict.fromkeys(score.dimension for score in self.scores)
        }


def build_report(
    predictions: Predictions,
    rows: Dataset,
    *,
    dataset_name: str = "",
    result: RunResult | None = None,
    ablation: Sequence[Mapping[str, Any]] = (),
    model: str | None = None,
    text_encoder_id: str = "embedded:all-minilm-l6-v2",
    worst_rows: int = 20,
    seed: int = 0,
    warnings: Sequence[str] = (),
    progress: bool = True,
) -> ReportData:
    """Compute everything the page says.

    Args:
        predictions: One line for each of N photos.
        rows: Their rows of `load_rows`, in the same order (`report_rows.matching_rows`).
        dataset_name: Name of the data set, for the page.
        result: Record of the run that made the member: baselines, warnings.
        ablation: `details.ablation` of a result of `recipes/ablate.py`.
        model: Folder or Hub id of the model; it is run on the worst rows, to show what it looked at.
        text_encoder_id: Reads the texts of those rows, where the model wants them.
        worst_rows: Most rows shown with their photo, up to 40.
        seed: Seed of samples, permutations and regions.
        warnings: What a reader must know besides.
        progress: Whether progress bars are shown.

    Raises:
        ValueError: If lines and rows do not fit, or a photo or the model cannot be read.
    """
    _check(predictions, rows)
    labels, probabilities, groups = predictions.labels, predictions.probabilities, predictions.groups
    decisions = probabilities > CUT
    chosen = worst_lines(predictions, worst_rows)
    reader = EvidenceReader(model, rows.select(chosen), text_encoder_id) if model and len(chosen) else None
    cards = worst_row_cards(predictions.select(chosen), rows.select(chosen), reader, progress)
    slices, undivided = row_slices(rows, brightness_of(rows, progress), seed=seed)
    scores = score_slices(labels, decisions, groups, slices, seed)
    calibration = calibration_test(labels, probabilities, groups)
    *of_slices, calibration_p = adjusted([*(score.p_value for score in scores), calibration.p_value])
    scores = with_adjusted(scores, of_slices)
    temperature = fit_temperature(predictions.margins, labels)
    suggestions, unanswered = suggest(scores, calibration, calibration_p, temperature, training_settings(result))
    splits = sorted(set(predictions.splits.tolist()))
    return ReportData(
        member=predictions.member,
        dataset_name=dataset_name,
        splits=splits,
        learned_from=list(predictions.record.get(LEARNED_FROM, [])),
        num_rows=len(labels),
        num_positives=int(labels.sum()),
        num_groups=len(set(groups.tolist())),
        metrics=_metrics(labels, probabilities, groups, seed),
        baselines=_baselines(result, splits),
        ablation=[dict(row) for row in ablation],
        confusion=_confusion(labels, decisions),
        reliability=reliability_bins(labels, probabilities, groups, seed),
        threshold=threshold_curve(labels, predictions.margins, groups, seed),
        calibration=calibration,
        calibration_p=calibration_p,
        temperature=temperature,
        scores=scores,
        undivided=undivided,
        num_tests=sum(value is not None for value in [*of_slices, calibration_p]),
        worst=cards,
        errors=_error_map(rows, slices, labels, decisions),
        suggestions=suggestions,
        unanswered=unanswered,
        warnings=list(dict.fromkeys([*run_warnings(predictions, result), *warnings, *_model_warnings(cards, reader)])),
        seed=seed,
    )


def _check(predictions: Predictions, rows: Dataset) -> None:
    if not len(predictions) or len(rows) != len(predictions):
        raise ValueError(f"{len(predictions)} lines of {predictions.member!r} for {len(rows)} rows; give one a row")
    pairs = zip(predictions.row_ids.tolist(), rows["row_id"][:], strict=True)
    for line, (predicted, row_id) in enumerate(pairs):
        if predicted != row_id:
            raise ValueError(
                f"line {line} of {predictions.member!r} is row {predicted!r}, the rows have {row_id!r} there"
            )


def _metrics(labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: NDArray, seed: int) -> Metrics:
    metrics = metrics_with_intervals(labels, probabilities, groups=groups, seed=seed)
    if len(set(labels.tolist())) == 1:
        metrics["mcc"] = {"value": None, "low": None, "high": None}
    return metrics


def _baselines(result: RunResult | None, splits: Sequence[str]) -> dict[str, Metrics]:
    """Return the baselines' metrics on the split of the report; none where it mixes splits."""
    if result is None or len(splits) != 1:
        return {}
    return {name: metrics[splits[0]] for name, metrics in result.baselines.items() if splits[0] in metrics}


def _confusion(labels: NDArray[np.int64], decisions: NDArray[np.bool_]) -> dict[str, int]:
    pairs = {"tp": (1, True), "fp": (0, True), "tn": (0, False), "fn": (1, False)}
    return {name: int(((labels == label) & (decisions == made)).sum()) for name, (label, made) in pairs.items()}


def _error_map(
    rows: Dataset, slices: Sequence[Slice], labels: NDArray[np.int64], decisions: NDArray[np.bool_]
) -> ErrorMap | None:
    gps = gps_of(rows)
    known = ~np.isnan(gps).any(axis=1)
    if not known.any():
        return None
    kinds = np.select(
        [~decisions & (labels == 0), decisions & (labels == 1), decisions & (labels == 0)],
        list(KINDS)[:3],
        list(KINDS)[3],
    )
    regions = np.full(len(gps), "", dtype=object)
    for slice_ in slices:
        if slice_.dimension == "GPS region":
            regions[slice_.mask] = slice_.value
    return ErrorMap(gps[known], kinds[known], regions[known].astype(str))


def _model_warnings(cards: Sequence[WorstRow], reader: EvidenceReader | None) -> list[str]:
    found = (
        []
        if reader is None
        else [
            f"the model reads {name} where given; the pictures of the worst rows show its answer without"
            for name in reader.left_out
        ]
    )
    gaps = [abs(card.probability - card.evidence.probability) for card in cards if card.evidence]
    if not gaps or max(gaps) <= SAME_MODEL:
        return found
    return [
        *found,
        f"the model that was run on the worst rows gives probabilities up to {max(gaps):.2f} from the predictions'; views "
        "and evidence are that model's, which may not be the member's",
    ]

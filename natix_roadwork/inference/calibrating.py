"""A calibrated copy of a saved model: held-out predictions in, a folder whose answers are best cut at 0.5 out.

`recipes/calibrate.py` calls `run_calibration`. What the map of the margin brings is scored out of fold; the map that goes
into the last layer is fitted on all held-out rows.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.calibration import (
    AffineMap,
    check_prior,
    estimate_prior,
    fit_platt,
    fit_temperature,
    fold_into_classifier,
    shift_prior,
)
from natix_roadwork.data.folds import require_both_classes, stratified_group_folds
from natix_roadwork.data.predictions import LEARNED_FROM, NOT_OUT_OF_FOLD, ORIGINAL, Predictions, read_predictions
from natix_roadwork.inference.member import ALL_LEARNED, Member, load_member
from natix_roadwork.metrics import metrics_with_intervals, paired_difference
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.runs import RESULT_NAME, Metrics, RunRecorder, RunResult, interval_text
from natix_roadwork.threshold import count_ties, cut_at_half, fit_mcc_cut


AS_IT_WAS = "as it was"
CALIBRATED_FROM = "calibrated_from"  # in the details of a copy's record: of which model, trained by which settings
HELD_OUT = "held_out"
SHOWN = ("mcc", "mcc_balanced", "ece")

FloatArray = NDArray[np.float64]
Fit = Callable[[FloatArray, NDArray[np.int64], NDArray[np.str_]], AffineMap]


@dataclass
class CalibrateArguments:
    """Which model is calibrated, on which predictions, and for which share of roadwork.

    Attributes:
        model: Folder or Hub id of the model.
        predictions: Its file of `recipes/predict.py`; rows that taught the model and the split `test` are left out.
        method: `cut` = the best cut for MCC lies at 0.5; `platt` = probabilities are shares, by a line of the margin;
            `temperature` = the same by a factor alone, which leaves the decisions as they are.
        target_prior: Share of roadwork where the model will be used; None = that of the rows.
        target_predictions: The model's predictions of photos from where it will be used: their share of roadwork is
            estimated by EM, without their labels, and taken as `target_prior`.
        num_folds: Grouped folds in which the calibration is scored.
        output_dir: Folder of the calibrated model and its `result.json`.
    """

    model: str = field(metadata={"help": "Folder or Hub id of the model."})
    predictions: str = field(metadata={"help": "The model's predictions file, of held-out rows."})
    method: Literal["cut", "platt", "temperature"] = field(default="cut", metadata={"help": "What 0.5 shall mean."})
    target_prior: float | None = field(default=None, metadata={"help": "Share of roadwork in use; null = the rows'."})
    target_predictions: str | None = field(
        default=None, metadata={"help": "Predictions from where it will be used; estimates that share."}
    )
    num_folds: int = field(default=5, metadata={"help": "Grouped folds of the score."})
    output_dir: str = field(default="runs/calibrated", metadata={"help": "Folder of the calibrated model."})
    seed: int = field(default=42, metadata={"help": "Seed of folds and bootstrap samples."})

    def __post_init__(self) -> None:
        """Check the values before any file is read."""
        if self.target_prior is not None:
            check_prior("target_prior", self.target_prior)
            if self.target_predictions is not None:
                raise ValueError("target_prior and target_predictions both name the share of roadwork; give one")
        if self.num_folds < 2:
            raise ValueError(f"num_folds={self.num_folds} must be at least 2")
        if Path(self.output_dir).resolve() == Path(self.model).resolve():
            raise ValueError(f"output_dir={self.output_dir!r} is the model's own folder; choose another")


def run_calibration(arguments: CalibrateArguments) -> RunResult:
    """Score a calibration out of fold, fit it on all held-out rows, and save the model with it in its last layer.

    Raises:
        ValueError: If the predictions are another model's, no row of both classes is held out, or a fold lacks a class.
    """
    with RunRecorder(asdict(arguments), arguments.seed) as recorder:
        member = load_member(arguments.model)
        given = _of_model(read_predictions(arguments.predictions), member, arguments)
        rows, left_out = _held_out(given)
        prior = _target_prior(arguments, member, rows)

        def fit(margins: FloatArray, labels: NDArray[np.int64], groups: NDArray[np.str_]) -> AffineMap:
            return fit_map(margins, labels, groups, arguments.method, prior, arguments.seed)

        after = _out_of_fold(rows, fit, arguments.num_folds, arguments.seed)
        mapping = fit(rows.margins, rows.labels, rows.groups)
        fold_into_classifier(member.model, mapping.scale, mapping.offset)
        member.model.save_pretrained(arguments.output_dir)
        RoadworkImageProcessor.from_pretrained(arguments.model).save_pretrained(arguments.output_dir)
        _record(recorder, arguments, member, rows, after)
        recorder.warnings += left_out
        recorder.details |= {"map": asdict(mapping), "target_prior": prior}
        recorder.write(arguments.output_dir)
        return recorder.result()


def fit_map(
    margins: FloatArray,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    method: str,
    target_prior: float | None,
    seed: int = 0,
) -> AffineMap:
    """Fit the map of the margin.

    Args:
        margins: `(N,)` of rows that were not trained on.
        labels: `(N,)` 0 or 1, of both classes.
        groups: `(N,)` group names.
        method: `cut`, `platt` or `temperature`, see `CalibrateArguments`.
        target_prior: Share of roadwork in use; None = that of the rows.
        seed: Seed of bootstrap samples.
    """
    if method == "cut":
        cut = fit_mcc_cut(margins, labels, groups, target_prior, seed=seed)
        return cut_at_half(margins, labels, cut, target_prior)
    fitted = fit_platt(margins, labels) if method == "platt" else AffineMap(1.0 / fit_temperature(margins, labels))
    return fitted if target_prior is None else fitted.then(shift_prior(float(labels.mean()), target_prior))


def calibration_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a result: MCC and calibration error before and after, out of fold, and what was done to the margin."""
    details = result.details
    lines = [f"{'[95 % interval], out of fold':30}" + "".join(f"{name:>26}" for name in SHOWN)]
    for name, metrics in ((AS_IT_WAS, result.baselines[AS_IT_WAS]), (details["method"], result.metrics)):
        lines.append(f"{name:30}" + "".join(f"{interval_text(metrics[HELD_OUT][metric]):>26}" for metric in SHOWN))
    gain, mapping = details["difference"], details["map"]
    prior = details["target_prior"]
    share = "that of the rows" if prior is None else f"{prior:.3f}"
    lines += [
        f"MCC after - before: {interval_text(gain['mcc'], '+')}, at 50/50 {interval_text(gain['mcc_balanced'], '+')}, paired",
        f"margin -> {mapping['scale']:.4g} * margin {mapping['offset']:+.4g}, for a share of roadwork of {share}; "
        f"{details['ties_at_half']} of {details['rows']} rows at exactly 0.5, decided as None",
        f"calibrated model, result.json: {output_dir}",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _of_model(predictions: Predictions, member: Member, arguments: CalibrateArguments) -> Predictions:
    """Check that the lines are this very model's, and take those of the photos as they are."""
    made_by = str(predictions.record.get("model_sha256"))
    if made_by != member.sha256 or predictions.record.get("adapters"):
        raise ValueError(
            f"predictions of member {predictions.member!r} are of the model {made_by[:12]} with adapters "
            f"{sorted(predictions.record.get('adapters') or [])}, model={arguments.model!r} is {member.sha256[:12]} without; "
            "predict with that folder, or merge the adapters and save"
        )
    return predictions.select(predictions.transforms == ORIGINAL)


def _held_out(predictions: Predictions) -> tuple[Predictions, list[str]]:
    final = (predictions.splits == "test") & (predictions.folds == NOT_OUT_OF_FOLD)
    left_out = [
        f"{count} rows left out: {what}"
        for count, what in (
            (int((~predictions.held_out).sum()), "the model has learned from them, or chose its epoch on them"),
            (int((predictions.held_out & final).sum()), "the split 'test' is for the final score"),
        )
        if count
    ]
    rows = predictions.select(predictions.held_out & ~final)
    if not len(rows):
        raise ValueError(
            f"predictions: no row to calibrate on; {'; '.join(left_out)}. Train with --selection_share 0.15, so that dev "
            "chooses no epoch, or predict other photos"
        )
    require_both_classes(rows.labels, "held-out rows")
    return rows, left_out


def _target_prior(arguments: CalibrateArguments, member: Member, rows: Predictions) -> float | None:
    if arguments.target_predictions is None:
        return arguments.target_prior
    target = _of_model(read_predictions(arguments.target_predictions), member, arguments)
    return estimate_prior(fit_platt(rows.margins, rows.labels)(target.margins), float(rows.labels.mean()))


def _out_of_fold(rows: Predictions, fit: Fit, num_folds: int, seed: int) -> FloatArray:
    """Return `(N,)` margins, each mapped by what was fitted on other groups."""
    margins = np.empty(len(rows))
    for others, held_out in stratified_group_folds(rows.labels, rows.groups, num_folds, seed):
        mapping = fit(rows.margins[others], rows.labels[others], rows.groups[others])
        margins[held_out] = mapping(rows.margins[held_out])
    return margins


def _record(
    recorder: RunRecorder, arguments: CalibrateArguments, member: Member, rows: Predictions, after: FloatArray
) -> None:
    sides = {AS_IT_WAS: rows.probabilities, arguments.method: 0.5 * (1.0 + np.tanh(0.5 * after))}
    scores: dict[str, Metrics] = {
        name: {HELD_OUT: metrics_with_intervals(rows.labels, likely, groups=rows.groups, seed=arguments.seed)}
        for name, likely in sides.items()
    }
    recorder.metrics, recorder.baselines = scores[arguments.method], {AS_IT_WAS: scores[AS_IT_WAS]}
    pair = (rows.labels, sides[arguments.method], sides[AS_IT_WAS])
    trained = member.trained
    # What recipes/predict.py asks of a model's record: which data it saw, split how, and which splits taught it.
    recorder.data = trained.data if trained else {}
    taught = trained.details.get(LEARNED_FROM, ALL_LEARNED) if trained else ALL_LEARNED
    recorder.details = {
        "method": arguments.method,
        "rows": len(rows),
        "ties_at_half": count_ties(after),
        "difference": {
            metric: asdict(paired_difference(*pair, groups=rows.groups, metric=metric, seed=arguments.seed))
            for metric in ("mcc", "mcc_balanced")
        },
        CALIBRATED_FROM: {"model_sha256": member.sha256, RESULT_NAME: trained.config if trained else None},
        LEARNED_FROM: sorted({*taught, *rows.splits.tolist()}),
    }

"""The fold recipe: one adapter for each fold of a target set, out-of-fold predictions, and what they are worth.

`recipes/finetune_folds.py` calls `finetune_folds` and prints `folds_table`. In `output_dir` it leaves `adapters/`
(`adapter_files.py` loads and merges them), `folds.json`, `oof.arrow` for the ensemble, and `result.json`.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from natix_roadwork.data.fold_intervals import fold_widening, widen_difference, widen_metrics
from natix_roadwork.data.predictions import Predictions, write_predictions
from natix_roadwork.metrics import metrics_with_intervals, paired_difference
from natix_roadwork.model.fast_attention import fast_attention
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.dark_rows import dark_figures
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetune_inputs import FinetuneInputs, fold_record, prepare_folds
from natix_roadwork.training.fold_predictions import predict
from natix_roadwork.training.fold_targets import FOLDS_NAME, OWN_SPLITS, TRANSDUCTIVE
from natix_roadwork.training.fold_training import FoldOutcome, check_settings, keep_settings, train_fold


logger = logging.get_logger(__name__)

OOF_NAME = "oof.arrow"
ADAPTERS = "adapters"
WORK = "work"
OUT_OF_FOLD = "out_of_fold"
COMPARED = ("mcc", "accuracy", "fnr", "auc")
UNMOVED = 1e-3  # a relative change below it is said to be none


def finetune_folds(settings: FinetuneArguments, args: RoadworkTrainingArguments) -> RunResult:
    """Train, judge and keep one adapter for each fold; a run that was killed goes on where it was.

    Args:
        settings: The base, the target, the folds, the adapter.
        args: How to train each fold.

    Returns:
        What `result.json` in `args.output_dir` holds.

    Raises:
        ValueError: If base, data, settings or an earlier run do not fit, or an adapter has not moved its base.
        ImportError: If QLoRA is asked for without bitsandbytes.
    """
    if args.resume_from_checkpoint:
        raise ValueError(
            f"resume_from_checkpoint={args.resume_from_checkpoint!r} names one checkpoint, but each fold has its own; a "
            "run that was stopped goes on by --existing_run resume"
        )
    output = Path(args.output_dir)
    config = dataclasses.asdict(settings) | args.to_dict() | {"world_size": args.world_size}
    with RunRecorder(config, args.seed) as recorder, fast_attention(args.fast_attention):
        _prepare_output(output, settings.existing_run, args)
        args.distributed_state.wait_for_everyone()  # before a process writes what another takes for an earlier run's
        check_settings(output / WORK, config)
        inputs = prepare_folds(settings, args)
        with args.main_process_first(desc="keeping the settings"):
            keep_settings(output / WORK, config)
        _say_what_comes(inputs)
        member = f"{inputs.base.identity.name}/{inputs.choice.kind}"
        base = predict(inputs.base.model, inputs, np.arange(len(inputs.target.rows)), args, inputs.base.identity.name)
        outcomes = [
            train_fold(
                inputs, settings, args, number, output / WORK / f"fold{number}", output / ADAPTERS / f"fold{number}"
            )
            for number in range(len(inputs.parts))
        ]
        oof = _out_of_fold(inputs, outcomes, member)
        if args.should_save:
            write_predictions(output / OOF_NAME, oof)
        _record(recorder, inputs, outcomes, oof, base)
        recorder.write(output)
        result = recorder.result()
    args.distributed_state.destroy_process_group()
    return result


def _prepare_output(output: Path, existing_run: str, args: RoadworkTrainingArguments) -> None:
    """Settle what happens to an earlier run's files."""
    with args.main_process_first(desc="looking for an earlier run"):
        names = (ADAPTERS, WORK, FOLDS_NAME, OOF_NAME, RESULT_NAME)
        found = [output / name for name in names if (output / name).exists()]
        if not found or existing_run == "resume":
            return
        if existing_run == "refuse":
            raise ValueError(
                f"output_dir={str(output)!r} holds {found[0].name} of an earlier run: go on with it by --existing_run "
                "resume, delete it by --existing_run overwrite, or choose another --output_dir"
            )
        if args.should_save:
            for path in found:
                logger.warning(f"Removed {path} of an earlier run.")
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _say_what_comes(inputs: FinetuneInputs) -> None:
    choice = inputs.choice
    logger.info(
        f"Adapter {choice.kind} ({choice.reason}): {choice.trainable:,} trainable parameters a fold; "
        f"{len(inputs.parts)} folds of {len(inputs.target.rows)} rows of {inputs.target.name} "
        f"in {len(set(inputs.target.groups.tolist()))} groups."
    )
    for warning in inputs.warnings:
        logger.warning(f"warning: {warning}")


def _out_of_fold(inputs: FinetuneInputs, outcomes: list[FoldOutcome], member: str) -> Predictions:
    """Join what each fold's model says of its held-out rows, in the order of the data set."""
    found = [outcome.predictions for outcome in outcomes]
    joined = {
        field.name: np.concatenate([getattr(part, field.name) for part in found])
        for field in dataclasses.fields(Predictions)
        if field.name not in ("member", "record")
    }
    order = np.argsort(np.concatenate([part.held_out for part in inputs.parts]))
    return Predictions(member=member, **joined, record=fold_record(inputs)).select(order)


def _record(
    recorder: RunRecorder, inputs: FinetuneInputs, outcomes: list[FoldOutcome], oof: Predictions, base: Predictions
) -> None:
    seed, target = recorder.seed, inputs.target
    parts = {OUT_OF_FOLD: np.arange(len(oof))}
    parts |= {f"fold{number}": part.held_out for number, part in enumerate(inputs.parts)}
    for name, rows in parts.items():
        recorder.metrics[name] = _metrics(oof.select(rows), seed)
        recorder.baselines.setdefault("base", {})[name] = _metrics(base.select(rows), seed)
    recorder.data = inputs.loaded.as_dict()
    changes = [outcome.facts["weight_change"] for outcome in outcomes]
    recorder.warnings += inputs.warnings
    if max(changes) < UNMOVED:
        recorder.warnings.append(
            f"the adapters moved nothing: their largest relative weight change is {max(changes):.1e}, and a model that "
            f"changes by less than {UNMOVED:g} answers as its base; the differences to the base are no effect of training"
        )
        logger.warning(f"warning: {recorder.warnings[-1]}")
    recorder.details = {
        "fold_target": target.name,
        "label": TRANSDUCTIVE if target.transductive else "",
        "comparable": not target.transductive,
        "rows": len(oof),
        "adapter": dataclasses.asdict(inputs.choice),
        "base": dataclasses.asdict(inputs.base.identity) | {"learned_from": inputs.base.learned_from},
        "weight_changes": changes,
        "difference_to_base": _differences(oof, base, seed),
        "folds": [outcome.facts for outcome in outcomes],
        "brightness": _brightness(inputs, oof, base, seed),
    }


def _brightness(inputs: FinetuneInputs, oof: Predictions, base: Predictions, seed: int) -> dict[str, Any] | None:
    """How dark and other rows were trained on, and what base and adapters say of both; None where it played no part."""
    if inputs.dark is None:
        return None
    fit = np.unique(np.concatenate([part.fit for part in inputs.parts]))
    found = inputs.dark.as_dict(fit)
    for name, predictions in ((OUT_OF_FOLD, oof), ("base", base)):
        figures = dark_figures(inputs.target.rows, inputs.dark.limit, predictions.probabilities, seed)
        widening = fold_widening(predictions.folds)
        for part in figures.values():
            part["metrics"] = part["metrics"] and widen_metrics(part["metrics"], widening)
        found[name] = figures
    return found


def _metrics(predictions: Predictions, seed: int) -> dict[str, dict[str, float | None]]:
    found = metrics_with_intervals(predictions.labels, predictions.probabilities, groups=predictions.groups, seed=seed)
    return widen_metrics(found, fold_widening(predictions.folds))


def _differences(oof: Predictions, base: Predictions, seed: int) -> dict[str, Any]:
    """Out-of-fold minus base on the same rows, paired, whole groups drawn together; intervals widened for the folds."""
    both = oof.probabilities, base.probabilities
    return {
        metric: dataclasses.asdict(
            widen_difference(
                paired_difference(oof.labels, *both, groups=oof.groups, metric=metric, seed=seed),
                fold_widening(oof.folds),
            )
        )
        for metric in COMPARED
    }


def folds_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a result in a few lines: MCC of base and adapters by fold, how far they moved, and where files lie."""
    details, sides = result.details, (result.baselines["base"], result.metrics)

    def both(name: str) -> str:
        return "".join(f"{interval_text(side[name]['mcc']):>24}" for side in sides)

    target = details["fold_target"] if details["fold_target"] in OWN_SPLITS else Path(details["fold_target"]).name
    lines = [f"{'MCC [95 % interval]':22}{'rows':>6}{'base':>24}{'adapter':>24}{'epoch':>7}{'moved':>9}"]
    for number, facts in enumerate(details["folds"]):
        name = f"fold{number}"
        row = f"{name:22}{facts['rows']['held_out']:>6}{both(name)}"
        lines.append(row + f"{facts['best_epoch']:>7.0f}{facts['weight_change']:>9.1e}")
    lines.append(f"{target + ', out of fold':22}{details['rows']:>6}{both(OUT_OF_FOLD)}")
    gain, adapter = details["difference_to_base"]["mcc"], details["adapter"]
    lines += [
        f"adapter - base          {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] MCC, paired",
        f"adapter                 {adapter['kind']}, {adapter['trainable']:,} trainable parameters ({adapter['reason']})",
        f"adapters, predictions   {Path(output_dir) / ADAPTERS}, {Path(output_dir) / OOF_NAME}",
        f"every figure            {Path(output_dir) / RESULT_NAME}",
        f"{result.wall_seconds:.0f} s, {result.peak_memory_bytes / 2**30:.1f} GiB at most",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])

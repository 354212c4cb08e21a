"""The distillation recipe: students of the full teacher and the same students without it, compared and recorded.

`recipes/distill.py` calls `distill`, exports the student that it returns, and prints `distillation_table`.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, ViTImageProcessor
from transformers.utils import logging

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.predictions import Predictions
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text
from natix_roadwork.training.ablation_results import difference_of, verdict_of
from natix_roadwork.training.distillation_arguments import DistillArguments, DistillTrainingArguments
from natix_roadwork.training.distillation_student import build_student_processor
from natix_roadwork.training.distillation_teacher import (
    Combine,
    TeacherValues,
    read_teacher,
    teacher_on,
    teacher_values,
)
from natix_roadwork.training.distillation_training import StudentRun, train_student
from natix_roadwork.training.distillation_views import StudentRows
from natix_roadwork.training.pretrain_inputs import selection_rows
from natix_roadwork.training.pretraining import warnings_about


logger = logging.get_logger(__name__)

LITE = "lite"
WORK = "work"
WITHOUT = "without_teacher"
TEACHER = "teacher"
COMPARED = ("mcc", "mcc_balanced", "auc")
CLEAN = "dev"  # regime C: the photo as it is
SCORED = {"dev_regime_A": "A", "dev_regime_B": "B", CLEAN: "C"}


@dataclass(frozen=True)
class Distilled:
    """What a run leaves: its record, and the student to ship with its processor."""

    result: RunResult
    model: PreTrainedModel
    processor: ViTImageProcessor


@dataclass(frozen=True)
class DistillInputs:
    """Rows, teacher and processor of a run.

    Attributes:
        loaded: The data set.
        rows: `train` with the teacher's values, and `selection`.
        scored: Dev rows by regime.
        teacher: The teacher's values of all train rows.
        teacher_dev: The teacher's answers to the dev rows, where it has honest ones.
        processor: The student's.
    """

    loaded: LoadedRows
    rows: dict[str, StudentRows]
    scored: dict[str, StudentRows]
    teacher: TeacherValues
    teacher_dev: Predictions | None
    processor: ViTImageProcessor


def distill(settings: DistillArguments, args: DistillTrainingArguments, combine: Combine | None = None) -> Distilled:
    """Train the students, with the teacher and without, score them on dev, record the run.

    Args:
        settings: Student, teacher, data.
        args: How to train each student.
        combine: Combines the teacher's members, as `Ensemble.combine` does; None = the mean of their logits.

    Returns:
        The record, and the student with the teacher that does best on the selection rows.

    Raises:
        ValueError: If data, teacher, student or an earlier run in `args.output_dir` do not fit.
    """
    output, config = Path(args.output_dir), dataclasses.asdict(settings) | args.to_dict()
    with RunRecorder(config, args.seed) as recorder:
        prepare_output(output, settings.existing_run, args)
        inputs = prepare_distillation(settings, args, combine)
        for text in inputs.teacher.warnings:
            logger.warning(f"warning: {text}")
        taught, plain = [], []
        for seed in range(args.seed, args.seed + settings.num_seeds):
            taught.append(train_student(settings, args, inputs.rows, inputs.scored, seed, output / WORK))
            if settings.compare_without_teacher:
                alone = inputs.rows | {"train": inputs.rows["train"].without_teacher()}
                plain.append(train_student(settings, args, alone, inputs.scored, seed, output / WORK))
        best = int(np.argmin([run.selection_loss for run in taught]))
        _record(recorder, inputs, taught, plain, best)
        recorder.write(output)
        return Distilled(recorder.result(), taught[best].model, inputs.processor)


def prepare_output(output: Path, existing_run: str, args: DistillTrainingArguments) -> None:
    """Settle what happens to an earlier run's files.

    Raises:
        ValueError: If there are some and they shall stay.
    """
    with args.main_process_first(desc="looking for an earlier run"):
        found = [output / name for name in (RESULT_NAME, LITE, WORK) if (output / name).exists()]
        if found and existing_run == "refuse":
            raise ValueError(
                f"output_dir={str(output)!r} holds {found[0].name} of an earlier run: delete it by --existing_run "
                "overwrite, or choose another --output_dir"
            )
        for path in found if args.should_save else ():
            logger.warning(f"Removed {path} of an earlier run.")
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def prepare_distillation(
    settings: DistillArguments, args: DistillTrainingArguments, combine: Combine | None = None
) -> DistillInputs:
    """Load rows and teacher, match them, and make the views of each split.

    Raises:
        ValueError: If data and teacher cannot be used together.
    """
    members = read_teacher(settings.predictions)
    with args.main_process_first(desc="loading rows"):
        loaded = load_rows(
            settings.dataset_name,
            seed=args.seed if settings.split_seed is None else settings.split_seed,
            dev_share=settings.dev_share,
            max_megapixels=settings.max_megapixels,
            verify_images=settings.verify_images,
            revision=settings.dataset_revision,
            consistency_filter=settings.consistency_filter,
            near_duplicates=settings.near_duplicates,
            split_manifest=settings.split_manifest,
            groups_file=settings.groups_file,
        )
    if "train" not in loaded.splits:
        raise ValueError(f"dataset_name={settings.dataset_name!r} has no train rows, only {list(loaded.splits)}")
    train, dev = loaded.splits["train"], loaded.splits["dev"]
    teacher = teacher_values(members, train, dev, combine, settings.allow_in_sample_teacher)
    processor = build_student_processor(settings)

    def views(rows: Dataset, values: TeacherValues | None = None) -> StudentRows:
        return StudentRows(rows, processor, settings.regime_shares, args.seed, settings.max_megapixels, values)

    fitted, selection = selection_rows(train, settings.selection_share, args.seed)
    everything = views(train, teacher)
    rows = {"train": everything.select(fitted), "selection": everything.select(selection).without_teacher()}
    scored = {name: views(dev).in_regime(regime) for name, regime in SCORED.items()}
    return DistillInputs(loaded, rows, scored, teacher, teacher_on(members, dev, combine), processor)


def _record(
    recorder: RunRecorder, inputs: DistillInputs, taught: list[StudentRun], plain: list[StudentRun], best: int
) -> None:
    seed = recorder.seed
    recorder.data = inputs.loaded.as_dict()
    recorder.metrics = {name: _metrics(found, seed) for name, found in taught[best].answers.items()}
    recorder.warnings += inputs.teacher.warnings + warnings_about(inputs.loaded)
    if inputs.teacher_dev is not None:
        recorder.baselines[TEACHER] = {CLEAN: _metrics(inputs.teacher_dev, seed)}
    recorder.details = {
        "teacher": inputs.teacher.record,
        "rows": {name: len(rows) for name, rows in (inputs.rows | {"dev": inputs.scored[CLEAN]}).items()},
        "shipped_seed": taught[best].facts["seed"],
        "parameters": sum(weight.numel() for weight in taught[best].model.parameters()),
        "students": [run.facts for run in taught + plain],
    }
    if plain:
        recorder.baselines[WITHOUT] = {name: _metrics(found, seed) for name, found in plain[best].answers.items()}
        recorder.details["difference_to_without_teacher"] = _differences(taught, plain, seed)
        recorder.details["note"] = _note(recorder.details["difference_to_without_teacher"], len(taught))
        recorder.warnings += [recorder.details["note"]] if "does not beat" in recorder.details["note"] else []


def _metrics(found: Predictions, seed: int) -> dict[str, dict[str, float | None]]:
    return metrics_with_intervals(found.labels, found.probabilities, groups=found.groups, seed=seed)


def _differences(taught: Sequence[StudentRun], plain: Sequence[StudentRun], seed: int) -> dict[str, dict[str, Any]]:
    """With the teacher minus without it, over all seeds, paired, whole groups drawn together."""
    found: dict[str, dict[str, Any]] = {}
    for name in SCORED:
        sides = [[run.answers[name] for run in runs] for runs in (taught, plain)]
        found[name] = {metric: difference_of(*sides, seed=seed, metric=metric) for metric in COMPARED}
    return {
        name: {metric: dataclasses.asdict(value) | {"verdict": verdict_of(value)} for metric, value in metrics.items()}
        for name, metrics in found.items()
    }


def _note(differences: dict[str, dict[str, Any]], num_seeds: int) -> str:
    """Say in words whether the teacher helps."""
    gain = differences[CLEAN]["mcc"]
    beats = gain["value"] > gain["standard_error"]
    figures = f"MCC {gain['value']:+.3f}, standard error {gain['standard_error']:.3f}, {num_seeds} seed(s), paired"
    if beats:
        return f"the student beats the same student without the teacher on dev: {figures}"
    return f"the student does not beat the same student without the teacher by one standard error on dev: {figures}"


def distillation_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a result in a few lines: MCC by regime for the student, without teacher, teacher; where files lie."""
    head = "".join(f"{'regime ' + SCORED[name] + (' (photo)' if name == CLEAN else ''):>24}" for name in SCORED)
    lines = [f"{'MCC [95 % interval]':20}{head}"]
    for name, metrics in {"student": result.metrics, **result.baselines}.items():
        cells = (interval_text(metrics[split]["mcc"]) if split in metrics else "" for split in SCORED)
        lines.append(f"{name.replace('_', ' '):20}" + "".join(f"{cell:>24}" for cell in cells))
    if "note" in result.details:
        lines.append(result.details["note"])
    teacher = result.details["teacher"]
    lines += [
        f"teacher             {teacher['usable_rows']} of {teacher['train_rows']} train rows, {teacher['combined_by']}",
        f"student, its card   {Path(output_dir) / LITE}",
        f"every figure        {Path(output_dir) / RESULT_NAME}",
        f"{result.wall_seconds:.0f} s, {result.peak_memory_bytes / 2**30:.1f} GiB at most",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])

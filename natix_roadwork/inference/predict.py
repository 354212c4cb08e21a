"""The prediction recipe: what a saved model says of the photos of a data set, as one member's Arrow file.

`recipes/predict.py` calls `predict` and prints `prediction_table`; the ensemble, calibration and the error report read
the file (`data/predictions.py`).
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.depth_source import RowDepths
from natix_roadwork.data.extra_evidence import evidence_hash
from natix_roadwork.data.feature_key import photos_fingerprint
from natix_roadwork.data.predictions import (
    LEARNED_FROM,
    NOT_OUT_OF_FOLD,
    ORIGINAL,
    Predictions,
    joined,
    read_predictions,
    write_predictions,
)
from natix_roadwork.data.text_vectors import encoder_folder, encoder_key
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.member import Lesson, Member, lesson_of, load_member
from natix_roadwork.inference.parts import Parts, check_same
from natix_roadwork.inference.predict_inputs import load_predicted, member_depths, member_inputs
from natix_roadwork.inference.predict_rows import Passes, predict_rows
from natix_roadwork.inference.tta_transforms import transform_settings
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult
from natix_roadwork.training.pretraining import warnings_about


FORMAT_VERSION = 1
PARTS_FOLDER = ".parts"
ROW_COLUMNS = ("row_id", "label", "group")


def predict(settings: PredictArguments, *, allow_lockbox: bool = False) -> RunResult:
    """Predict splits of a data set with one member, and write its file and `result.json` into `settings.output_dir`.

    Any number of processes, and any kill and resume, give the same file.

    Args:
        settings: Model, photos and how they are read.
        allow_lockbox: Whether a lockbox may be predicted: for publishing, once for each published model. No recipe does.

    Returns:
        What `result.json` holds; its metrics are those of the file.

    Raises:
        ValueError: If the model, the data, a setting or an earlier run cannot be used.
    """
    with RunRecorder(dataclasses.asdict(settings), settings.seed) as recorder:
        state = settings.state()
        if state.is_main_process:
            refuse_earlier_run(settings)
        rows, splits = load_predicted(settings, state, allow_lockbox)
        member = load_member(settings.model, state.device, settings.adapters)
        lesson = lesson_of(member, rows, settings)
        depths = member_depths(member, splits, settings, state)
        record = prediction_record(member, lesson, rows, splits, settings, state)
        if depths is not None:
            record["depth"] = {name: depths.fingerprint(split) for name, split in splits.items()}
        parts = Parts(settings.path.parent / PARTS_FOLDER, record)
        if state.is_main_process:
            _enter(settings, parts)
        state.wait_for_everyone()
        started = time.perf_counter()
        if not settings.path.is_file():
            _write(member, splits, parts, settings, state, depths)
        seconds = time.perf_counter() - started
        _record(recorder, read_predictions(settings.path), rows, lesson)
        recorder.details["depth"] = None if depths is None else depths.as_dict()
        if depths is None and member.model.config.depth_view:
            recorder.warnings.append(
                "the model has a depth view, but no depth_folder is given; it answered without depth"
            )
        if member.model.config.extra_evidence_size and settings.extra_evidence is None:
            recorder.warnings.append("the member reads extra evidence, and got none: give --extra_evidence")
        answers = parts.rows_written * state.num_processes  # each process has written its share
        recorder.details["seconds"] = seconds
        recorder.details["ms_per_answer"] = 1000 * seconds / answers if answers else None
        recorder.write(settings.output_dir)
        if state.is_main_process:
            parts.remove()
        return recorder.result()


def prediction_record(
    member: Member,
    lesson: Lesson,
    rows: LoadedRows,
    splits: dict[str, Dataset],
    settings: PredictArguments,
    state: PartialState,
) -> dict[str, Any]:
    """Return the record in the member's file: what it learned from, and everything that decides its answers."""
    photos = {name: {"count": len(split), "photos": photos_fingerprint(split)} for name, split in splits.items()}
    text = "text" in member.model.config.metadata_fields
    return {
        "format": FORMAT_VERSION,
        LEARNED_FROM: lesson.splits,
        **member.record(),
        "data": {"fingerprint": rows.fingerprint, "splits": photos},
        "text_encoder": encoder_key(encoder_folder(settings.text_encoder_id)) if text else None,
        "extra_evidence": evidence_hash(settings.extra_evidence),
        "tokens": "float16" if settings.feature_cache == "off" else settings.feature_dtype,
        "precision": str(settings.precision(state.device)).removeprefix("torch."),
        "batch_size": settings.per_device_eval_batch_size,
        "device": state.device.type,
        "tta": transform_settings(settings.transforms) if len(settings.transforms) > 1 else "off",
    }


def gather(
    member: str,
    splits: dict[str, Dataset],
    answers: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    record: dict[str, Any],
    transform: int = ORIGINAL,
) -> Predictions:
    """Put the answers for whole splits, in the order of their rows, beside ids, labels and groups.

    Raises:
        ValueError: As `Predictions`.
    """
    columns = {name: [value for split in splits.values() for value in split[name][:]] for name in ROW_COLUMNS}
    logits, embeddings = (np.concatenate(arrays) for arrays in zip(*(answers[name] for name in splits), strict=True))
    return Predictions(
        member=member,
        row_ids=np.asarray(columns["row_id"], dtype=np.str_),
        labels=np.asarray(columns["label"], dtype=np.int64),
        groups=np.asarray(columns["group"], dtype=np.str_),
        splits=np.repeat(np.asarray(list(splits), dtype=np.str_), [len(split) for split in splits.values()]),
        logits=logits,
        embeddings=embeddings,
        folds=np.full(len(logits), NOT_OUT_OF_FOLD, dtype=np.int64),
        transforms=np.full(len(logits), transform, dtype=np.int64),
        record=record,
    )


def prediction_table(result: RunResult, settings: PredictArguments) -> str:
    """Describe a prediction in a few lines: MCC of each split with its interval, speed, and where the file lies."""
    lines = [f"{'split':8}{'photos':>8}   MCC [95 % interval]"]
    for split, count in result.details["rows"].items():
        mcc = {name: float("nan") if value is None else value for name, value in result.metrics[split]["mcc"].items()}
        lines.append(f"{split:8}{count:>8}   {mcc['value']:.3f} [{mcc['low']:.3f}, {mcc['high']:.3f}]")
    speed, count = result.details["ms_per_answer"], len(settings.transforms)
    if speed is not None:
        variants = f" ({count} TTA transforms of {speed:.0f} ms)" if count > 1 else ""
        lines.append(f"{count * speed:.0f} ms a photo{variants}")
    lines += [
        f"{settings.member}: {settings.path}",
        f"every figure: {Path(settings.output_dir) / RESULT_NAME}",
        f"{result.details['seconds']:.0f} s, {result.peak_memory_bytes / 2**30:.1f} GiB at most",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def refuse_earlier_run(settings: PredictArguments) -> None:
    """Refuse a folder whose files would be lost.

    Raises:
        ValueError: If it is the model's own, or holds an earlier run that is neither continued nor overwritten.
    """
    folder, path = Path(settings.output_dir), settings.path
    if folder.resolve() == Path(settings.model).resolve():
        raise ValueError(
            f"output_dir={settings.output_dir!r} is the model's own folder, whose {RESULT_NAME} would be lost; choose "
            "another"
        )
    found = [file for file in (path, folder / RESULT_NAME, folder / PARTS_FOLDER) if file.exists()]
    if found and settings.existing_run == "refuse":
        raise ValueError(
            f"output_dir={settings.output_dir!r} holds {found[0].name} of an earlier run: continue it with "
            "--existing_run resume, delete it with --existing_run overwrite, or choose another --output_dir"
        )
    if settings.existing_run == "resume" and (folder / RESULT_NAME).exists() and not path.exists():
        raise ValueError(
            f"output_dir={settings.output_dir!r} holds {RESULT_NAME} of another run, without {path.name}; give each "
            "member an output_dir of its own"
        )


def _enter(settings: PredictArguments, parts: Parts) -> None:
    """Delete an earlier run, or check that it is the same prediction."""
    if settings.existing_run == "overwrite":
        # The result goes first: without the member's file it would pass for another member's.
        (settings.path.parent / RESULT_NAME).unlink(missing_ok=True)
        settings.path.unlink(missing_ok=True)
        parts.remove()
    if settings.path.is_file():
        check_same(read_predictions(settings.path).record, parts.record, str(settings.path))
    else:
        parts.enter()


def _write(
    member: Member,
    splits: dict[str, Dataset],
    parts: Parts,
    settings: PredictArguments,
    state: PartialState,
    depths: RowDepths | None,
) -> None:
    """Compute what is missing, on all processes, and write the member's file."""
    inputs = member_inputs(member, splits, settings, state, depths)
    passes = Passes(
        settings.per_device_eval_batch_size, settings.precision(state.device), settings.dataloader_num_workers
    )
    found = []
    for transform in settings.transforms:
        answers = {
            name: predict_rows(
                member.answers, inputs[name], parts, passes, split=name, transform=transform, state=state
            )
            for name in splits
        }
        found.append(gather(settings.path.stem, splits, answers, parts.record, transform))
    if state.is_main_process:
        write_predictions(settings.path, joined(found))
    state.wait_for_everyone()


def _record(recorder: RunRecorder, predictions: Predictions, rows: LoadedRows, lesson: Lesson) -> None:
    recorder.data = rows.as_dict()
    counts = {}
    for split in dict.fromkeys(predictions.splits.tolist()):
        found = predictions.select((predictions.splits == split) & (predictions.transforms == ORIGINAL))
        counts[split] = len(found)
        recorder.metrics[split] = metrics_with_intervals(
            found.labels, found.probabilities, groups=found.groups, seed=recorder.seed
        )
    recorder.warnings += lesson.warnings + warnings_about(rows, list(counts))
    taught = [split for split in counts if split in lesson.splits]
    if taught:
        recorder.warnings.append(
            f"{' and '.join(taught)} taught the member or chose its epoch; its metrics there are optimistic"
        )
    recorder.details = {
        "member": predictions.member,
        "rows": counts,
        "splits": dataclasses.asdict(rows.manifest),
        "record": predictions.record,
    }

"""The ablation of a recipe on one data set: which component brings how much, out of fold, with intervals.

`recipes/ablate.py` calls `ablate`. The out-of-fold predictions of each row and seed are kept in `<output_dir>/rows`, so
that a stopped run goes on, and several runs can share the rows between them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers.utils import logging

from natix_roadwork.data.feature_key import differences
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.predictions import LEARNED_FROM, Predictions, read_predictions, write_predictions
from natix_roadwork.model.fast_attention import fast_attention
from natix_roadwork.runs import RunRecorder, RunResult
from natix_roadwork.training.ablation_bench import AblationBench, Logits, fold_numbers
from natix_roadwork.training.ablation_results import (
    attention_line,
    elsewhere_line,
    markdown_table,
    measured_line,
    metrics_of,
    unmeasured_line,
)
from natix_roadwork.training.ablation_rows import DEFAULT, AblationRow, ablation_rows, chosen_rows
from natix_roadwork.training.ablation_settings import AblationArguments
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.pretraining import resolved_config, warnings_about_photos


logger = logging.get_logger(__name__)

ROWS_FOLDER = "rows"
TABLE_NAME = "ablation.md"
TRAINED = ("head", "baseline", "probe")  # kinds of rows with predictions
# Settings that move nothing in a row; data and backbone are compared by what they hold, not by their names.
RUN_SETTINGS = (
    *("dataset_name", "dataset_revision", "backbone_id", "backbone_revision", "dev_share", "feature_cache"),
    *("existing_run", "dry_run", "score_test", "baselines", "include_backbone", "split_manifest", "split_seed"),
)
RUN_ARGUMENTS = (
    *(
        "output_dir",
        "log",
        "disable_tqdm",
        "report_to",
        "run_name",
        "project",
        "trackio",
        "push_to_hub",
        "hub_",
        "do_",
    ),
    *("save_total_limit", "dataloader_", "skip_memory", "debug", "local_rank", "resume_from"),
)


def ablate(
    ablation: AblationArguments, settings: PretrainArguments, args: RoadworkTrainingArguments
) -> tuple[RunResult, str]:
    """Measure the rows that are missing, and write `result.json` and `ablation.md`.

    Args:
        ablation: Which rows, how many folds and seeds.
        settings: The default recipe.
        args: How it trains.

    Returns:
        What `result.json` holds, and the table.

    Raises:
        ValueError: If data or settings cannot be used, or a kept row is of other settings.
    """
    if args.world_size > 1:
        raise ValueError(
            f"{args.world_size} processes: an ablation trains small heads in one. Start it several times instead, with "
            "other --rows and one --output_dir, and once without --rows for the table"
        )
    config = resolved_config(settings, args) | dataclasses.asdict(ablation)
    with RunRecorder(config, args.seed) as recorder:
        bench = AblationBench(ablation, settings, args)
        rows = _rows_of(bench)
        _prepare(Path(args.output_dir), settings.existing_run)
        missing = {row.name: why for row in rows if (why := bench.why_not(row))}
        lines: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row.kind == "attention" and row.name not in missing:  # before the process prefers other kernels
                lines[row.name] = attention_line(row, bench.attention_difference(), str(args.device))
        with fast_attention(args.fast_attention):
            found = measure_all(bench, [row for row in rows if row.kind in TRAINED and row.name not in missing])
        for row in rows:
            if row.name in missing:
                lines[row.name] = unmeasured_line(row, missing[row.name])
            elif row.kind == "elsewhere":
                lines[row.name] = elsewhere_line(row, ablation.more_results.get(row.name))
            elif row.kind in TRAINED:
                against = _measured(row.against, rows, found)
                lines[row.name] = measured_line(row, against, found, bench.note(row), args.seed)
        table = markdown_table([lines[row.name] for row in rows])
        _record(recorder, bench, rows, lines, found)
        write_whole(Path(args.output_dir) / TABLE_NAME, table.encode())
        recorder.write(args.output_dir)
        return recorder.result(), table


def plan(ablation: AblationArguments, settings: PretrainArguments, args: RoadworkTrainingArguments) -> str:
    """List what an ablation would measure, and what it would leave out and why; nothing is trained or written."""
    bench = AblationBench(ablation, settings, args)
    lines, fits = [], 0
    for row in _rows_of(bench):
        why = bench.why_not(row)
        if not why and row.kind == "head":
            fits += ablation.num_seeds * len(bench.folds_of(row))
        lines.append(f"{row.name:32}{row.component:28}{f'left out: {why}' if why else row.text}")
    return "\n".join([*lines, f"{fits} heads to train on {len(bench.photos)} photos, {ablation.num_seeds} seed(s)"])


def measure_all(bench: AblationBench, rows: Sequence[AblationRow]) -> dict[str, list[Predictions]]:
    """Read the rows that are kept and measure the others.

    Returns:
        For each row, the predictions of its trainings.

    Raises:
        ValueError: If a kept row is of other settings, which are named.
    """
    folder = Path(bench.args.output_dir) / ROWS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(bench.ablation.num_seeds)
    kept: dict[tuple[str, int], Predictions] = {}
    records = {(row.name, seed): row_record(bench, row, seed) for row in rows for seed in seeds}
    for key, record in records.items():
        if (path := folder / file_name(*key)).is_file():
            kept[key] = _checked(path, record)
    same = {json.dumps(records[key], sort_keys=True): found for key, found in kept.items()}
    todo = [(row, seed) for row in rows for seed in seeds if (row.name, seed) not in kept]
    todo.sort(key=lambda item: not bench.tokens.holds(bench.settings_of(*item)[0]))  # passes of the backbone come last
    total = sum(len(bench.folds_of(row)) for row, _ in todo)
    with tqdm(total=total, desc="folds", unit="fold", disable=bench.args.disable_tqdm) as bar:
        for number, (row, seed) in enumerate(todo):
            bar.set_description(f"row {number + 1} of {len(todo)}, {row.name}")
            key = json.dumps(records[row.name, seed], sort_keys=True)
            if key in same:  # another row with the very same settings
                found = dataclasses.replace(same[key], member=member_name(row.name, seed))
                bar.update(len(bench.folds_of(row)))
            else:
                logits = bench.measure(row, seed, bar.update)
                found = _predictions(bench, row, seed, logits, records[row.name, seed])
            write_predictions(folder / file_name(row.name, seed), found)
            kept[row.name, seed] = same[key] = read_predictions(folder / file_name(row.name, seed))
    return {row.name: [kept[row.name, seed] for seed in seeds] for row in rows}


def row_record(bench: AblationBench, row: AblationRow, seed: int) -> dict[str, Any]:
    """Return everything that decides a row's predictions, as JSON values."""
    settings, args = bench.settings_of(row, seed)
    training = {name: value for name, value in args.to_dict().items() if not name.startswith(RUN_ARGUMENTS)}
    record = {
        "row": {"kind": row.kind, "parts": row.parts, "standardized": row.standardized, "by_city": row.by_city},
        "baseline": row.name if row.kind == "baseline" else None,
        "settings": {name: v for name, v in dataclasses.asdict(settings).items() if name not in RUN_SETTINGS},
        "metadata_fields": bench.fields_of(settings),
        "training": training,
        "data": bench.fingerprint,
        "backbone_sha256": bench.model.config.backbone_sha256,
        "folds": {"number": bench.ablation.num_folds, "seed": bench.split_seed},
    }
    return json.loads(json.dumps(record))


def member_name(name: str, seed: int) -> str:
    """Name the predictions of one training of a row."""
    return f"{name}.seed_{seed}" if seed else name


def file_name(name: str, seed: int) -> str:
    """Name the file of one training of a row."""
    return f"{member_name(name, seed)}.arrow"


def _rows_of(bench: AblationBench) -> list[AblationRow]:
    rows = ablation_rows(bench.settings, bench.args, bench.model.config.num_views)
    return chosen_rows(rows, bench.ablation.rows)


def _prepare(output_dir: Path, existing_run: str) -> None:
    """Settle what happens to rows that are there."""
    there = sorted((output_dir / ROWS_FOLDER).glob("*.arrow"))
    if there and existing_run == "refuse":
        raise ValueError(
            f"output_dir={str(output_dir)!r} holds {len(there)} rows of an earlier run: go on with --existing_run resume, "
            "delete them with --existing_run overwrite, or choose another --output_dir"
        )
    if there and existing_run == "overwrite":
        logger.warning(f"Removed {len(there)} rows of an earlier run in {output_dir / ROWS_FOLDER}.")
        for path in there:
            path.unlink()


def _checked(path: Path, record: Mapping[str, Any]) -> Predictions:
    found = read_predictions(path)
    changes = differences(found.record.get("ablation", {}), record)
    if changes:
        raise ValueError(
            f"{path} holds a row of other settings ({'; '.join(changes)}); choose another --output_dir, go back to those "
            "settings, or start anew with --existing_run overwrite"
        )
    return found


def _predictions(
    bench: AblationBench, row: AblationRow, seed: int, logits: Logits, record: Mapping[str, Any]
) -> Predictions:
    """Bring the logits of the photos that were held out to the form of a member's file."""
    photos, folds = bench.photos, fold_numbers(len(logits), bench.folds_of(row))
    scored = np.flatnonzero(folds >= 0)
    return Predictions(
        member=member_name(row.name, seed),
        row_ids=np.array(photos["row_id"][:], dtype=np.str_)[scored],
        labels=bench.labels[scored],
        groups=bench.groups[scored],
        splits=np.array(photos["split"][:], dtype=np.str_)[scored],
        logits=logits[scored],
        embeddings=np.zeros((len(scored), 0), dtype=np.float32),
        folds=folds[scored],
        transforms=np.zeros(len(scored), dtype=np.int64),
        record={LEARNED_FROM: ["train", "dev"], "ablation": dict(record)},
    )


def _measured(name: str | None, rows: Sequence[AblationRow], found: Mapping[str, Any]) -> str | None:
    """Return the row to compare with: the named one, or where it could not be measured the one before it."""
    against = {row.name: row.against for row in rows}
    while name is not None and name not in found:
        name = against[name]
    return name


def _record(
    recorder: RunRecorder,
    bench: AblationBench,
    rows: Sequence[AblationRow],
    lines: Mapping[str, dict[str, Any]],
    found: Mapping[str, list[Predictions]],
) -> None:
    """Fill in what `result.json` holds."""
    recorder.data = bench.loaded.as_dict()
    if DEFAULT in found:
        recorder.metrics = {"out_of_fold": metrics_of(found[DEFAULT], recorder.seed)}
    recorder.baselines = {
        row.name: {"out_of_fold": metrics_of(found[row.name], recorder.seed)}
        for row in rows
        if row.kind in ("baseline", "probe") and row.name in found
    }
    recorder.warnings += warnings_about_photos(bench.loaded)
    if bench.ablation.num_seeds == 1:
        recorder.warnings.append("each row was trained once: no interval holds the noise of the seed; see num_seeds")
    recorder.details = {
        "ablation": [lines[row.name] for row in rows],
        "measured": sorted(found),
        "not_measured": {name: line["note"] for name, line in lines.items() if line["verdict"] == "not measured here"},
        "photos": len(bench.photos),
        "groups": len(np.unique(bench.groups)),
        "folds": bench.ablation.num_folds,
        "seeds": [recorder.seed + seed for seed in range(bench.ablation.num_seeds)],
    }

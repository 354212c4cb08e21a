"""The recipe of test-time augmentation: every mode measured on held-out rows, the accepted one scored and written down.

`recipes/tta.py` calls `run_tta` and prints `tta_table`. In come members' files with several transforms a photo, as
`recipes/predict.py` writes them with `tta`; out go `result.json`, the aggregated member `tta.arrow` for the ensemble and the
error report, and the feature statistics.
"""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from natix_roadwork.data.predictions import (
    LEARNED_FROM,
    NOT_OUT_OF_FOLD,
    ORIGINAL,
    Predictions,
    joined,
    read_predictions,
    write_predictions,
)
from natix_roadwork.inference.feature_statistics import FeatureStatistics, fit_statistics, save_statistics
from natix_roadwork.inference.tta import Aggregation, as_member, combine, fit_aggregation
from natix_roadwork.inference.tta_acceptance import (
    NONE,
    ModeScore,
    Selection,
    choose_mode,
    compare_modes,
    select_out_of_fold,
)
from natix_roadwork.inference.tta_transforms import transform_photo
from natix_roadwork.inference.tta_variants import MODEL, Variants, side_by_side
from natix_roadwork.metrics import PairedDifference, metrics_with_intervals, paired_difference
from natix_roadwork.runs import RunRecorder, RunResult, interval_text


TTA_NAME = "tta.arrow"
STATISTICS_FOLDER = "statistics"
OUT_OF_FOLD = "out_of_fold"
TEST = "test"
OVER_NONE = "mcc_over_none"
PHOTO_SIZE = (1080, 1920)  # of the photo that the transforms are timed on


@dataclass
class TTAArguments:
    """Which predictions are aggregated.

    Attributes:
        predictions: Files of members with several transforms a photo. The modes are fitted and chosen on their held-out
            rows outside `test`; rows of `test` are scored once, with what was chosen.
        output_dir: Folder of `result.json`, `tta.arrow` and the feature statistics.
        train_predictions: Files of the same members that hold their train rows; without them there are no filtered modes.
        num_folds: Outer folds of whole groups.
        seed: Decides folds and bootstrap draws.
    """

    predictions: list[str] = field(metadata={"help": "Members' files with several transforms a photo."})
    output_dir: str = field(metadata={"help": "Folder of result.json, tta.arrow and the feature statistics."})
    train_predictions: list[str] = field(
        default_factory=list, metadata={"help": "The members' train rows, for foods and knn."}
    )
    num_folds: int = field(default=5, metadata={"help": "Outer folds of whole groups."})
    seed: int = field(default=42, metadata={"help": "Decides folds and bootstrap draws."})


def run_tta(arguments: TTAArguments) -> RunResult:
    """Compare the modes, choose one, score the choice on rows outside it, and write everything down.

    Raises:
        ValueError: If a file cannot be used, or no row is held out.
    """
    with RunRecorder(dataclasses.asdict(arguments), arguments.seed) as recorder:
        members = [read_predictions(path) for path in arguments.predictions]
        used = _held_out(members, recorder)
        statistics = _fit_all(arguments.train_predictions, used)
        variants = side_by_side(used, statistics)
        is_test = variants.originals.splits == TEST
        open_rows, test_rows = variants.select(~is_test), variants.select(is_test)
        if variants.is_original.all() or is_test.all():
            what = "hold no row outside test" if is_test.all() else "hold the photos as they are alone"
            raise ValueError(
                f"predictions: they {what}; predict the rows to choose on with recipes/predict.py --tta all"
            )
        recorder.data = _facts(arguments, open_rows, test_rows)
        if statistics is None:
            recorder.warnings.append("without train_predictions the modes foods and knn are not tried")
        if (open_rows.folds != NOT_OUT_OF_FOLD).any():
            recorder.warnings.append(
                "rows are out-of-fold: intervals of MCC are too narrow, since models of two folds share what they learned from"
            )
        scores = compare_modes(open_rows, arguments.num_folds, arguments.seed)
        selection = select_out_of_fold(open_rows, arguments.num_folds, arguments.seed)
        aggregation = fit_aggregation(open_rows, choose_mode(scores))
        _score(recorder, open_rows, scores, selection, test_rows, aggregation)
        recorder.details = {
            "modes": _mode_rows(scores, open_rows, members),
            "aggregation": dataclasses.asdict(aggregation),
            "chosen_in_folds": selection.modes,
            "difference": dataclasses.asdict(_gain_of_choice(open_rows, scores, selection, arguments.seed)),
            "transforms_timed_on": "{1} x {0} pixels".format(*PHOTO_SIZE),
            "statistics": {name: found.record for name, found in (statistics or {}).items()},
        }
        _write_files(Path(arguments.output_dir), open_rows, selection, test_rows, aggregation, statistics)
        recorder.write(arguments.output_dir)
        return recorder.result()


def transform_milliseconds(number: int, repeats: int = 2) -> float:
    """Measure what one transform of a photo of 1920 x 1080 pixels costs, the best of a few, in milliseconds."""
    photo = np.random.default_rng(0).integers(0, 256, (*PHOTO_SIZE, 3), dtype=np.uint8)
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        transform_photo(photo, number)
        found.append(time.perf_counter() - started)
    return 1000 * min(found)


def tta_table(result: RunResult) -> str:
    """Describe a run: MCC of each mode, its gain with the interval, what it costs a photo, and what was chosen."""
    lines = [
        f"{'mode':9}{'MCC [95 %]':24}{'over none [95 %]':27}{'ms':>6}{'passes':>8}{'views':>7}  cost of an MCC point (.01)"
    ]
    for row in result.details["modes"]:
        mcc, gain = result.baselines[row["mode"]][OUT_OF_FOLD]["mcc"], row[OVER_NONE]
        point = row["passes_per_point"]
        cost = "" if point is None else f"{point:.1f} passes, {row['ms_per_point']:.0f} ms"
        over = "" if row["mode"] == NONE else f"{interval_text(gain, '+')} {'yes' if row['accepted'] else 'no'}"
        lines.append(
            f"{row['mode']:9}{interval_text(mcc):24}{over:27}{row['transform_ms']:>6.0f}{row['passes']:>8}{row['views'] or '?':>7}  {cost}"
        )
    chosen = result.details["aggregation"]["mode"]
    lines.append(f"chosen: {chosen}; in the folds: {', '.join(result.details['chosen_in_folds'])}")
    for split, metrics in result.metrics.items():
        lines.append(f"MCC of the choice, {split.replace('_', '-')}: {interval_text(metrics['mcc'])}")
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _gain_of_choice(
    variants: Variants, scores: dict[str, ModeScore], selection: Selection, seed: int
) -> PairedDifference:
    """MCC of the choice minus that of the photos as they are, on rows outside the choice."""
    pair = selection.probabilities, scores[NONE].probabilities
    return paired_difference(variants.labels, *pair, groups=variants.groups, seed=seed)


def _gain(score: ModeScore) -> dict[str, float | None]:
    return {name: getattr(score.over_none, name) for name in ("value", "low", "high")}


def _fit_all(paths: Sequence[str], members: Sequence[Predictions]) -> dict[str, FeatureStatistics] | None:
    """Fit the statistics of each file of train rows; their groups must not be among the rows to aggregate."""
    if not paths:
        return None
    judged = {group for member in members for group in member.groups.tolist()}
    found = {}
    for path in paths:
        rows = read_predictions(path)
        train = rows.select((rows.splits == "train") & (rows.transforms == ORIGINAL) & (rows.folds == NOT_OUT_OF_FOLD))
        shared = sorted(judged & set(train.groups.tolist()))
        if not len(train) or shared:
            problem = f"shares the groups {shared[:3]} with the rows to judge" if shared else "has no train rows"
            raise ValueError(
                f"train_predictions: {path} {problem}; give the train rows of one model, or leave the key out"
            )
        source = {"member": train.member, MODEL: train.record.get(MODEL)}
        if train.member in found or train.member not in {member.member for member in members}:
            problem = "a second file of" if train.member in found else "of a member that is not in predictions,"
            raise ValueError(f"train_predictions: {path} is {problem} {train.member!r}; give one file for each member")
        try:
            found[train.member] = fit_statistics(train.embeddings, train.labels, train.groups, source)
        except ValueError as error:
            raise ValueError(f"train_predictions: {path}: {error}") from error
    return found


def _held_out(members: Sequence[Predictions], recorder: RunRecorder) -> list[Predictions]:
    """Leave out each row that some member has learned from, and say how many they are."""
    learned = np.unique(np.concatenate([member.row_ids[~member.held_out] for member in members]))
    used = [member.select(~np.isin(member.row_ids, learned)) for member in members]
    if not all(len(member) for member in used):
        taught = {member.member: member.record.get(LEARNED_FROM) for member in members}
        raise ValueError(
            f"predictions: no row is held out, the splits {taught} trained the members or chose their epoch; predict rows "
            "that were not used, train with selection_share so that dev stays unused, or give out-of-fold predictions"
        )
    if len(learned):
        recorder.warnings.append(f"{len(learned)} rows that taught a member are left out")
    return used


def _facts(arguments: TTAArguments, open_rows: Variants, test_rows: Variants) -> dict[str, Any]:
    """What the run read: a fingerprint of the files, and how many photos of which split it used."""
    digest = hashlib.sha256()
    for path in (*arguments.predictions, *arguments.train_predictions):
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    splits, counts = np.unique(
        np.concatenate([part.originals.splits for part in (open_rows, test_rows)]), return_counts=True
    )
    return {
        "name": None,
        "source": "predictions",
        "fingerprint": digest.hexdigest(),
        "counts": dict(zip(splits.tolist(), counts.tolist(), strict=True)),
        "members": open_rows.originals.record["members"],
    }


def _score(
    recorder: RunRecorder,
    variants: Variants,
    scores: dict[str, ModeScore],
    selection: Selection,
    test_rows: Variants,
    aggregation: Aggregation,
) -> None:
    lines, seed = variants.originals, recorder.seed
    recorder.metrics[OUT_OF_FOLD] = metrics_with_intervals(
        lines.labels, selection.probabilities, groups=lines.groups, seed=seed
    )
    for mode, score in scores.items():
        metrics = metrics_with_intervals(lines.labels, score.probabilities, groups=lines.groups, seed=seed)
        recorder.baselines[mode] = {OUT_OF_FOLD: metrics | {OVER_NONE: _gain(score)}}
    if len(test_rows.originals):
        lines = test_rows.originals
        plain = Aggregation(NONE, test_rows.columns)
        for metrics, used in ((recorder.metrics, aggregation), (recorder.baselines[NONE], plain)):
            metrics[TEST] = metrics_with_intervals(
                lines.labels, combine(test_rows, used), groups=lines.groups, seed=seed
            )


def _mode_rows(
    scores: dict[str, ModeScore], variants: Variants, members: Sequence[Predictions]
) -> list[dict[str, Any]]:
    """A row for each mode: gain, whether it is accepted, and what it costs a photo."""
    numbers = [number for _, number in variants.columns]
    each = {number: transform_milliseconds(number) for number in sorted(set(numbers))}
    views = {member.member: member.record.get("config", {}).get("num_views") for member in members}
    originals = int(variants.is_original.sum())
    milliseconds = sum(each[number] for number in numbers) - originals * each[ORIGINAL]
    rows = []
    for mode, score in scores.items():
        columns = [column for column in variants.columns if mode != NONE or column[1] == ORIGINAL]
        counts = [views[member] for member, _ in columns]
        spent, points = 0.0 if mode == NONE else milliseconds, 100 * score.over_none.value
        rows.append(
            {
                "mode": mode,
                OVER_NONE: _gain(score),
                "accepted": score.accepted,
                "transform_ms": spent,
                "passes": len(columns),
                "views": None if None in counts else sum(counts),
                "passes_per_point": (len(columns) - originals) / points if points > 0 else None,
                "ms_per_point": spent / points if points > 0 else None,
            }
        )
    return rows


def _write_files(
    folder: Path,
    variants: Variants,
    selection: Selection,
    test_rows: Variants,
    aggregation: Aggregation,
    statistics: dict[str, FeatureStatistics] | None,
) -> None:
    """Write the statistics, and the chosen aggregation as a member: out of fold, and of the test rows."""
    for name, found in (statistics or {}).items():
        save_statistics(folder / STATISTICS_FOLDER / name, found)
    splits = sorted(set(variants.originals.splits.tolist()))
    member = as_member(variants, selection.probabilities, "tta", selection.folds, splits)
    if len(test_rows.originals):
        folds = np.full(len(test_rows.originals), NOT_OUT_OF_FOLD)
        member = joined([member, as_member(test_rows, combine(test_rows, aggregation), "tta", folds, splits)])
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / TTA_NAME, member)

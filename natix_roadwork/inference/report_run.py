"""Write an error report: predictions, data set and model by name in, one HTML page and its record out.

`recipes/report.py` and `natix-roadwork report` call it with the same keys.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.inference.error_report import ReportData, build_report
from natix_roadwork.inference.report_page import DIGITS, format_points, render
from natix_roadwork.inference.report_rows import data_warnings, matching_rows, report_lines
from natix_roadwork.inference.slice_scores import SliceScore
from natix_roadwork.inference.suggestions import format_p, stands_out
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text, read_result, write_result


SLICE_FIELDS = ("dimension", "value", "num_rows", "num_positives", "num_groups", "too_few", "p_value", "adjusted_p")
ESTIMATES = ("mcc", "accuracy", "fnr", "fpr", "excess")


@dataclass
class ReportArguments:
    """What to report on; the keys that load rows must be those of the run that made the predictions.

    Attributes:
        predictions: Predictions file of one member.
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder.
        output: HTML file; its figures go into a JSON file of the same name.
        model: Folder or Hub id of the model, to see what it looked at in the worst rows.
        result: `result.json` of the run; None = the one in the model's folder, if there is one.
        ablation: `result.json` of `recipes/ablate.py`, whose table the page shows.
        split: Split to report on; None = the held-out rows, or without any, all but those of train.
        seed: The run's `split_seed`, else its seed: it decides what the dev rows are.
    """

    predictions: str = field(metadata={"help": "Predictions file of one member."})
    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    output: str = field(default="runs/report/report.html", metadata={"help": "HTML file to write."})
    model: str | None = field(default=None, metadata={"help": "Model to run on the worst rows."})
    result: str | None = field(default=None, metadata={"help": "result.json of the run; baselines, warnings."})
    ablation: str | None = field(default=None, metadata={"help": "result.json of an ablation, to show its table."})
    split: str | None = field(default=None, metadata={"help": "Split to report on; default: held-out rows."})
    worst_rows: int = field(default=20, metadata={"help": "Worst rows shown with their photo, 0 to 40."})
    text_encoder_id: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "Where the model reads the field text."}
    )
    seed: int = field(default=42, metadata={"help": "The training's split_seed, else its seed."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    dev_share: float = field(default=0.15, metadata={"help": "As in the training recipe."})
    max_megapixels: float = field(default=80.0, metadata={"help": "As in the training recipe."})
    verify_images: bool = field(default=False, metadata={"help": "As in the training recipe."})
    consistency_filter: bool = field(default=False, metadata={"help": "As in the training recipe."})
    near_duplicates: bool = field(default=True, metadata={"help": "As in the training recipe."})
    split_manifest: str | None = field(default=None, metadata={"help": "As in the training recipe."})
    groups_file: str | None = field(default=None, metadata={"help": "As in the training recipe."})


def run_report(arguments: ReportArguments) -> ReportData:
    """Build the report, write the page and, beside it, its figures as a `result.json` by the page's name.

    Raises:
        ValueError: If predictions, data, model and record do not fit together.
    """
    output = Path(arguments.output)
    if output.suffix != ".html":
        raise ValueError(f"output={arguments.output!r} must be the path of an .html file")
    with RunRecorder(asdict(arguments), arguments.seed) as recorder:
        result, ablation = _run_result(arguments), _ablation(arguments.ablation)
        loaded = load_rows(
            arguments.dataset_name,
            seed=arguments.seed,
            dev_share=arguments.dev_share,
            max_megapixels=arguments.max_megapixels,
            verify_images=arguments.verify_images,
            consistency_filter=arguments.consistency_filter,
            revision=arguments.dataset_revision,
            near_duplicates=arguments.near_duplicates,
            split_manifest=arguments.split_manifest,
            groups_file=arguments.groups_file,
        )
        predictions, left_out = report_lines(read_predictions(arguments.predictions), arguments.split, loaded.lockbox)
        data = build_report(
            predictions,
            matching_rows(predictions, loaded),
            dataset_name=arguments.dataset_name,
            result=result,
            ablation=ablation,
            model=arguments.model,
            text_encoder_id=arguments.text_encoder_id,
            worst_rows=arguments.worst_rows,
            seed=arguments.seed,
            warnings=[*left_out, *data_warnings(result, loaded)],
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, render(data).encode())
        recorder.data = loaded.as_dict()
        recorder.metrics = {"+".join(data.splits): data.metrics}
        recorder.baselines = {name: {"+".join(data.splits): metrics} for name, metrics in data.baselines.items()}
        recorder.details = report_details(data)
        recorder.warnings = data.warnings
        write_result(output.with_suffix(".json"), recorder.result())
    return data


def report_details(data: ReportData) -> dict[str, object]:
    """Return the figures of the page that are no metrics of all rows, ready for JSON."""
    slices = [
        {name: getattr(score, name) for name in SLICE_FIELDS}
        | {name: asdict(getattr(score, name)) for name in ESTIMATES}
        for score in data.scores
    ]
    return {
        "member": data.member,
        "learned_from": data.learned_from,
        "rows": {"rows": data.num_rows, "roadwork": data.num_positives, "groups": data.num_groups},
        "confusion": data.confusion,
        "slices": slices,
        "tests": data.num_tests,
        "temperature": data.temperature,
        "calibration": asdict(data.calibration) | {"adjusted_p": data.calibration_p},
        "cut": {
            "plateau": data.threshold.plateau,
            "best_mcc": data.threshold.best,
            "mcc_at_half": data.threshold.at_half,
        },
        "worst_rows": [row.row_id for row in data.worst],
        "suggestions": [asdict(suggestion) for suggestion in data.suggestions],
    }


def report_summary(data: ReportData, output: str | Path) -> str:
    """Describe a report in a few lines: the headline, the slices that stand out, what to try, where the page lies."""
    metrics = ", ".join(
        f"{name} {interval_text(data.metrics[name], digits=DIGITS)}" for name in ("mcc", "accuracy", "fnr")
    )
    lines = [f"{data.member}, {data.num_rows} rows of {'+'.join(data.splits)} in {data.num_groups} groups: {metrics}"]
    worse = [score for score in data.scores if stands_out(score)]
    lines += [_slice_line(score) for score in worse] or [f"no slice stands out among {data.num_tests} tests"]
    lines += [
        f"hypothesis, try {suggestion.recipe} {suggestion.keys}: {suggestion.hypothesis}"
        for suggestion in data.suggestions
    ]
    return "\n".join([*lines, *(f"warning: {text}" for text in data.warnings), f"the page is {output}"])


def _slice_line(score: SliceScore) -> str:
    points = f"{format_points(score.excess)} points of error rate"
    return f"worse: {score.dimension} {score.value!r}, {score.num_rows} rows, {points}, adjusted p {format_p(score.adjusted_p)}"


def _run_result(arguments: ReportArguments) -> RunResult | None:
    if arguments.result is not None:
        return read_result(arguments.result)
    found = Path(arguments.model) / RESULT_NAME if arguments.model else None
    return read_result(found) if found is not None and found.is_file() else None


def _ablation(path: str | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    rows = read_result(path).details.get("ablation")
    if not rows:
        raise ValueError(f"ablation={path!r} holds no details.ablation; give the result.json of recipes/ablate.py")
    return rows

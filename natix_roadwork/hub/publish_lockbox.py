"""The lockbox: scored once for each set of weights that is published, and every scoring noted.

The log is JSON lines: date, what was scored and its hash, the lockbox and its fingerprint, the scores. It lies beside what
is published and in the repository; both are read before anything is scored. `publish.py` calls `score_lockbox`.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray

from natix_roadwork.calibration import AffineMap
from natix_roadwork.data.feature_key import photos_fingerprint
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.predictions import LEARNED_FROM, Predictions, read_predictions
from natix_roadwork.hub.cards import training_config
from natix_roadwork.hub.publish_arguments import PublishArguments
from natix_roadwork.hub.publish_paths import scrub
from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.predict import predict
from natix_roadwork.inference.predict_inputs import load_predicted
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.runs import RESULT_NAME, RunResult


TEST = "test"
Entry = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A model that predicts: its folder, that of its fold adapters or None, and the hash of all that decides its answers."""

    model: str
    adapters: str | None
    sha256: str


@dataclass(frozen=True)
class Answering:
    """One way in which what is published answers: the model as it is, its adapters, the ensemble.

    Attributes:
        name: `model`, `calibrated`, `adapters` or `ensemble`.
        parts: The models it needs by name; more than one in an ensemble only.
        combination: Makes margins of the parts' predictions; None = those of its one part as they are.
    """

    name: str
    parts: dict[str, Part]
    combination: Ensemble | AffineMap | None = None

    @property
    def sha256(self) -> str:
        """Hash of everything that decides its answers."""
        how = self.combination
        settings = how.as_dict() if isinstance(how, Ensemble) else None if how is None else asdict(how)
        if settings is None:
            return next(iter(self.parts.values())).sha256
        return hash_of({name: part.sha256 for name, part in self.parts.items()}, settings)

    def probabilities(self, predictions: Mapping[Part, Predictions]) -> NDArray[np.float64]:
        """Return `(N,)` probabilities of roadwork from the predictions of all parts."""
        found = {name: predictions[part] for name, part in self.parts.items()}
        if self.combination is None:
            return next(iter(found.values())).probabilities
        if isinstance(self.combination, Ensemble):
            margins = self.combination.combine([replace(rows, member=name) for name, rows in found.items()])
        else:
            margins = self.combination(next(iter(found.values())).margins)
        return 0.5 * (1.0 + np.tanh(0.5 * margins))


@dataclass
class LockboxScores:
    """What is known of the lockbox.

    Attributes:
        entries: Of this publishing, one for each way of answering; empty = not scored.
        log: What is published: every entry about this lockbox, and what the repository held, by date.
        earlier: How many scores of other weights on it came before.
        new: How many of the entries were scored now.
        why_not: Why nothing was scored; empty where it was.
        warnings: What a reader must know.
    """

    entries: list[Entry] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    earlier: int = 0
    new: int = 0
    why_not: str = ""
    warnings: list[str] = field(default_factory=list)


def read_log(text: str, where: str) -> list[Entry]:
    """Read a log.

    Raises:
        ValueError: If a line is no entry; file and line are named.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
            _ = entry["date"], entry["sha256"], entry["lockbox"]["fingerprint"], entry["scores"]["mcc"]["value"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{where}, line {number} is no entry of a lockbox log ({error!r}); restore the file, since it says what "
                "was scored"
            ) from error
        entries.append(entry)
    return entries


def log_text(entries: Sequence[Entry]) -> str:
    """Write a log."""
    return "".join(json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n" for entry in entries)


def merged_logs(*logs: Iterable[Entry]) -> list[Entry]:
    """Put logs together: each scoring once, the earliest where weights were scored twice on one lockbox."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in sorted((entry for log in logs for entry in log), key=lambda entry: entry["date"]):
        found.setdefault((entry["sha256"], entry["lockbox"]["fingerprint"]), entry)
    return list(found.values())


def read_log_file(path: Path) -> list[Entry]:
    """Read a log file; an absent one is empty."""
    return read_log(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else []


def score_lockbox(
    arguments: PublishArguments, trained: RunResult, answerings: Sequence[Answering], pushed: Sequence[Entry]
) -> LockboxScores:
    """Score the test split with everything that was not scored on it before, and note it at once.

    Args:
        arguments: Where things lie.
        trained: Record of the model's training, whose data set and splits are used.
        answerings: What is scored.
        pushed: Log that the repository holds.

    Raises:
        ValueError: If the data set cannot be read, or is split otherwise than in the training.
    """
    log = merged_logs(read_log_file(arguments.log_path), pushed)
    if not arguments.score_lockbox:
        return LockboxScores(log=list(pushed), why_not="it was left out on request")
    asked = _prediction_settings(arguments, trained, next(iter(answerings[0].parts.values())))
    try:
        _, splits = load_predicted(asked, PartialState(cpu=arguments.use_cpu), allow_lockbox=True)
    except ValueError as error:
        if f"has no {TEST} rows" not in str(error):
            raise
        return LockboxScores(log=list(pushed), why_not="the data set has no test split")
    lockbox = {"name": scrub(asked.dataset_name), "split": TEST, **_identity(splits[TEST])}
    known = {entry["sha256"]: entry for entry in log if _is_of(entry, lockbox)}
    missing = [answering for answering in answerings if answering.sha256 not in known]
    predictions: dict[Part, Predictions] = {}
    warnings: list[str] = []
    for answering in missing:
        warnings += _predict(arguments, trained, answering, lockbox, predictions)
        known[answering.sha256] = _entry(arguments, trained, answering, lockbox, predictions)
        log = merged_logs(log, known.values())
        _write_log(arguments.log_path, log)  # at once: what was seen is noted, whatever comes next
    _write_log(arguments.log_path, log)  # also what only the repository had
    entries = [known[answering.sha256] for answering in answerings]
    others = [entry for entry in known.values() if entry not in entries]
    if others and missing:
        warnings.append(
            f"{len(others)} earlier scores of other weights on this lockbox are logged: the more models are scored on it, "
            "the less it says of the best of them"
        )
    earlier = sum(entry["date"] <= entries[0]["date"] for entry in others)
    published = merged_logs([entry for entry in log if _is_of(entry, lockbox)], pushed)
    return LockboxScores(entries, published, earlier, len(missing), warnings=list(dict.fromkeys(warnings)))


def hash_of(*records: object) -> str:
    """Hash JSON values."""
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def _write_log(path: Path, log: Sequence[Entry]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, log_text(log).encode())


def _predict(
    arguments: PublishArguments,
    trained: RunResult,
    answering: Answering,
    lockbox: Mapping[str, Any],
    predictions: dict[Part, Predictions],
) -> list[str]:
    """Predict with the parts that have not predicted yet; returns what they warn of."""
    warnings = []
    for part in answering.parts.values():
        if part not in predictions:
            settings = _prediction_settings(arguments, trained, part, lockbox["fingerprint"])
            warnings += predict(settings, allow_lockbox=True).warnings
            predictions[part] = read_predictions(settings.path)
    return warnings


def _entry(
    arguments: PublishArguments,
    trained: RunResult,
    answering: Answering,
    lockbox: Mapping[str, Any],
    predictions: Mapping[Part, Predictions],
) -> Entry:
    found = [predictions[part] for part in answering.parts.values()]
    scores = metrics_with_intervals(
        found[0].labels, answering.probabilities(predictions), groups=found[0].groups, seed=trained.seed
    )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "answers": answering.name,
        "model": arguments.name,
        "sha256": answering.sha256,
        "lockbox": dict(lockbox),
        "taught_by_it": any(TEST in rows.record[LEARNED_FROM] for rows in found),
        "scores": {name: _without_nan(metric) for name, metric in scores.items()},
    }


def _is_of(entry: Entry, lockbox: Mapping[str, Any]) -> bool:
    return entry["lockbox"]["fingerprint"] == lockbox["fingerprint"]


def _prediction_settings(
    arguments: PublishArguments, trained: RunResult, part: Part, fingerprint: str = ""
) -> PredictArguments:
    """Settings that read the test split as the training did; a folder of its own for these weights and this lockbox."""
    config = training_config(trained)
    name = arguments.dataset_name or config.get("dataset_name")
    if not name:
        raise ValueError(
            f"model={arguments.model!r}: its {RESULT_NAME} names no data set to score the lockbox of; give --dataset_name, or "
            "--score_lockbox false"
        )
    keys = {key: config[key] for key in ROW_KEYS if key in config}
    if config.get("split_seed") is not None:
        keys["seed"] = config["split_seed"]
    optional = {key: config[key] for key in ("text_encoder_id", "dataset_revision") if config.get(key) is not None}
    same = ("feature_cache", "per_device_eval_batch_size", "dataloader_num_workers", "bf16", "use_cpu")
    return PredictArguments(
        model=part.model,
        adapters=part.adapters,
        member="part",
        dataset_name=name,
        splits=[TEST],
        output_dir=str(Path(arguments.output_dir) / "lockbox" / f"{part.sha256[:16]}-{fingerprint[:16]}"),
        existing_run="resume",
        **{key: getattr(arguments, key) for key in same},
        **keys,
        **optional,
    )


def _without_nan(metric: Mapping[str, float | None]) -> dict[str, float | None]:
    """JSON knows no NaN: what is undefined is null."""
    return {
        name: None if value is None or not math.isfinite(value) else float(value) for name, value in metric.items()
    }


def _identity(rows: Dataset) -> dict[str, Any]:
    """Fingerprint of photos and labels, and how many there are."""
    labels = [int(label) for label in rows["label"][:]]
    return {"fingerprint": hash_of(photos_fingerprint(rows), labels), "rows": len(rows), "roadwork": sum(labels)}

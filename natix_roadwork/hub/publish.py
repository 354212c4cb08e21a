"""Publishing: what was trained, scored once on the lockbox, pushed in one step, loaded back, and only then called done.

`recipes/publish.py` and `natix-roadwork publish` call `publish` and print `publish_summary`. The order matters: everything
that can be refused is refused before the lockbox is scored, the score is noted before anything is pushed, and the record
that claims success is written last. A publishing that died is completed by running it again.
"""

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.hub.cards import PUBLISHED, training_config, write_cards
from natix_roadwork.hub.model_card_json import repo_id_problem
from natix_roadwork.hub.publish_arguments import LOG_NAME, PublishArguments
from natix_roadwork.hub.publish_check import differences
from natix_roadwork.hub.publish_files import check_files, file_hashes, read_calibration, stage
from natix_roadwork.hub.publish_lockbox import (
    Answering,
    LockboxScores,
    Part,
    hash_of,
    log_text,
    read_log,
    score_lockbox,
)
from natix_roadwork.hub.publish_paths import scrub
from natix_roadwork.hub.publish_targets import FolderTarget, HubTarget, Target
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.feature_statistics import RECORD_NAME
from natix_roadwork.inference.member import BOOKKEEPING, load_member
from natix_roadwork.inference.roadwork_ensemble import ADAPTERS_FOLDER
from natix_roadwork.inference.tta_run import STATISTICS_FOLDER
from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text, read_result, write_result
from natix_roadwork.training.metadata_inputs import side_inputs


STAGED_FOLDER = "staged"


@dataclass
class Publishing:
    """What came of it.

    Attributes:
        where: Repository or folder.
        revision: Commit on the Hub; None for a folder.
        files: Hash of each published file by name.
        left_behind: What of the model's folder was not published.
        lockbox: Scores, and what is known of earlier ones.
        differences: What was loaded back otherwise than it was pushed; empty = it is published.
        warnings: What the publisher must know.
    """

    where: str
    revision: str | None
    files: dict[str, str]
    left_behind: list[str]
    lockbox: LockboxScores
    differences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def publish(arguments: PublishArguments) -> Publishing:
    """Publish a model, load it back, and write the record that says so.

    Args:
        arguments: What and where.

    Returns:
        What was published; with `differences`, it lies there but is not what was trained, and there is no record.

    Raises:
        ValueError: If something must not be published, cannot be read, or the Hub refuses.
    """
    seed = read_result(Path(arguments.model) / RESULT_NAME).seed
    with RunRecorder(dataclasses.asdict(arguments), seed) as recorder:
        (Path(arguments.output_dir) / RESULT_NAME).unlink(missing_ok=True)
        done, target = push(arguments)
        done.differences = differences(arguments, target, done.files)
        if not done.differences:
            recorder.metrics = {entry["answers"]: {"test": entry["scores"]} for entry in done.lockbox.entries}
            recorder.details = {"where": done.where, "revision": done.revision, "files": done.files}
            recorder.warnings = done.warnings
            recorder.write(arguments.output_dir)
    return done


def push(arguments: PublishArguments) -> tuple[Publishing, Target]:
    """Stage, check, score and push, without loading it back; returns what was pushed, and where it lies.

    Raises:
        ValueError: As `publish`.
    """
    trained = read_result(Path(arguments.model) / RESULT_NAME)
    staged = Path(arguments.output_dir) / STAGED_FOLDER
    left_behind = stage(arguments, staged)
    check_files(staged)
    answerings = ways_of_answering(arguments)
    target = open_target(arguments)
    lockbox = score_lockbox(arguments, trained, answerings, read_log(target.read(LOG_NAME), target.name))
    add_record(arguments, trained, lockbox, target, staged)
    check_files(staged)
    files = file_hashes(staged)
    revision = target.push(staged, f"Publish {arguments.name} {arguments.version}")
    warnings = warnings_of(arguments, lockbox)
    return Publishing(target.name, revision, files, left_behind, lockbox, warnings=warnings), target


def open_target(arguments: PublishArguments) -> Target:
    """Open the repository or folder.

    Raises:
        ValueError: If it cannot be written.
    """
    if arguments.repo_id is not None:
        return HubTarget(arguments.repo_id, arguments.private)
    return FolderTarget(str(arguments.folder))


def ways_of_answering(arguments: PublishArguments) -> list[Answering]:
    """Load every part once and return each way in which they answer together.

    Raises:
        ValueError: If a model cannot be loaded, an adapter belongs to another, or members are not the ensemble's.
    """
    model = _part(arguments.model, None)
    ways = [Answering("model", {"model": model})]
    if arguments.calibration is not None:
        ways.append(Answering("calibrated", {"model": model}, read_calibration(arguments.calibration)))
    if arguments.adapters is not None:
        ways.append(Answering("adapters", {"adapters": _part(arguments.model, arguments.adapters)}))
    if arguments.ensemble is not None:
        ensemble = Ensemble.load(arguments.ensemble)
        if sorted(ensemble.members) != sorted(arguments.sources):
            raise ValueError(
                f"members={sorted(arguments.sources)} are not those of {arguments.ensemble}, {sorted(ensemble.members)}"
            )
        parts = {name: _part(*arguments.sources[name]) for name in ensemble.members}
        ways.append(Answering("ensemble", parts, ensemble))
    return ways


def add_record(
    arguments: PublishArguments, trained: RunResult, lockbox: LockboxScores, target: Target, staged: Path
) -> None:
    """Add what is derived to the staged files: record, log and cards."""
    published = _described(arguments, lockbox, staged)
    before = json.loads(target.read(RESULT_NAME) or "{}").get("details", {}).get(PUBLISHED, {})
    same = {**before, "submitted_at": None} == json.loads(json.dumps(published))
    published["submitted_at"] = before["submitted_at"] if same else int(time.time())
    values = scrub(dataclasses.asdict(trained))
    values["details"][PUBLISHED] = published
    result = RunResult(**values)
    write_result(staged / RESULT_NAME, result)
    if lockbox.log:
        write_whole(staged / LOG_NAME, log_text(lockbox.log).encode())
    write_cards(staged, read_result(staged / RESULT_NAME))


def warnings_of(arguments: PublishArguments, lockbox: LockboxScores) -> list[str]:
    """Say what the publisher must know."""
    found = list(lockbox.warnings)
    problem = None if arguments.repo_id is None else repo_id_problem(arguments.repo_id)
    if problem is not None:
        found.append(f"the subnet refuses the {problem}")
    if arguments.repo_id is not None and arguments.private:
        found.append("private=True: the subnet reads public repositories only")
    if arguments.hotkey is None:
        found.append("hotkey=None: without it there is no model_card.json, which miners of the subnet need")
    return found


def publish_summary(done: Publishing, arguments: PublishArguments) -> str:
    """Describe a publishing in a few lines; the last one says whether it succeeded."""
    lines = []
    for entry in done.lockbox.entries:
        lines.append(
            f"lockbox, {entry['answers']}: MCC {interval_text(entry['scores']['mcc'])}, scored {entry['date'][:10]}"
        )
    if done.lockbox.entries:
        lines.append(f"{done.lockbox.new} of {len(done.lockbox.entries)} scored now, the others taken from the log")
    else:
        lines.append(f"lockbox not scored: {done.lockbox.why_not}")
    if done.left_behind:
        lines.append(f"left behind in {arguments.model}: {', '.join(done.left_behind)}")
    lines += [f"warning: {warning}" for warning in done.warnings]
    lines += [f"differs: {line}" for line in done.differences]
    at = f"{done.where} at {done.revision[:12]}" if done.revision else done.where
    if done.differences:
        return "\n".join([*lines, f"NOT published as trained: {len(done.differences)} differences in {at}"])
    return "\n".join([*lines, f"published: {len(done.files)} files in {at}, loaded back and equal"])


def _part(model: str, adapters: str | None) -> Part:
    """Hash weights, views and the model's own settings; what transformers adds to a config changes with its version."""
    member = load_member(model, adapters=adapters)
    kept = RoadworkConfig.__annotations__.keys() - BOOKKEEPING
    own = {name: value for name, value in member.model.config.to_dict().items() if name in kept}
    return Part(model, adapters, hash_of(member.sha256, member.adapters, member.processor.settings(), own))


def _described(arguments: PublishArguments, lockbox: LockboxScores, staged: Path) -> dict[str, Any]:
    """What the cards say of the publishing, as JSON values."""
    ensemble = Ensemble.load(arguments.ensemble) if arguments.ensemble is not None else None
    report = read_result(arguments.report).details["slices"] if arguments.report is not None else []
    statistics = staged / STATISTICS_FOLDER
    config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
    folders = [arguments.model, *arguments.member_folders.values()]
    return {
        "name": arguments.name,
        "repo_id": arguments.repo_id,
        "version": arguments.version,
        "hotkey": arguments.hotkey,
        "submitted_at": None,
        "adapters": sorted(path.name for path in (staged / ADAPTERS_FOLDER).glob("*")),
        "ensemble": {"method": ensemble.method, "members": list(ensemble.members)} if ensemble else None,
        "statistics": sorted(path.parent.relative_to(statistics).as_posix() for path in statistics.rglob(RECORD_NAME)),
        "calibration": dataclasses.asdict(read_calibration(arguments.calibration)) if arguments.calibration else None,
        "backbones": list(dict.fromkeys(_backbone_of(Path(folder)) for folder in folders)),
        "backbone_in_checkpoint": bool(config.get("backbone_in_checkpoint")),
        "model": {name: config[name] for name in ("view_size", "metadata_fields")}
        # a bare photo has no depth, and the lockbox was scored without
        | {"num_views": config["num_views"] - config.get("depth_view", False)}
        | {"side_inputs": side_inputs(config), "head_parameters": _head_parameters(staged)},
        "lockbox": {"entries": lockbox.entries, "earlier": lockbox.earlier, "why_not": lockbox.why_not},
        "slices": scrub(report),
    }


def _head_parameters(folder: Path) -> int:
    """Count what of the saved weights is not the backbone."""
    count = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as weights:
            shapes = [
                weights.get_slice(name).get_shape() for name in weights.keys() if not name.startswith("backbone.")
            ]
        count += sum(math.prod(shape) for shape in shapes)
    return count


def _backbone_of(folder: Path) -> str:
    """Id of a model's backbone as its training was asked for it; the kind of its network where that is not known."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    record = folder / RESULT_NAME
    asked = training_config(read_result(record)).get("backbone_id") if record.is_file() else None
    found = config.get("backbone_id") or scrub(asked)
    return found or config["backbone_config"].get("model_type", "unknown")

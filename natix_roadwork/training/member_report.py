"""What came out of training an ensemble's members: a table, `members.json`, and the record of the whole run.

In come the outcomes of `training/member_runs.py`; `members.json` tells people and their scripts, no recipe reads it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from natix_roadwork.data.feature_shards import write_json
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text, read_result
from natix_roadwork.training.member_runs import Outcome


MEMBERS_NAME = "members.json"


def write_members(outcomes: Sequence[Outcome], output_dir: str | Path) -> dict[str, Any]:
    """Write `members.json`, for people and their scripts: which members there are, where, and how good.

    Each trained member has `name`, `folder` (relative to the file, `from_pretrained` loads it), `recipe`, `seed`,
    `metrics` as in its `result.json` and `splits`, the hash of which row lies in which split; `failed` lists names.

    Returns:
        What the file holds.
    """
    found, output_dir = _results(outcomes), Path(output_dir)
    members = [
        {
            "name": outcome.member.name,
            "folder": os.path.relpath(outcome.member.folder, output_dir),
            "recipe": outcome.member.recipe,
            "seed": found[outcome.member.name].seed,
            "metrics": found[outcome.member.name].metrics,
            "splits": found[outcome.member.name].details["splits"]["sha256"],
        }
        for outcome in outcomes
        if outcome.member.name in found
    ]
    content = {"members": members, "failed": failed_names(outcomes), "warnings": _warnings(found)}
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / MEMBERS_NAME, content)
    return content


def record_members(recorder: RunRecorder, outcomes: Sequence[Outcome]) -> None:
    """Put into the record of the whole run each member's metrics, under `NAME.METRIC` of their split."""
    found = _results(outcomes)
    for name, result in found.items():
        recorder.data = recorder.data or result.data
        for split, metrics in result.metrics.items():
            recorder.metrics.setdefault(split, {}).update({f"{name}.{key}": value for key, value in metrics.items()})
    recorder.details = {"states": {outcome.member.name: outcome.state for outcome in outcomes}}
    recorder.warnings = _warnings(found)


def members_table(outcomes: Sequence[Outcome], output_dir: str | Path) -> str:
    """Describe the members in a line each: what became of it, its MCC with interval by split, and its minutes."""
    found = _results(outcomes)
    splits = list(dict.fromkeys(split for result in found.values() for split in result.metrics))
    width = max(24, *(len(outcome.member.name) for outcome in outcomes))
    lines = [
        f"{'MCC [95 % interval]':{width}}{'':9}" + "".join(f"{split:>24}" for split in splits) + f"{'minutes':>9}"
    ]
    for outcome in outcomes:
        line = f"{outcome.member.name:{width}} {outcome.state:8}"
        if result := found.get(outcome.member.name):
            line += "".join(f"{interval_text(result.metrics[split]['mcc']):>24}" for split in splits)
            line += f"{result.wall_seconds / 60:>9.1f}"
        lines.append(line)
    lines.append(f"{'folders and metrics':{width}} {Path(output_dir) / MEMBERS_NAME}")
    return "\n".join(lines + [f"warning: {text}" for text in _warnings(found)])


def failed_names(outcomes: Sequence[Outcome]) -> list[str]:
    """Name the members that failed."""
    return [outcome.member.name for outcome in outcomes if outcome.state == "failed"]


def _results(outcomes: Sequence[Outcome]) -> dict[str, RunResult]:
    return {
        outcome.member.name: read_result(outcome.member.folder / RESULT_NAME)
        for outcome in outcomes
        if outcome.state != "failed"
    }


def _warnings(found: dict[str, RunResult]) -> list[str]:
    """Each member's warnings once, and one where members were not trained and tuned on the same rows."""
    texts = list(dict.fromkeys(text for result in found.values() for text in result.warnings))
    if len({result.details["splits"]["sha256"] for result in found.values()}) > 1:
        texts.append(
            "the members' train and dev rows are not the same, so no row is unseen by all; give them one split_seed"
        )
    return texts

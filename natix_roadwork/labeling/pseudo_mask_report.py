"""What a folder of masks holds, counted from its records: by split, label and class, for `result.json` and the terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from natix_roadwork.data.masks import mask_path, read_record
from natix_roadwork.data.natix_columns import LABEL_NAMES
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES
from natix_roadwork.runs import RESULT_NAME, RunResult


ALL = "all"
ANY = "any"


def summarise(
    folder: Path,
    splits: Mapping[str, Dataset],
    failures: Sequence[Mapping[str, str]],
    provider: Mapping[str, Any],
    lockbox: bool,
) -> dict[str, Any]:
    """Count what the records of a folder hold; of a killed and resumed run the same as of one that was not.

    Args:
        folder: Folder of masks.
        splits: The rows that were to be marked.
        failures: Photos without a mask, with `split` and `reason`.
        provider: Name, classes and settings of who marked.
        lockbox: Whether `test` is a lockbox, whose counts are not divided by label.

    Returns:
        `rows` (photos, marked, failed of each split), `coverage` ({split: {label or `all`: {`photos`, class or `any`: share
        of them}}}), `failures` by reason, `left_out` and `notes` of all photos, `objects` by class, `unknown_classes`.

    Raises:
        ValueError: If a mask is gone that no failure accounts for, or a record is damaged.
    """
    missing = {failure["row_id"] for failure in failures}
    totals: dict[str, Counter[str]] = {name: Counter() for name in ("left_out", "notes", "objects")}
    rows, coverage = {}, {}
    for name, split in splits.items():
        groups: dict[str, Counter[str]] = {ALL: Counter()}
        by_label = not (lockbox and name == "test")
        for row_id, label in zip(split["row_id"][:], split["label"][:], strict=True):
            if row_id in missing:
                continue
            record = read_record(mask_path(folder, row_id))
            if record is None:
                raise ValueError(
                    f"row {row_id!r}: its mask in {folder} is gone; does another run write there? Run again"
                )
            _add(totals, record)
            shown = [kind for kind in provider["classes"] if record["areas"][kind]]
            seen = ["photos", *shown, *([ANY] if shown else [])]
            for group in (ALL, LABEL_NAMES[label]) if by_label else (ALL,):
                groups.setdefault(group, Counter()).update(seen)
        marked = groups[ALL]["photos"]
        rows[name] = {"photos": len(split), "marked": marked, "failed": len(split) - marked}
        coverage[name] = {group: _shares(counts, provider["classes"]) for group, counts in sorted(groups.items())}
    return {
        "provider": provider,
        "rows": rows,
        "coverage": coverage,
        "failures": dict(Counter(failure["reason"] for failure in failures)),
        **{key: {name: counts[name] for name in sorted(counts)} for key, counts in totals.items()},
        "unknown_classes": [kind for kind in MASK_CLASSES if kind not in provider["classes"]],
    }


def mask_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a run in a few lines: share of photos that show each class, by split and label, failures, speed."""
    details = result.details
    classes = [kind for kind in MASK_CLASSES if kind not in details["unknown_classes"]]
    lines = [f"{'split':7}{'label':10}{'photos':>8}" + "".join(f"{kind:>11}" for kind in (*classes, ANY))]
    for split, groups in details["coverage"].items():
        for label, shares in groups.items():
            values = "".join(
                f"{shares[kind]:>10.0%} " if shares["photos"] else f"{'none':>11}" for kind in (*classes, ANY)
            )
            lines.append(f"{split:7}{label:10}{shares['photos']:>8}{values.rstrip() if shares['photos'] else values}")
    if details["failures"]:
        lines.append(f"without a mask: {details['failures']}")
    if any(details["left_out"].values()):
        lines.append(f"objects left out: {details['left_out']}")
    if details["photos_per_second"] is not None:
        lines.append(
            f"{details['photos_written']} photos in {details['seconds']:.0f} s, {details['photos_per_second']:.1f} a second"
        )
    else:
        lines.append("nothing was left to mark")
    lines.append(f"every figure: {Path(output_dir) / RESULT_NAME}")
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _add(totals: Mapping[str, Counter[str]], record: Mapping[str, Any]) -> None:
    totals["left_out"].update(record["left_out"])
    totals["notes"].update(record["notes"])
    totals["objects"].update(found["kind"] for found in record["objects"])


def _shares(counts: Counter[str], classes: Sequence[str]) -> dict[str, float | int | None]:
    photos = counts["photos"]
    return {"photos": photos, **{kind: counts[kind] / photos if photos else None for kind in (*classes, ANY)}}

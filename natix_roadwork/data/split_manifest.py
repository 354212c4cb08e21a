"""The split manifest: which row and which group lie in which split, as one hash that is checked when data is loaded.

In come the splits of `load_rows` or numbered folds; out goes a JSON file. Two runs with equal manifests trained, tuned
and judged on the same rows.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset

from natix_roadwork.data.folds import require_disjoint
from natix_roadwork.data.natix_columns import LABEL_NAMES


MANIFEST_NAME = "split_manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class SplitManifest:
    """What identifies a partition of rows.

    Attributes:
        sha256: Hash over the sorted (row_id, group, split) of all rows.
        counts: For each split, the number of rows of each class name.
        groups: For each split, the number of groups.
        format_version: Layout of the file.
    """

    sha256: str
    counts: dict[str, dict[str, int]]
    groups: dict[str, int]
    format_version: int = FORMAT_VERSION


def manifest_of_splits(splits: Mapping[str, Dataset]) -> SplitManifest:
    """Describe loaded splits.

    Raises:
        ValueError: If two splits share a group or a row id.
    """
    columns = {name: [split[key][:] for key in ("row_id", "group", "label")] for name, split in splits.items()}
    names = [name for name, (row_ids, _, _) in columns.items() for _ in row_ids]
    row_ids, groups, labels = ([value for parts in columns.values() for value in parts[key]] for key in range(3))
    return make_manifest(row_ids, groups, names, labels)


def make_manifest(
    row_ids: Sequence[str], groups: Sequence[str], splits: Sequence[str], labels: Sequence[int]
) -> SplitManifest:
    """Describe a partition of N rows by splits or by folds.

    Args:
        row_ids: `(N,)` unique ids.
        groups: `(N,)` group names.
        splits: `(N,)` split or fold of each row.
        labels: `(N,)` of 0 and 1.

    Raises:
        ValueError: If a row id occurs twice, or a group lies in two splits.
    """
    triples = sorted(zip(row_ids, groups, map(str, splits), strict=True))
    for before, after in itertools.pairwise(triples):
        if before[0] == after[0]:
            raise ValueError(f"row id {after[0]!r} occurs more than once in the splits {before[2]!r} and {after[2]!r}")
    by_split: dict[str, list[tuple[str, int]]] = {}
    for group, split, label in zip(groups, map(str, splits), labels, strict=True):
        by_split.setdefault(split, []).append((group, label))
    require_disjoint({split: [group for group, _ in rows] for split, rows in by_split.items()})
    counts = {
        split: {name: sum(label == code for _, label in rows) for code, name in enumerate(LABEL_NAMES)}
        for split, rows in by_split.items()
    }
    sizes = {split: len({group for group, _ in rows}) for split, rows in by_split.items()}
    digest = hashlib.sha256("\n".join(json.dumps(triple) for triple in triples).encode()).hexdigest()
    return SplitManifest(digest, counts, sizes)


def write_manifest(path: str | Path, manifest: SplitManifest) -> Path:
    """Write a manifest, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def read_manifest(path: str | Path) -> SplitManifest:
    """Read a manifest.

    Raises:
        ValueError: If the file is absent, is no manifest, or has another format version.
    """
    path = Path(path)
    try:
        manifest = SplitManifest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is no split manifest: {error}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version={manifest.format_version!r}, this package reads {FORMAT_VERSION}")
    return manifest


def verify_manifest(path: str | Path, found: SplitManifest) -> None:
    """Check that loaded splits are those of a manifest on disk.

    Raises:
        ValueError: Naming the counts that differ, or saying that equal counts hold other rows or groups.
    """
    expected = read_manifest(path)
    if expected.sha256 == found.sha256 and expected.counts == found.counts:
        return
    differing = [
        f"{split}: {expected.counts.get(split, 'absent')} in the manifest, {found.counts.get(split, 'absent')} loaded"
        for split in sorted(expected.counts.keys() | found.counts.keys())
        if expected.counts.get(split) != found.counts.get(split)
    ]
    what = "; ".join(differing) or "the counts are equal, but other rows or groups lie in the splits"
    raise ValueError(
        f"the splits are not those of {path} ({what}); use the same data, dev_share, near_duplicates and seed "
        "(split_seed where it is set), or delete the manifest to accept the new splits"
    )

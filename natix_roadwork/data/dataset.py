"""Load a data set of any source as rows of one schema, split into train, dev and test.

In comes a name: a Hub id, parquet shards in NATIX's own columns, or an imagefolder. Out go `datasets.Dataset`s whose
photos are still encoded (`data/photo_batches.py` decodes them in the workers) and a report of every dropped row.
"""

import glob
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Value, concatenate_datasets, load_dataset

from natix_roadwork.data.folds import dev_mask, require_both_classes
from natix_roadwork.data.imagefolder import imagefolder_rows, scan_imagefolder
from natix_roadwork.data.metadata_report import metadata_report
from natix_roadwork.data.natix_columns import (
    BOOKKEEPING_COLUMNS,
    COLUMN_NAMES,
    LABEL_NAMES,
    NATIX_FIELDS,
    columns_in,
    require_column,
)
from natix_roadwork.data.normalise import normalise_rows
from natix_roadwork.data.row_report import RowProblem, RowReport
from natix_roadwork.data.source_parts import (
    SourcePart,
    drop_contradicting,
    drop_shared_groups,
    group_parts,
    rows_fingerprint,
)
from natix_roadwork.data.sources import SPLITS, Source, find_source
from natix_roadwork.data.split_manifest import SplitManifest, manifest_of_splits, verify_manifest, write_manifest
from natix_roadwork.model.configuration_roadwork import DEFAULT_VOCABULARIES


logger = logging.getLogger(__name__)

ROW_COLUMNS = [
    "row_id", "image", "label", "latitude", "longitude", "weather", "daytime", "scene", "travel_alteration", "text",
    "city", "width", "height", "video_id", "sequence_id", "mask", "group", "split",
]  # fmt: skip
FOLDER_FEATURES = Features({"image": Image(decode=False), "row_id": Value("string"), "record": Value("string")})


@dataclass(frozen=True)
class LoadedRows:
    """A loaded data set.

    Attributes:
        splits: Rows by split (`train`, `dev`, `test`, those that there are), in the columns `ROW_COLUMNS`.
        report: What was read, kept and dropped.
        source: Kind of source: `hub`, `parquet` or `imagefolder`.
        dataset_name: The name that was loaded.
        fingerprint: Hash over ids, labels, groups, splits, photo sizes and metadata of all rows; equal on every machine.
        lockbox: Whether `test` is a lockbox, which recipes never score.
        commit: The commit of a Hub data set; None for local files.
        manifest: Hash over the ids, groups and splits of all rows, with counts.
        near_duplicates: Row ids of each pair of photos of almost the same picture, dropped rows included.
    """

    splits: dict[str, Dataset]
    report: RowReport
    source: str
    dataset_name: str
    fingerprint: str
    lockbox: bool
    commit: str | None
    manifest: SplitManifest
    near_duplicates: list[tuple[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """Return what `result.json` keeps of the data, without the rows."""
        return {
            "name": self.dataset_name,
            "source": self.source,
            "commit": self.commit,
            "fingerprint": self.fingerprint,
            "counts": self.report.as_dict(),
        }


def load_rows(
    dataset_name: str,
    *,
    seed: int = 0,
    dev_share: float = 0.15,
    max_megapixels: float = 80.0,
    verify_images: bool = False,
    consistency_filter: bool = False,
    revision: str | None = None,
    cache_dir: str | None = None,
    num_proc: int | None = None,
    near_duplicates: bool = True,
    split_manifest: str | Path | None = None,
    groups_file: str | Path | None = None,
) -> LoadedRows:
    """Load a data set and bring it to the row schema.

    Rows of one video or sequence, within 100 m of each other, or of almost the same picture are one group. Where the
    source has no dev split, whole groups of train become one. Train rows that share a group with dev or test, and dev
    rows that share one with test, are dropped and counted; that no group is left in two splits is checked on every load.

    Args:
        dataset_name: A folder, parquet shards, or a Hub id.
        seed: Decides which groups become dev rows.
        dev_share: Share of the train rows that become dev rows.
        max_megapixels: Photos with more million pixels are dropped from their header.
        verify_images: Decode every photo once, to drop those that are damaged inside the picture data.
        consistency_filter: Drop rows whose description contradicts the label, as validators do: label 0 with one,
            label 1 without.
        revision: Branch, tag or commit of a Hub data set.
        cache_dir: Folder of the `datasets` cache.
        num_proc: Processes that read the rows.
        near_duplicates: Look for photos of almost the same picture, which decodes each photo once, as small as
            its format allows; the result is kept in the datasets cache.
        split_manifest: File that says which rows lie in which split: checked where it is there, else written.
        groups_file: CSV file of `row_id` and `group`, such as an audit's, which also joins photos alike by embedding.

    Raises:
        ValueError: If there is nothing to load, a needed column is missing, no row is left, train or dev has one class
            only, or the splits are not those of the manifest.
    """
    source = find_source(dataset_name, revision)
    report = RowReport(dataset_name, source.kind)
    settings = {"max_megapixels": max_megapixels, "verify_images": verify_images, "num_proc": num_proc}
    read = _read_parquet if source.layout == "parquet" else _read_imagefolder
    parts = {split: read(source, split, report, settings, cache_dir) for split in source.files}
    _require_unique([row_id for part in parts.values() for row_id in part.column("row_id")], dataset_name)
    if consistency_filter:
        for split, part in parts.items():
            drop_contradicting(split, part, report)
    duplicates = group_parts(
        parts, report, near_duplicates=near_duplicates, num_proc=num_proc, groups_file=groups_file
    )
    drop_shared_groups(parts, report)
    rows = {split: part.kept for split, part in parts.items()}
    if "train" in parts and "dev" not in parts:
        train = parts["train"]
        labels = np.asarray(train.column("label"))[train.kept]
        is_dev = dev_mask(labels, [train.groups[row] for row in train.kept], dev_share, seed)
        rows["train"], rows["dev"] = train.kept[~is_dev], train.kept[is_dev]
        parts["dev"] = train
        report.notes.append(f"dev rows: {is_dev.mean():.1%} of train by whole groups, seed {seed}")
    splits = {split: _build(parts[split], rows[split], split) for split in SPLITS if split in rows}
    for split, dataset in splits.items():
        _count(report, split, dataset)
        if split != "test":
            require_both_classes(dataset["label"][:], split)
    manifest = _checked_manifest(splits, split_manifest)
    lockbox, fingerprint = source.kind != "imagefolder" and "test" in splits, rows_fingerprint(parts, rows)
    looked_at = [split for name, split in splits.items() if name != "test" or not lockbox]
    if looked_at:
        report.metadata = metadata_report(concatenate_datasets(looked_at), DEFAULT_VOCABULARIES, report.problems)
    logger.log(logging.WARNING if report.needs_attention else logging.INFO, report.summary())
    known = (source.kind, dataset_name, fingerprint, lockbox, source.commit)
    return LoadedRows(splits, report, *known, manifest, duplicates)


def _checked_manifest(splits: dict[str, Dataset], path: str | Path | None) -> SplitManifest:
    """Describe the splits, which checks that they share no group, and compare with the manifest on disk or write it."""
    manifest = manifest_of_splits(splits)
    if path is not None and Path(path).is_file():
        verify_manifest(path, manifest)
    elif path is not None:
        write_manifest(path, manifest)
    return manifest


def _read_parquet(source: Source, split: str, report: RowReport, settings: dict, cache_dir: str | None) -> SourcePart:
    paths = source.files[split]
    shards = [(source.shards[path], _shard_rows(path, paths[0])) for path in paths]
    names = pq.read_schema(paths[0]).names
    columns = columns_in(names)
    _note_columns(report, names, columns)
    files = {split: [glob.escape(str(path.absolute())) for path in paths]}
    raw = load_dataset("parquet", data_files=files, split=split, cache_dir=cache_dir)
    raw = raw.cast_column("image", Image(decode=False))
    report.read[split] = len(raw)
    return _normalise(raw, columns, shards, report, settings, "")


def _shard_rows(path: Path, first: Path) -> int:
    """Check a shard's columns and count its rows from the footer."""
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"shard {path} cannot be read as parquet: {error}") from error
    schema = footer.schema.to_arrow_schema()
    try:
        require_column("image", schema.names)
        require_column("label", schema.names)
    except ValueError as error:
        raise ValueError(f"shard {path}: {error}") from None
    kind = schema.field("image").type
    if not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"shard {path}: column 'image' holds {kind}; expected the encoded photos")
    differing = set(schema.names) ^ set(pq.read_schema(first).names)
    if differing:
        raise ValueError(f"shard {path} and {first.name} have different columns: {sorted(differing)}")
    return footer.num_rows


def _read_imagefolder(
    source: Source, split: str, report: RowReport, settings: dict, cache_dir: str | None
) -> SourcePart:
    folder = source.files[split][0].absolute()
    scan = scan_imagefolder(folder, split)
    report.read[split] = scan.num_read
    report.problems += scan.problems
    if not scan.records:
        first = f"; the first: {scan.problems[0].row_id}: {scan.problems[0].reason}" if scan.problems else ""
        raise ValueError(f"{folder}: no photo is both there and listed ({len(scan.problems)} dropped{first})")
    try:
        columns = columns_in(scan.keys)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    _note_columns(report, scan.keys, columns)
    raw = Dataset.from_generator(
        imagefolder_rows,
        features=FOLDER_FEATURES,
        cache_dir=cache_dir,
        gen_kwargs={"folder": str(folder), "split": split, "signature": scan.signature},
    )
    return _normalise(raw, columns, [], report, settings, str(folder))


def _note_columns(report: RowReport, names: Sequence[str], columns: dict[str, str]) -> None:
    used = {"image", *columns.values(), *BOOKKEEPING_COLUMNS}
    report.unused_columns += [name for name in names if name not in used and name not in report.unused_columns]
    absent = [COLUMN_NAMES[field][0] for field in NATIX_FIELDS if field not in columns]
    if "latitude" in columns:
        absent.remove("gps")
    report.missing_columns += [name for name in absent if name not in report.missing_columns]


def _normalise(
    raw: Dataset,
    columns: dict[str, str],
    shards: list[tuple[str, int]],
    report: RowReport,
    settings: dict,
    mask_folder: str,
) -> SourcePart:
    values = normalise_rows(raw, columns, shards, mask_folder=mask_folder, **settings).with_format(None)
    dropped = np.asarray(values["dropped"][:], dtype=bool)
    for row_id, drop, found in zip(values["row_id"][:], dropped, values["problems"][:], strict=True):
        report.problems += [RowProblem(row_id, **problem, dropped=bool(drop)) for problem in found]
    kept = np.flatnonzero(~dropped)
    if not len(kept):
        first = report.problems[-1] if report.problems else None
        example = f"; one of them: {first.row_id}, {first.column}={first.value!r}: {first.reason}" if first else ""
        raise ValueError(f"{report.dataset_name!r}: all {len(values)} rows are unusable{example}")
    return SourcePart(raw.select_columns(["image"]), values, columns, kept)


def _require_unique(row_ids: list[str], dataset_name: str) -> None:
    if len(set(row_ids)) != len(row_ids):
        seen: set[str] = set()
        twice = next(row_id for row_id in row_ids if row_id in seen or seen.add(row_id))
        raise ValueError(f"{dataset_name!r}: row id {twice!r} occurs more than once")


def _build(part: SourcePart, rows: np.ndarray, split: str) -> Dataset:
    """Join photos and values without copying a photo, and pick the rows."""
    values = part.values.remove_columns(["group", "num_bytes", "dropped", "problems"])
    values = values.add_column("group", part.groups).add_column("split", [split] * len(values))
    return concatenate_datasets([part.images, values], axis=1).select_columns(ROW_COLUMNS).select(rows)


def _count(report: RowReport, split: str, dataset: Dataset) -> None:
    labels = dataset["label"][:]
    report.kept[split] = {name: labels.count(label) for label, name in enumerate(LABEL_NAMES)}
    report.groups[split] = len(set(dataset["group"][:]))

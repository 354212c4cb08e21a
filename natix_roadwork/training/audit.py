"""The audit of a data set before anything is trained on it: leaks, groups, near-duplicates, doubtful labels.

In come the settings of `recipes/audit.py`; out go the files of its folder and what its `result.json` holds. Only train
and dev rows are looked at; of a lockbox nothing but its groups.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.folds import (
    Fold,
    LeakGap,
    leak_gap,
    leave_city_out,
    logistic_out_of_fold,
    stratified_group_folds,
)
from natix_roadwork.data.groups import components_of, group_names
from natix_roadwork.data.label_noise import write_duplicate_page, write_label_noise_page
from natix_roadwork.data.leak_audit import AuditResult, audited_fields
from natix_roadwork.data.near_duplicates import embedding_pairs
from natix_roadwork.data.split_manifest import MANIFEST_NAME, make_manifest, write_manifest
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.training.arguments import PretrainArguments
from natix_roadwork.training.pretrain_model import build_model


LEAK_NAME = "leaks.json"
FOLDS_NAME = "folds_manifest.json"
GROUPS_NAME = "groups.csv"
DUPLICATES_NAME = "near_duplicates.html"
NOISE_NAME = "label_noise.html"


@dataclass
class AuditArguments:
    """What to audit.

    Attributes:
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder.
        output_dir: Folder of the audit's files; an earlier audit in it is replaced.
        backbone_id: Frozen backbone of the out-of-fold probabilities behind leak gap and label noise.
        feature_cache: Folder of the backbone's tokens; None = the datasets cache.
    """

    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    output_dir: str = field(default="runs/audit", metadata={"help": "Folder of the audit's files."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    dev_share: float = field(default=0.15, metadata={"help": "Share of the train rows held out as dev."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused from their header."})
    near_duplicates: bool = field(default=True, metadata={"help": "Photos of almost the same picture are one group."})
    seed: int = field(default=0, metadata={"help": "Seed of dev rows, folds, models and intervals."})
    num_folds: int = field(default=5, metadata={"help": "Stratified folds of whole groups."})
    num_samples: int = field(default=1000, metadata={"help": "Bootstrap samples of each interval."})
    backbone_id: str = field(default="embedded:efficientnet-lite0", metadata={"help": "Frozen backbone."})
    view_size: int = field(default=224, metadata={"help": "Side of the one view of a photo in pixels."})
    feature_cache: str | None = field(default=None, metadata={"help": "Folder of the backbone's tokens."})
    page_rows: int = field(default=60, metadata={"help": "Photos on the label-noise page."})


@dataclass(frozen=True)
class AuditReport:
    """What the audit found.

    Attributes:
        rows: The loaded data set.
        leaks: The leak audit.
        gap: The leak gap of a logistic regression on the global view.
        cities: Out-of-fold MCC with its city left out, by city; empty without cities.
        metrics: Out-of-fold metrics of the logistic regression, with intervals, by grouped folds.
        doubtful: Row ids on the label-noise page.
        num_duplicate_sets: Sets of near-duplicates among train and dev, by hash or embedding.
        across_splits: Row ids of pairs alike by embedding alone that lie in train and dev: what `groups_file` would join.
    """

    rows: LoadedRows
    leaks: AuditResult
    gap: LeakGap
    cities: dict[str, float]
    metrics: dict[str, Any]
    doubtful: list[str]
    num_duplicate_sets: int
    across_splits: list[tuple[str, str]]

    def details(self) -> dict[str, Any]:
        """Return what goes into `result.json`."""
        found = {"leaks": self.leaks.as_dict(), "leak_gap": asdict(self.gap), "leave_city_out_mcc": self.cities}
        counts = {"doubtful_rows": self.doubtful, "near_duplicate_sets": self.num_duplicate_sets}
        return found | counts | {"across_splits": self.across_splits, "splits": asdict(self.rows.manifest)}

    def summary(self) -> str:
        """Describe the findings in a few lines."""
        gap, mcc = self.gap, self.metrics["mcc"]
        cities = ", ".join(f"{city} {value:.2f}" for city, value in self.cities.items()) or "no cities"
        return "\n".join(
            [
                self.rows.report.summary(),
                self.leaks.summary(),
                f"logistic regression on the global view, out of fold: MCC {mcc['value']:.2f}",
                f"leak gap: {gap.random:.2f} with random folds - {gap.grouped:.2f} with grouped ones = {gap.gap:+.2f}",
                f"MCC with the city left out: {cities}",
                f"{self.num_duplicate_sets} sets of near-duplicates, {len(self.doubtful)} doubtful labels to look at",
                f"{len(self.across_splits)} pairs of photos in train and dev are alike by embedding alone"
                + (f"; train with --groups_file {GROUPS_NAME}, which joins them" if self.across_splits else ""),
            ]
        )


def run_audit(arguments: AuditArguments) -> AuditReport:
    """Audit a data set and write the audit's files.

    Raises:
        ValueError: If the data cannot be loaded or split.
    """
    folder = Path(arguments.output_dir)
    loaded = load_rows(
        arguments.dataset_name,
        seed=arguments.seed,
        dev_share=arguments.dev_share,
        max_megapixels=arguments.max_megapixels,
        revision=arguments.dataset_revision,
        near_duplicates=arguments.near_duplicates,
    )
    rows = concatenate_datasets([loaded.splits[name] for name in ("train", "dev") if name in loaded.splits])
    labels, features = np.asarray(rows["label"][:]), global_view_features(rows, arguments)
    pairs = embedding_pairs(features) if arguments.near_duplicates else np.empty((0, 2), dtype=np.int64)
    groups = joined_groups(rows, pairs)
    folds = stratified_group_folds(labels, groups, arguments.num_folds, arguments.seed)
    _write_groups(folder, loaded, rows, groups, folds)
    leaks = audited_fields(rows, seed=arguments.seed, num_samples=arguments.num_samples)
    (folder / LEAK_NAME).write_text(json.dumps(leaks.as_dict(), indent=2) + "\n", encoding="utf-8")
    row_ids, splits = rows["row_id"][:], rows["split"][:]
    sets = duplicate_sets(row_ids, loaded.near_duplicates + [(row_ids[a], row_ids[b]) for a, b in pairs.tolist()])
    write_duplicate_page(folder / DUPLICATES_NAME, rows, sets)
    probabilities = logistic_out_of_fold(features, labels, folds)
    source = f"a logistic regression on the global view of {arguments.backbone_id}"
    doubtful = write_label_noise_page(folder / NOISE_NAME, rows, probabilities, source, arguments.page_rows)
    return AuditReport(
        rows=loaded,
        leaks=leaks,
        gap=leak_gap(features, labels, groups, arguments.num_folds, arguments.seed),
        cities=_city_scores(features, labels, groups, rows["city"][:]),
        metrics=metrics_with_intervals(
            labels, probabilities, groups=groups, num_samples=arguments.num_samples, seed=arguments.seed
        ),
        doubtful=rows.select(doubtful)["row_id"][:],
        num_duplicate_sets=len(sets),
        across_splits=[(row_ids[a], row_ids[b]) for a, b in pairs.tolist() if splits[a] != splits[b]],
    )


def joined_groups(rows: Dataset, pairs: NDArray[np.int64]) -> NDArray[np.str_]:
    """Join the groups of rows that are alike by embedding, `(N,)`; `pairs` `(P, 2)` are row numbers."""
    none = [""] * len(rows)
    names = group_names(rows["row_id"][:], none, none, none, rows["group"][:], duplicates=pairs)
    return np.asarray(names, dtype=str)


def duplicate_sets(row_ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Join pairs of near-duplicates into sets of row numbers, the largest first; rows that are not here are left out."""
    number = {row_id: index for index, row_id in enumerate(row_ids)}
    links = [(number[a], number[b]) for a, b in pairs if a in number and b in number]
    if not links:
        return []
    components = components_of(len(row_ids), [np.asarray(links, dtype=np.int64)])
    members: dict[int, list[int]] = {}
    for row in np.unique(links).tolist():
        members.setdefault(int(components[row]), []).append(row)
    return sorted(members.values(), key=len, reverse=True)


def global_view_features(rows: Dataset, arguments: AuditArguments) -> NDArray[np.float32]:
    """Compute the pooled tokens of one view of the whole photo, `(N, F)`, or read what an earlier run kept."""
    settings = PretrainArguments(
        dataset_name=arguments.dataset_name,
        backbone_id=arguments.backbone_id,
        view_layout="single",
        view_size=arguments.view_size,
        max_megapixels=arguments.max_megapixels,
        evidence_grid=0,
        hidden_size=16,
        num_attention_layers=1,
        num_attention_heads=1,
    )
    model, processor = build_model(settings, rows["label"][:])
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    tokens, _ = FeatureRows(extract_features(rows, model, processor, folder=arguments.feature_cache), rows).arrays()
    return tokens[:, 0].reshape(len(tokens), -1).astype(np.float32)


def _write_groups(
    folder: Path, loaded: LoadedRows, rows: Dataset, groups: NDArray[np.str_], folds: Sequence[Fold]
) -> None:
    """Write the manifests of splits and folds, and a table of row, group, split and fold."""
    fold_of = np.empty(len(rows), dtype=np.int64)
    for number, (_, held_out) in enumerate(folds):
        fold_of[held_out] = number
    write_manifest(folder / MANIFEST_NAME, loaded.manifest)
    columns = [rows["row_id"][:], groups.tolist(), rows["split"][:], rows["label"][:]]
    names = [f"fold {fold}" for fold in fold_of]
    write_manifest(folder / FOLDS_NAME, make_manifest(columns[0], columns[1], names, columns[3]))
    with open(folder / GROUPS_NAME, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row_id", "group", "split", "label", "fold"])
        writer.writerows(zip(*columns, fold_of.tolist(), strict=True))


def _city_scores(
    features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.str_], cities: Sequence[str]
) -> dict[str, float]:
    if len(set(cities) - {""}) < 2:
        return {}
    scores = {}
    for city, fold in leave_city_out(labels, groups, cities).items():
        held_out = fold[1]
        probabilities = logistic_out_of_fold(features, labels, [fold])[held_out]
        scores[city] = metrics_with_intervals(labels[held_out], probabilities, num_samples=2)["mcc"]["value"]
    return scores

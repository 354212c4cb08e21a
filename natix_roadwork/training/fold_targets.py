"""The rows that fold adapters are trained and judged on, how they are cut, and the manifest that keeps the cut.

In come a trained base and the name of a target set; out come its rows with groups, the K folds with an inner part that
chooses epochs, and `folds.json`. `finetuning.py` trains on them.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.folds import dev_mask, require_disjoint, stratified_group_folds
from natix_roadwork.training.adapter_files import BaseIdentity


FOLDS_NAME = "folds.json"
FORMAT_VERSION = 1
TRANSDUCTIVE = "transductive, not comparable"
OWN_SPLITS = ("dev", "test")


@dataclass(frozen=True)
class FoldTarget:
    """The rows that are cut into folds.

    Attributes:
        name: `dev`, `test`, or the name of the target data set.
        rows: The rows.
        transductive: Whether the adapters adapt to the very set that they are judged on, which no other model does.
    """

    name: str
    rows: Dataset
    transductive: bool

    @property
    def labels(self) -> NDArray[np.int64]:
        """`(N,)` 0 None, 1 Roadwork."""
        return np.asarray(self.rows["label"][:], dtype=np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """`(N,)` group names."""
        return np.asarray(self.rows["group"][:], dtype=np.str_)

    @property
    def row_ids(self) -> NDArray[np.str_]:
        """`(N,)` row ids."""
        return np.asarray(self.rows["row_id"][:], dtype=np.str_)


@dataclass(frozen=True)
class FoldParts:
    """Row numbers of one fold: trained on, choosing the epoch, and held out until the end."""

    fit: NDArray[np.int64]
    selection: NDArray[np.int64]
    held_out: NDArray[np.int64]


def choose_target(loaded: LoadedRows, fold_target: str, use_lockbox: bool) -> FoldTarget:
    """Pick the rows to cut into folds.

    Args:
        loaded: The data set: the base's own for `dev` and `test`, else the target set, all of whose rows are taken.
        fold_target: `dev`, `test`, or the name of a data set.
        use_lockbox: Whether a lockbox may be read, labels too.

    Raises:
        ValueError: If there are no such rows, or they are a lockbox.
    """
    if fold_target in OWN_SPLITS:
        if fold_target not in loaded.splits:
            raise ValueError(
                f"fold_target={fold_target!r}: {loaded.dataset_name!r} has only the splits {list(loaded.splits)}"
            )
        names = [fold_target]
    else:
        names = [name for name in loaded.splits if use_lockbox or name != "test" or not loaded.lockbox]
    if "test" in names and loaded.lockbox and not use_lockbox:
        raise ValueError(
            f"fold_target={fold_target!r} is a lockbox, scored once per published model; adapters that learn from its "
            "labels are no candidates for that score. If that is what you want, say --use_lockbox true"
        )
    rows = concatenate_datasets([loaded.splits[name] for name in names])
    return FoldTarget(fold_target, rows, transductive=fold_target != "dev")


def cut_folds(target: FoldTarget, num_folds: int, selection_share: float, seed: int) -> list[FoldParts]:
    """Cut a target into K grouped, stratified folds, and in each the rows to fit on from those that choose the epoch.

    Args:
        target: The rows.
        num_folds: K.
        selection_share: Share of a fold's other rows that chooses its epoch.
        seed: Decides both cuts.

    Raises:
        ValueError: If the rows do not leave both classes on all sides; the fold is named.
    """
    labels, groups, parts = target.labels, target.groups, []
    try:
        folds = stratified_group_folds(labels, groups, num_folds, seed)
    except ValueError as error:
        raise ValueError(f"fold_target={target.name!r} cannot be cut into num_folds={num_folds}: {error}") from None
    for number, (rest, held_out) in enumerate(folds):
        try:
            chosen = dev_mask(labels[rest], groups[rest], selection_share, seed)
        except ValueError as error:
            raise ValueError(
                f"fold {number}: no part of its {len(rest)} rows can choose the epoch (selection_share={selection_share}): {error}"
            ) from None
        part = FoldParts(rest[~chosen], rest[chosen], held_out)
        require_disjoint({name: groups[rows].tolist() for name, rows in vars(part).items()})
        parts.append(part)
    return parts


def folds_record(
    target: FoldTarget, parts: list[FoldParts], base: BaseIdentity, fingerprint: str, seed: int
) -> dict[str, Any]:
    """Describe the cut as JSON values: the base by hash, the data by fingerprint, the rows by id."""
    row_ids = target.row_ids
    folds = [{name: row_ids[rows].tolist() for name, rows in vars(part).items()} for part in parts]
    return {
        "format_version": FORMAT_VERSION,
        "base": asdict(base),
        "data_fingerprint": fingerprint,
        "fold_target": target.name if target.name in OWN_SPLITS else "a target set of its own",
        "label": TRANSDUCTIVE if target.transductive else "",
        "seed": seed,
        "folds": folds,
    }


def keep_folds(path: str | Path, record: dict[str, Any]) -> None:
    """Write the manifest, or compare with the one that is there.

    Raises:
        ValueError: If another base, other data or other rows are written there; what differs is named.
    """
    path = Path(path)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is no manifest of folds ({error}); delete it, or choose another output_dir"
        ) from None
    differing = [key for key in record if key != "folds" and found.get(key) != record[key]]
    there = found.get("folds", [])
    if len(there) != len(record["folds"]):
        differing.append(f"the number of folds, {len(there)} there, {len(record['folds'])} now")
    else:
        moved = [n for n, (old, new) in enumerate(zip(there, record["folds"], strict=True)) if old != new]
        differing += [f"the rows of folds {moved}"] if moved else []
    if differing:
        raise ValueError(
            f"{path} was written for another run: {', '.join(differing)} differ; use the same base, data and seed, start "
            "anew with --existing_run overwrite, or choose another --output_dir"
        )

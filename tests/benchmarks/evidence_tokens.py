"""What a grid of patch tokens is worth: MCC out of fold and bytes a photo for each size G, pooling and storage.

    python tests/benchmarks/evidence_tokens.py --config recipes/pretrain/quickstart.yaml \
        --dataset_name runs/semi_synthetic --output_dir runs/evidence_tokens

The backbone runs once, with its own patch grid; coarser grids are pooled from that, by mean or maximum, and int8 storage
is quantised from it. Every row is scored by a head that never saw its group (grouped folds, a grouped dev part chooses
the epoch). Writes `evidence_tokens.json`: MCC with interval, bytes a photo, the paired difference to the smallest grid
and to the default of the recipe, and the error of each storage. Each setting's probabilities are kept
in the folder, so that a run that was stopped goes on; name a new folder after a change of code or settings.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from natix_roadwork.data.token_passes import quantized, stored_bytes
from natix_roadwork.metrics import metrics_with_intervals, paired_difference
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.cross_fitting import grouped_folds
from natix_roadwork.training.token_features import Features
from natix_roadwork.training.yaml_args import parse_recipe
from tests.benchmarks.head_against_baselines import all_rows, head_probabilities, run_facts


FULL_GRID = 7  # of EfficientNet-Lite0 at 224 px
Setting = tuple[int, str, str]
DEFAULT: Setting = (2, "mean", "float16")
SETTINGS: list[Setting] = [  # the costly ones last
    *((grid, "mean", "float16") for grid in (0, 1, 2, 4)),
    *((grid, "max", "float16") for grid in (1, 2, 4)),
    (4, "mean", "int8"),
    (FULL_GRID, "mean", "float16"),
]


def name_of(setting: Setting) -> str:
    """`G=4 mean float16`, as the result names a setting."""
    return "G={} {} {}".format(*setting)


def pool_cells(features: Features, grid: int, pooling: str) -> Features:
    """Pool the full grid's cells to `grid` x `grid` ones, as the backbone's own pooling does; 0 = none are left."""
    pooled, cells = np.split(features.view_features, [features.num_pooled_tokens], axis=2)
    if grid == FULL_GRID:
        return features
    if grid == 0:
        return dataclasses.replace(features, view_features=pooled)
    pool = F.adaptive_avg_pool2d if pooling == "mean" else F.adaptive_max_pool2d
    smaller = np.empty((*cells.shape[:2], grid**2, cells.shape[3]), cells.dtype)
    for row, values in enumerate(cells):  # (V, 49, D)
        maps = torch.from_numpy(values.astype(np.float32)).transpose(1, 2).unflatten(2, (FULL_GRID, FULL_GRID))
        smaller[row] = pool(maps, grid).flatten(2).transpose(1, 2).numpy()
    return dataclasses.replace(features, view_features=np.concatenate([pooled, smaller], axis=2))


def through_int8(tokens: NDArray[np.float16]) -> NDArray[np.float16]:
    """Round tokens `(N, V, T, D)` as the feature cache stores int8, and back."""
    restored = np.empty_like(tokens)
    for row, values in enumerate(tokens):
        levels, scales = quantized(torch.from_numpy(values.astype(np.float32)))
        restored[row] = (levels.float() * scales.float().unsqueeze(-1)).numpy()
    return restored


def stored(features: Features, setting: Setting) -> tuple[Features, float]:
    """Return the features of a setting, and the relative RMS error of its storage."""
    grid, pooling, dtype = setting
    chosen = pool_cells(features, grid, pooling)
    if dtype == "float16":
        return chosen, 0.0
    tokens, restored = chosen.view_features, through_int8(chosen.view_features)
    error = sum(float(np.square((a - b).astype(np.float64)).sum()) for a, b in zip(tokens, restored, strict=True))
    power = sum(float(np.square(row.astype(np.float64)).sum()) for row in tokens)
    return dataclasses.replace(chosen, view_features=restored), float(np.sqrt(error / power))


def measure(
    settings: PretrainArguments, args: RoadworkTrainingArguments, num_folds: int, chosen: list[Setting]
) -> dict[str, object]:
    """Score every setting out of fold; returns what the JSON file holds."""
    rows, features = all_rows(dataclasses.replace(settings, evidence_grid=FULL_GRID), args)
    folds = grouped_folds(features.labels, features.groups, num_folds, args.seed)
    scores: dict[str, NDArray[np.float64]] = {}
    table: dict[str, dict[str, object]] = {}
    for setting in chosen:
        started, name = time.monotonic(), name_of(setting)
        given, error = stored(features, setting)
        kept = Path(args.output_dir) / f"{name.replace(' ', '_')}.npy"
        if not kept.is_file():  # hours in all: what an interrupted run has scored is not scored again
            head = dataclasses.replace(settings, evidence_grid=setting[0])
            found = np.zeros(len(features))
            for fold in folds:
                found[fold.held_out] = head_probabilities(head, args, rows, given, fold.parts)
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, found)
        scores[name] = np.load(kept)
        photo_bytes = stored_bytes((1, 1, *given.view_features.shape[1:]), setting[2])
        found = metrics_with_intervals(features.labels, scores[name], groups=features.groups)
        table[name] = {"bytes_a_photo": photo_bytes, "storage_error": error, "mcc": found["mcc"], "auc": found["auc"]}
        print(
            f"{name}: MCC {found['mcc']['value']:.3f}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True
        )
    for base in (name_of(chosen[0]), name_of(DEFAULT)):
        for name, row in table.items():
            if name != base and base in scores:
                pair = paired_difference(features.labels, scores[name], scores[base], groups=features.groups)
                row[f"minus {base}"] = dataclasses.asdict(pair)
    return {
        "rows": len(features),
        "positives": int(features.labels.sum()),
        "groups": len(np.unique(features.groups)),
        "settings": table,
    }


def main() -> None:
    """Read the recipe and the number of folds, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--grids", type=int, nargs="+", default=sorted({setting[0] for setting in SETTINGS}))
    own, recipe = parser.parse_known_args()
    settings, args = parse_recipe(recipe, (PretrainArguments, RoadworkTrainingArguments))
    facts = run_facts(settings, args, own.folds, [args.seed])  # before the minutes in which the checkout may change
    result = measure(settings, args, own.folds, [setting for setting in SETTINGS if setting[0] in own.grids])
    path = Path(args.output_dir) / "evidence_tokens.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, **result}, indent=1) + "\n")
    for name, row in result["settings"].items():
        mcc = row["mcc"]
        print(
            f"{name:20} {row['bytes_a_photo']:>9} bytes  MCC {mcc['value']:.3f} [{mcc['low']:.3f}, {mcc['high']:.3f}]"
        )


if __name__ == "__main__":
    main()

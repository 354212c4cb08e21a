"""Compare the trained head of a recipe with the baselines, out of fold, on one data set.

    python tests/benchmarks/head_against_baselines.py --config recipes/pretrain/quickstart.yaml \
        --dataset_name runs/quickstart/scenes --output_dir runs/head_against_baselines

Every row is scored by models that never saw its group: five grouped folds, and inside each fold a grouped dev part
chooses epochs and hyper-parameters. The head is trained with several seeds by the recipe's own settings. Writes
`head_against_baselines.json` with the resolved settings, the environment, MCC and interval of each, and the paired
difference of the head to each baseline. `--require_standard_errors 1` exits with 1 where the head falls more than one
standard error behind the best baseline.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import concatenate_datasets
from numpy.typing import NDArray
from transformers import set_seed

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.draws import DrawRows, Indices, address
from natix_roadwork.environment import environment, git_state
from natix_roadwork.metrics import metrics_with_intervals, paired_difference
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.baselines import score_baselines
from natix_roadwork.training.cross_fitting import grouped_folds, train_head
from natix_roadwork.training.metric import roadwork_probabilities
from natix_roadwork.training.pretrain_inputs import PretrainInputs
from natix_roadwork.training.pretrain_model import build_model
from natix_roadwork.training.pretraining import resolved_config
from natix_roadwork.training.token_features import Features
from natix_roadwork.training.token_inputs import baseline_features, compute_tokens
from natix_roadwork.training.yaml_args import parse_recipe


def require_image_only(settings: PretrainArguments) -> None:
    """Refuse settings that this comparison does not follow: the baselines see neither metadata nor weights of draws.

    Raises:
        ValueError: With the key.
    """
    for key, plain in (("metadata_fields", []), ("gps_sampling", "off")):
        if getattr(settings, key) != plain:
            raise ValueError(
                f"{key}={getattr(settings, key)!r}: head and baselines are compared on photos alone, each row once an "
                f"epoch; leave it at {plain!r}, or train by recipes/pretrain.py, whose result.json has the baselines too"
            )


def all_rows(settings: PretrainArguments, args: RoadworkTrainingArguments) -> tuple[LoadedRows, Features]:
    """Compute the tokens of every row of the data set, whatever split it is in."""
    rows = load_rows(settings.dataset_name, seed=args.seed, dev_share=settings.dev_share)
    labels = [label for split in rows.splits.values() for label in split["label"][:]]
    model, processor = build_model(settings, labels)
    everything = concatenate_datasets(list(rows.splits.values()))
    tokens = compute_tokens({"all": everything}, model, processor, settings, args)["all"]
    return rows, baseline_features(tokens)


class MemoryRows(DrawRows):
    """Rows in memory as model inputs."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def read(self, draws: Indices) -> dict[str, torch.Tensor]:
        rows = address(draws)[0]
        return {
            "view_features": torch.from_numpy(self.features.view_features[rows].astype(np.float32)),
            "view_mask": torch.from_numpy(self.features.view_mask[rows]),
            "labels": torch.from_numpy(self.features.labels[rows].astype(np.int64)),
        }


def head_probabilities(
    settings: PretrainArguments,
    args: RoadworkTrainingArguments,
    rows: LoadedRows,
    features: Features,
    parts: dict[str, NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Train the recipe's head on `train`, choose its epoch on `selection`, return its probabilities on `held_out`."""
    set_seed(args.seed)
    subsets = {name: features.subset(part) for name, part in parts.items()}
    train = subsets["train"]
    model, processor = build_model(settings, train.labels.tolist())
    model.standardizer.fit(torch.from_numpy(train.view_features), torch.from_numpy(train.view_mask))
    datasets = {name: MemoryRows(subset) for name, subset in subsets.items()}
    return roadwork_probabilities(train_head(PretrainInputs(rows, model, processor, datasets, {}), args))


def compare(
    settings: PretrainArguments, args: RoadworkTrainingArguments, num_folds: int, seeds: list[int]
) -> dict[str, object]:
    """Score head and baselines out of fold; returns what the JSON file holds."""
    rows, features = all_rows(settings, args)
    scores: dict[str, NDArray[np.float64]] = {}
    started = time.monotonic()
    for number, fold in enumerate(grouped_folds(features.labels, features.groups, num_folds, args.seed)):
        parts = fold.parts
        train, selection, held_out = (features.subset(rows_of_part) for rows_of_part in parts.values())
        scored = score_baselines(train, selection, {"held_out": held_out}, seed=args.seed)
        found = {name: by_split["held_out"] for name, by_split in scored.items()}
        for seed in seeds:
            seeded = dataclasses.replace(args, seed=seed)
            found[f"head_seed_{seed}"] = head_probabilities(settings, seeded, rows, features, parts)
        for name, probabilities in found.items():
            scores.setdefault(name, np.zeros(len(features)))[fold.held_out] = probabilities
        print(f"fold {number + 1} of {num_folds} after {time.monotonic() - started:.0f} s", file=sys.stderr)
    return _summary(features, scores, [f"head_seed_{seed}" for seed in seeds])


def _summary(features: Features, scores: dict[str, NDArray[np.float64]], heads: list[str]) -> dict[str, object]:
    metrics = {
        name: metrics_with_intervals(features.labels, values, groups=features.groups)
        for name, values in scores.items()
    }
    baselines = [name for name in scores if name not in heads and name != "majority"]
    differences = {
        head: {
            name: dataclasses.asdict(
                paired_difference(features.labels, scores[head], scores[name], groups=features.groups)
            )
            for name in baselines
        }
        for head in heads
    }
    best = max(baselines, key=lambda name: metrics[name]["mcc"]["value"])
    against_best = [differences[head][best] for head in heads]
    return {
        "rows": len(features),
        "positives": int(features.labels.sum()),
        "groups": len(np.unique(features.groups)),
        "metrics": metrics,
        "differences": differences,
        "best_baseline": best,
        "head_mean_mcc": float(np.mean([metrics[head]["mcc"]["value"] for head in heads])),
        "head_minus_best": float(np.mean([pair["value"] for pair in against_best])),
        "standard_error": float(np.mean([pair["standard_error"] for pair in against_best])),
    }


def falls_behind(result: dict[str, object], standard_errors: float | None) -> bool:
    """Return whether the head lies more than so many standard errors below the best baseline; None asks nothing."""
    if standard_errors is None:
        return False
    return bool(result["head_minus_best"] < -standard_errors * result["standard_error"])


def run_facts(
    settings: PretrainArguments, args: RoadworkTrainingArguments, num_folds: int, seeds: list[int]
) -> dict[str, object]:
    """Return what a reader needs to run the comparison again."""
    commit, dirty = git_state()
    return {
        "command": sys.argv,
        "config": resolved_config(settings, args),
        "folds": num_folds,
        "seeds": seeds,
        "commit": commit,
        "dirty": dirty,
        "environment": environment(),
    }


def main() -> int:
    """Read the recipe and the number of folds and seeds, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--require_standard_errors", type=float, metavar="X", help="exit 1 if the head lies X standard errors behind"
    )
    own, recipe = parser.parse_known_args()
    settings, args = parse_recipe(recipe, (PretrainArguments, RoadworkTrainingArguments))
    try:
        require_image_only(settings)
    except ValueError as error:
        sys.exit(f"head_against_baselines: {error}")
    facts = run_facts(settings, args, own.folds, own.seeds)  # before the minutes in which the checkout may change
    result = compare(settings, args, own.folds, own.seeds)
    path = Path(args.output_dir) / "head_against_baselines.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, **result}, indent=1) + "\n")
    for name, by_metric in result["metrics"].items():
        mcc = by_metric["mcc"]
        print(f"{name:18} MCC {mcc['value']:.3f} [{mcc['low'] or 0:.3f}, {mcc['high'] or 0:.3f}]")
    print(
        f"head - {result['best_baseline']}: {result['head_minus_best']:+.3f}, standard error "
        f"{result['standard_error']:.3f}; {path}"
    )
    if falls_behind(result, own.require_standard_errors):
        print(
            f"the head lies more than {own.require_standard_errors:g} standard errors behind {result['best_baseline']}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

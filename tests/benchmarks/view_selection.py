"""What choosing k of twelve views by thumbnails saves of the backbone's time, and what it costs in MCC, on drawn scenes.

    natix-roadwork scenes runs/view_selection/13 --num-rows 300 --width 1600 --seed 13 --positive-share 0.55 --test-share 0
    python tests/benchmarks/view_selection.py runs/view_selection/13 --output model_cards/results/view_selection.json

The backbone is EfficientNet-Lite0 on views of 224 pixels, the selector the same backbone on thumbnails of them. Every
photo is scored by a selector and an attention pool that never saw its place: five grouped folds, the selector fitted on
the train rows and the pool on their selected views. Beside the selector stand k views at random and the k fixed views
that score highest on the train rows; the global view is always among the k. Tokens are kept in `tokens.npz` beside each
folder's scenes, so that a second run only judges.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.embedded import embedded_backbone
from natix_roadwork.environment import environment, git_state
from natix_roadwork.metrics import metrics_with_intervals, paired_difference
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.model.photo import load_photo
from natix_roadwork.model.pruning import best_views
from natix_roadwork.training.attention_pool import fit_attention_pool, predict_attention_pool
from natix_roadwork.training.cross_fitting import grouped_folds
from natix_roadwork.training.token_features import Features
from natix_roadwork.training.view_selection import fit_view_selector
from tests.benchmarks.ratios import fastest_rounds


VIEW_SIZE = 224
THUMBNAIL_SIZES = (64, 96)
SELECTED = (4, 6, 8)
IMAGE_STATISTICS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
EVIDENCE_GRID = 2


def build(select_views: int | None, thumbnail_size: int) -> RoadworkForImageClassification:
    """Build a model whose head is not used."""
    return RoadworkForImageClassification.from_backbone(
        str(embedded_backbone("embedded:efficientnet-lite0")),
        view_size=VIEW_SIZE,
        evidence_grid=EVIDENCE_GRID,
        select_views=select_views,
        thumbnail_size=thumbnail_size,
        hidden_size=64,
        **IMAGE_STATISTICS,
    ).eval()


@dataclass(frozen=True)
class Scenes:
    """Tokens and truth of drawn scenes.

    `tokens` `(N, V, T, D)` of the views, `thumbnails` `(sizes, N, V, T, D)` of their thumbnails, `mask` `(N, V)`, `labels`
    and `groups` `(N,)`, `evidence` `(N, V)` the share of each view that shows roadwork.
    """

    tokens: NDArray[np.float16]
    thumbnails: NDArray[np.float16]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    evidence: NDArray[np.float64]


def read_scenes(folder: Path) -> Scenes:
    """Compute what the benchmark needs of a folder of scenes, or read what an earlier run kept."""
    kept = folder / "tokens.npz"
    if not kept.is_file():
        np.savez(kept, **_compute(folder))
    with np.load(kept) as stored:
        return Scenes(**stored)


@torch.no_grad()
def _compute(folder: Path) -> dict[str, NDArray]:
    models = [build(min(SELECTED), size) for size in THUMBNAIL_SIZES]
    processor = RoadworkImageProcessor(VIEW_SIZE, do_normalize=False, **IMAGE_STATISTICS)
    splits = load_rows(str(folder), seed=0).splits
    found: dict[str, list] = {name: [] for name in Scenes.__dataclass_fields__}
    for row in tqdm((row for split in splits.values() for row in split), total=sum(map(len, splits.values()))):
        photo = load_photo(photo_source(row["image"]))
        views = processor(photo)
        pixels = views["pixel_values"]
        found["tokens"].append(models[0].extract_tokens(pixels)[0].half().numpy())
        thumbnails = [model.view_selector.thumbnail_tokens(model.backbone, pixels)[0] for model in models]
        found["thumbnails"].append(torch.stack(thumbnails).half().numpy())
        found["mask"].append(views["view_mask"][0].numpy())
        found["labels"].append(row["label"])
        found["groups"].append(f"{folder.name}/{row['group']}")
        found["evidence"].append(_evidence(folder, row, processor.view_boxes(*photo.size)))
    arrays = {name: np.array(values) for name, values in found.items()}
    return {**arrays, "thumbnails": arrays["thumbnails"].swapaxes(0, 1)}


def _evidence(folder: Path, row: dict, boxes: list[tuple[int, int, int, int]]) -> list[float]:
    """The share of each view's pixels that the scene's exact mask marks as roadwork."""
    if not row["label"]:
        return [0.0] * len(boxes)
    shard, position = row["row_id"].split(":")
    scene = pq.read_table(folder / f"{shard}.parquet", columns=["id"])["id"][int(position)].as_py()
    mask = np.asarray(Image.open(folder / "masks" / f"{int(scene):06d}_seg_mask.png")) > 0
    return [float(mask[top:bottom, left:right].mean()) for left, top, right, bottom in boxes]


def judge(scenes: Scenes, seed: int) -> dict[str, object]:
    """Score every way of choosing views out of fold; returns what the JSON file holds of it."""
    features = Features(scenes.tokens, scenes.mask, scenes.labels, scenes.groups, 1)
    probabilities: dict[str, NDArray[np.float64]] = {}
    chosen: dict[str, NDArray[np.bool_]] = {}
    for number, fold in enumerate(grouped_folds(features.labels, features.groups, 5, seed)):
        train, dev, held_out = fold.parts.values()
        for name, indices in choices(scenes, train, seed + number).items():
            seen = choose(features, indices)
            pool = fit_attention_pool(seen.subset(train), seen.subset(dev), seed=seed)
            scored = predict_attention_pool(pool, seen.subset(held_out))
            probabilities.setdefault(name, np.zeros(len(features)))[held_out] = scored
            marks = np.zeros_like(scenes.mask)
            np.put_along_axis(marks, indices, True, axis=1)
            chosen.setdefault(name, marks)[held_out] = marks[held_out]
        print(f"fold {number + 1} of 5", file=sys.stderr, flush=True)
    return summary(scenes, probabilities, chosen)


def choose(features: Features, indices: NDArray[np.int64]) -> Features:
    """The rows with the views `(N, k)` alone; the pool knows no view by its place, so this is a mask that costs less."""
    tokens = np.take_along_axis(features.view_features, indices[:, :, None, None], axis=1)
    mask = np.take_along_axis(features.view_mask, indices, axis=1)
    return dataclasses.replace(features, view_features=tokens, view_mask=mask)


def choices(scenes: Scenes, train: NDArray, seed: int) -> dict[str, NDArray[np.int64]]:
    """The views `(N, k)` of all rows by every way and every k, with selectors fitted on the train rows."""
    mask = torch.from_numpy(scenes.mask)
    scores = {"random": torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed))}
    for size, tokens in zip(THUMBNAIL_SIZES, scenes.thumbnails, strict=True):
        thumbnails = Features(tokens, scenes.mask, scenes.labels, scenes.groups, 1)
        selector = build(min(SELECTED), size).view_selector
        fit_view_selector(selector, thumbnails.subset(train), seed=seed)
        scores[f"thumbnails_{size}"] = selector.scores(torch.from_numpy(tokens))
        scores["fixed"] = scores[f"thumbnails_{size}"][train].mean(dim=0).expand_as(mask)
    found = {f"{name}_{k}": best_views(values, mask, k).numpy() for name, values in scores.items() for k in SELECTED}
    return {"all": np.tile(np.arange(mask.shape[1]), (len(mask), 1)), **found}


def summary(
    scenes: Scenes, probabilities: dict[str, NDArray[np.float64]], masks: dict[str, NDArray[np.bool_]]
) -> dict[str, object]:
    """Metrics, differences to all views, and how often the view that shows the most roadwork is among the chosen."""
    rest = scenes.evidence[:, 1:]  # the global view is always chosen
    shown = np.flatnonzero(rest.max(axis=1) > 0)
    best = rest[shown].argmax(axis=1) + 1
    return {
        "rows": len(scenes.labels),
        "positives": int(scenes.labels.sum()),
        "groups": len(np.unique(scenes.groups)),
        "metrics": {
            name: metrics_with_intervals(scenes.labels, values, groups=scenes.groups)
            for name, values in probabilities.items()
        },
        "differences_to_all": {
            name: dataclasses.asdict(
                paired_difference(scenes.labels, values, probabilities["all"], groups=scenes.groups)
            )
            for name, values in probabilities.items()
            if name != "all"
        },
        "recall_of_best_view": {name: float(mask[shown, best].mean()) for name, mask in masks.items()},
    }


@torch.no_grad()
def milliseconds(rounds: int) -> dict[str, dict[str, float]]:
    """Processor time of one photo in the backbone, selection included, by thumbnail side and k; 12 = no selection."""
    pixels = torch.randint(0, 256, (1, 12, 3, VIEW_SIZE, VIEW_SIZE), dtype=torch.uint8)
    ways: dict[str, Callable[[], object]] = {}
    for size in THUMBNAIL_SIZES:
        for k in SELECTED:
            model = build(k, size)
            ways[f"{size}/{k}"] = partial(model.view_selector, model.backbone, model.extract_tokens, pixels)
    ways["all/12"] = partial(model.extract_tokens, pixels)
    found: dict[str, dict[str, float]] = {}
    for name, value in fastest_rounds(ways, rounds).items():
        size, k = name.split("/")
        found.setdefault(size, {})[k] = value
    return found


def main() -> int:
    """Judge, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+", help="folders of `natix-roadwork scenes`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    commit, dirty = git_state()
    parts = [read_scenes(folder) for folder in options.scenes]
    axes = {name: 1 if name == "thumbnails" else 0 for name in Scenes.__dataclass_fields__}
    scenes = Scenes(**{name: np.concatenate([getattr(part, name) for part in parts], ax) for name, ax in axes.items()})
    times = milliseconds(options.rounds)
    result = {
        "command": [Path(word).name if word.startswith("/") else word for word in sys.argv],
        "commit": commit,
        "dirty": dirty,
        "environment": environment(),
        "threads": 1,
        "backbone_milliseconds_a_photo": times,
        **judge(scenes, options.seed),
    }
    _print_table(result)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _print_table(result: dict) -> None:
    times = result["backbone_milliseconds_a_photo"]
    for name, metrics in result["metrics"].items():
        mcc, difference = metrics["mcc"], result["differences_to_all"].get(name)
        size, _, k = name.removeprefix("thumbnails_").partition("_")
        saved = 1 - times[size][k] / times["all"]["12"] if size in times and k else None
        print(
            f"{name:16} MCC {mcc['value']:.3f} [{mcc['low']:.3f}, {mcc['high']:.3f}]"
            + ("" if difference is None else f" {difference['value']:+.3f} ± {difference['standard_error']:.3f}")
            + f" recall {result['recall_of_best_view'][name]:.2f}"
            + ("" if saved is None else f" saves {saved:.0%} of the backbone's time")
        )


if __name__ == "__main__":
    sys.exit(main())

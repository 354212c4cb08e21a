"""The extraction recipe: the tokens of a data set's photos, computed once, for any number of training runs.

`recipes/extract_features.py` calls `extract` and prints `feature_table`; `recipes/pretrain.py --feature_cache FOLDER` trains
on them.
"""

import dataclasses
import time
from typing import Any

from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.runs import RunRecorder, RunResult
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.mask_inputs import mask_inputs
from natix_roadwork.training.pretrain_inputs import load_splits, train_augmentation
from natix_roadwork.training.pretrain_model import build_model
from natix_roadwork.training.token_inputs import compute_tokens, feature_folder


def extract(settings: PretrainArguments, args: RoadworkTrainingArguments) -> RunResult:
    """Compute and keep the tokens of every split that a training run with these settings may read.

    Args:
        settings: Data, backbone, views, draws and storage, with the keys of the training recipe; those of the head do
            not matter, but for a mask term of the loss, which needs patch grids and mask labels. `feature_cache` names the
            folder; `off` and `auto` mean `args.output_dir`.
        args: Seed, precision, `dataloader_num_workers` and processes.

    Returns:
        What `result.json` in `args.output_dir` holds.

    Raises:
        ValueError: If data or settings cannot be used, or the folder holds features of other settings.
        OSError: If the disk is too full.
    """
    folder = feature_folder(settings) or args.output_dir
    settings = dataclasses.replace(settings, feature_cache=folder)
    with RunRecorder(dataclasses.asdict(settings) | args.to_dict(), args.seed) as recorder:
        rows, splits = load_splits(settings, args)
        masks = mask_inputs(splits, settings, args)
        model, processor = build_model(settings, splits["train"]["label"][:])
        model.to(args.device)
        started = time.perf_counter()
        kept = {"folder": folder, "augmentation": train_augmentation(settings, args.seed), "masks": masks}
        tokens = compute_tokens(splits, model, processor, settings, args, **kept)
        recorder.data = rows.as_dict()
        recorder.details = {
            "seconds": time.perf_counter() - started,
            "features": {name: _facts(found) for name, found in tokens.items()},
        }
        if args.should_save:
            recorder.write(args.output_dir)
        result = recorder.result()
    args.distributed_state.destroy_process_group()
    return result


def feature_table(result: RunResult) -> str:
    """Describe the features of each split in a line."""
    lines = [f"{'split':8}{'photos':>8}{'draws':>7}{'views':>7}{'tokens':>8}{'width':>7}{'KiB a photo':>13}  folder"]
    for name, facts in result.details["features"].items():
        photos, draws, views, tokens, width = facts["shape"]
        sizes = f"{photos:>8}{draws:>7}{views:>7}{tokens:>8}{width:>7}{facts['bytes'] / photos / 1024:>13.1f}"
        lines.append(f"{name:8}{sizes}  {facts['folder']}")
    return "\n".join([*lines, f"{result.details['seconds']:.0f} s"])


def _facts(tokens: FeatureRows) -> dict[str, Any]:
    cache = tokens.cache
    return {"folder": str(cache.folder), "shape": list(cache.shape), "bytes": cache.num_bytes}

"""The backbone's tokens of a run: where they are kept, what is trained on them, and the statistics taken from them.

`pretrain_inputs.py` asks for the tokens of each split; `recipes/extract_features.py` does nothing else.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from natix_roadwork.data.depth_source import RowDepths
from natix_roadwork.data.draws import Augmentation
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_key import FeatureOptions
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.mask_labels import extract_mask_labels
from natix_roadwork.data.mask_source import RowMasks
from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.depth_inputs import depth_inputs
from natix_roadwork.training.token_features import Features


STANDARDIZER_ROWS = 2048


def feature_folder(settings: PretrainArguments) -> str | None:
    """Return the folder that `feature_cache` names; None = the datasets cache."""
    return None if settings.feature_cache in ("off", "auto") else settings.feature_cache


def compute_tokens(
    splits: dict[str, Dataset],
    model: RoadworkForImageClassification,
    processor: RoadworkImageProcessor,
    settings: PretrainArguments,
    args: RoadworkTrainingArguments,
    *,
    folder: str | None = None,
    metadata: MetadataInputs = NO_METADATA,
    augmentation: Augmentation | None = None,
    masks: RowMasks | None = None,
    depths: RowDepths | None = None,
) -> dict[str, FeatureRows]:
    """Compute the tokens of each split, or read what an earlier run kept; all processes share the work.

    A model that decodes masks gets the global view's patch grid too, where it trains on what is kept.

    Args:
        splits: Rows with photos; `train` gets augmented draws, the others clean views only.
        model: Gives the tokens, on the device it is on.
        processor: Cuts the views.
        settings: Number of draws, and how tokens are stored.
        args: Seed, precision, workers and processes.
        folder: Each split's tokens are kept in a sub-folder of its name; None = the datasets cache.
        metadata: What is read besides the tokens.
        augmentation: Makes the draws.
        masks: Masks of the rows, whose labels are kept beside the tokens; None = without.
        depths: Depth maps of the rows; None = looked for where the settings name a folder.

    Raises:
        ValueError: If the folder holds tokens of other settings, or draws are asked for without an augmentation.
    """
    precision = torch.bfloat16 if args.bf16 else torch.float32
    grid = model.config.has_mask_head and settings.feature_cache != "off"
    depths = depth_inputs(splits, settings, args) if depths is None else depths
    found = {}
    for name, rows in splits.items():
        draws = settings.feature_draws if name == "train" and settings.feature_cache != "off" else 0
        shared: dict[str, Any] = {"num_workers": args.dataloader_num_workers, "state": args.distributed_state}
        cache = extract_features(
            rows,
            model,
            processor,
            FeatureOptions(draws, settings.feature_dtype, precision, augmentation, grid, depths),
            folder=None if folder is None else Path(folder) / name,
            description=f"Backbone tokens of {name}",
            **shared,
        )
        labels = None
        if masks is not None:
            drawn = {"draws": draws, "augmentation": augmentation, "description": f"Mask labels of {name}"}
            labels = extract_mask_labels(rows, masks, processor, cache.folder, **drawn, **shared)
        found[name] = FeatureRows(cache, rows, seed=args.seed, metadata=metadata, mask_labels=labels)
    return found


def standardizer_rows(num_rows: int, seed: int) -> list[int]:
    """Draw the train rows, at most 2,048, whose statistics standardise frozen features."""
    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[:STANDARDIZER_ROWS]).tolist()


def fit_standardizer(model: RoadworkForImageClassification, tokens: FeatureRows) -> None:
    """Fit the statistics that standardise frozen features on clean tokens."""
    view_features, view_mask = tokens.arrays()
    model.standardizer.fit(torch.from_numpy(view_features), torch.from_numpy(view_mask))


def baseline_features(tokens: FeatureRows) -> Features:
    """Turn the clean tokens of a split into what the baselines are fitted on."""
    view_features, view_mask = tokens.arrays()
    rows = tokens.rows.select_columns(["label", "group"]).select(tokens.chosen)
    return Features(
        view_features=view_features,
        view_mask=view_mask,
        labels=np.asarray(rows["label"][:]),
        groups=np.asarray(rows["group"][:]),
        num_pooled_tokens=view_features.shape[2] - tokens.cache.record["evidence_grid"] ** 2,
    )

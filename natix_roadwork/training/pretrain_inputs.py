"""What a pretraining run starts from: the rows, the model on its backbone, and the inputs of each split.

`pretraining.py` trains and scores with them.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.depth_source import RowDepths
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.folds import dev_mask
from natix_roadwork.data.leak_audit import MetadataChoice, resolve_metadata_fields
from natix_roadwork.data.mask_source import RowMasks
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.gps.gate import SamplingPlan
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dark_rows import DarkRows, choose_dark_rows
from natix_roadwork.training.depth_inputs import depth_inputs
from natix_roadwork.training.gps_inputs import sampling_of
from natix_roadwork.training.mask_inputs import mask_inputs
from natix_roadwork.training.metadata_inputs import metadata_inputs
from natix_roadwork.training.pretrain_model import build_model, unnormalised
from natix_roadwork.training.token_inputs import (
    compute_tokens,
    feature_folder,
    fit_standardizer,
    standardizer_rows,
)


@dataclass(frozen=True)
class PretrainInputs:
    """Everything a run trains on.

    Attributes:
        rows: The loaded data set.
        model: Untrained head on its backbone, features standardised.
        processor: The image processor the model is saved with.
        datasets: Model inputs by split, ready for the trainer; `selection` is the part of train that chooses the epoch.
        tokens: Tokens by split, empty when neither the training nor the baselines need them.
        sampling: How train rows are drawn by their coordinates; None = not by them.
        metadata: The metadata fields the model reads, and the record of how they were chosen.
        fitted: `(N,)` numbers of the train rows that are trained on; None = the first ones, as many as there are inputs.
        masks: Masks of the rows; None = the loss has no mask term.
        dark: Which train rows are dark, where their brightness decides how they are drawn.
        depths: Their depth maps; None = there is no depth view.
    """

    rows: LoadedRows
    model: RoadworkForImageClassification
    processor: RoadworkImageProcessor
    datasets: dict[str, PhotoRows] | dict[str, FeatureRows]
    tokens: dict[str, FeatureRows]
    metadata: MetadataChoice = field(default_factory=lambda: MetadataChoice([], {}))
    sampling: SamplingPlan | None = None
    fitted: NDArray[np.int64] | None = None
    masks: RowMasks | None = None
    dark: DarkRows | None = None
    depths: RowDepths | None = None

    @property
    def sampling_weights(self) -> NDArray[np.float64] | None:
        """`(N,)` sampling weights of the train inputs; None = every row once an epoch."""
        weights = None if self.sampling is None else self.sampling.weights
        weights = self.dark.combined(weights) if self.dark is not None and self.dark.bright_weight else weights
        fitted = slice(len(self.datasets["train"])) if self.fitted is None else self.fitted
        return None if weights is None else weights[fitted]

    @property
    def chooser(self) -> str:
        """The split whose metric chooses the epoch."""
        return "selection" if "selection" in self.datasets else "dev"


def prepare_inputs(
    settings: PretrainArguments,
    args: RoadworkTrainingArguments,
    limit: int | None = None,
    folder: str | None = None,
) -> PretrainInputs:
    """Load rows and backbone, compute tokens where they are wanted, fit the feature statistics on train rows.

    Args:
        settings: What to train on.
        args: How to train.
        limit: Rows of each split to keep, for a dry run; None = all.
        folder: Where tokens and text vectors are kept, instead of where `settings.feature_cache` says.

    Raises:
        ValueError: If the data, the backbone or a setting cannot be used.
    """
    rows, splits = load_splits(settings, args)
    masks, depths = mask_inputs(splits, settings, args), depth_inputs(splits, settings, args)
    choice = choose_metadata(settings, rows, args.seed)
    with args.main_process_first(desc="planning the draws"):
        sampling = sampling_of(rows, settings, args.seed)
        dark = choose_dark_rows(splits["train"], settings) if limit is None else None
    weights = None if sampling is None else sampling.weights
    drawn = weights if dark is None else dark.combined(weights)
    model, processor = build_model(settings, splits["train"]["label"][:], choice.fields, drawn)
    model.to(args.device)
    if limit is not None:
        splits = {name: split.select(range(min(limit, len(split)))) for name, split in splits.items()}
    fitted, selection = selection_rows(splits["train"], settings.selection_share, args.seed)
    fitted = fitted if dark is None else dark.kept(fitted)
    folder = folder or feature_folder(settings)
    known = (choice.fields, model.config.vocabularies, model.config.loss_weights, settings.text_encoder_id)
    metadata = metadata_inputs(splits, *known, args, folder, settings.extra_evidence)
    cached, augmentation = settings.feature_cache != "off", train_augmentation(settings, args.seed)
    kept: dict[str, Any] = {"folder": folder, "metadata": metadata, "augmentation": augmentation, "depths": depths}
    tokens: dict[str, FeatureRows] = {}
    if cached or settings.baselines:
        tokens = compute_tokens(splits, model, processor, settings, args, masks=masks if cached else None, **kept)
    sample = standardizer_rows(len(splits["train"]), args.seed)
    if tokens:
        fit_standardizer(model, tokens["train"].select(sample))
    else:
        chosen = {"standardizer": splits["train"].select(sample)}
        fit_standardizer(model, compute_tokens(chosen, model, processor, settings, args, **kept)["standardizer"])
    tokens = _with_selection(tokens, fitted, selection)
    inputs: dict[str, Any] = tokens
    if not cached:
        views = unnormalised(processor)
        photos = {
            name: PhotoRows(split, views, metadata, augmentation, masks, depths) for name, split in splits.items()
        }
        inputs = _with_selection(photos, fitted, selection)
    return PretrainInputs(rows, model, processor, inputs, tokens, choice, sampling, fitted, masks, dark, depths)


def selection_rows(train: Dataset, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split train rows by groups into those that are trained on and those that choose the epoch.

    Args:
        train: Rows with `label` and `group`.
        share: Wanted share of the latter; 0 = none.
        seed: Decides the draw.

    Returns:
        Row numbers of both.

    Raises:
        ValueError: If the groups leave no such split.
    """
    if not share:
        return np.arange(len(train)), np.arange(0)
    mask = dev_mask(train["label"][:], train["group"][:], share, seed)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _with_selection(splits: dict[str, Any], fitted: NDArray[np.int64], selection: NDArray[np.int64]) -> dict[str, Any]:
    if not splits or len(fitted) == len(splits["train"]):
        return dict(splits)
    parts = {"train": fitted} | ({"selection": selection} if len(selection) else {})
    return splits | {name: splits["train"].select(rows) for name, rows in parts.items()}


def load_splits(settings: PretrainArguments, args: RoadworkTrainingArguments) -> tuple[LoadedRows, dict[str, Dataset]]:
    """Load the data set; of its splits, those that a run may read.

    Raises:
        ValueError: If the data cannot be used, or has no train rows.
    """
    with args.main_process_first(desc="loading rows"):
        rows = load_rows(
            settings.dataset_name,
            seed=args.seed if settings.split_seed is None else settings.split_seed,
            dev_share=settings.dev_share,
            max_megapixels=settings.max_megapixels,
            verify_images=settings.verify_images,
            revision=settings.dataset_revision,
            consistency_filter=settings.consistency_filter,
            near_duplicates=settings.near_duplicates,
            split_manifest=settings.split_manifest,
            groups_file=settings.groups_file,
        )
    if "train" not in rows.splits:
        raise ValueError(
            f"dataset_name={settings.dataset_name!r} has no train rows to learn from, only the splits "
            f"{list(rows.splits)}; name the whole data set, or name its train files train-*.parquet or train/"
        )
    return rows, {name: split for name, split in rows.splits.items() if name != "test" or scores_test(settings, rows)}


def train_augmentation(settings: PretrainArguments, seed: int) -> ViewAugmentation | None:
    """What changes the views of train rows, in the cache's draws or live; None = nothing does."""
    if settings.augmentation == "none":
        return None
    return ViewAugmentation(settings.augmentation, seed=seed, per_view=settings.augment_per_view)


def choose_metadata(settings: PretrainArguments, rows: LoadedRows, seed: int) -> MetadataChoice:
    """Turn `metadata_fields` into the fields the model reads, by an audit of the train and dev rows.

    Raises:
        ValueError: If a name is unknown, or a named field gives the label away and is not allowed to.
    """

    def to_audit() -> Dataset:
        return concatenate_datasets([rows.splits[name] for name in ("train", "dev") if name in rows.splits])

    return resolve_metadata_fields(settings.metadata_fields, settings.allow_leaking_fields, to_audit, seed=seed)


def scores_test(settings: PretrainArguments, rows: LoadedRows) -> bool:
    """Whether a run may score the test split: an imagefolder's own may be, a lockbox never."""
    return settings.score_test and not rows.lockbox

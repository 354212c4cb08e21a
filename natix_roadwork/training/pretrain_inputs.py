"""What a pretraining run starts from: the rows, the model on its backbone, and the inputs of each split.

`pretraining.py` trains and scores with them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import ArrayLike, NDArray

from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.extra_evidence import evidence_width
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.folds import dev_mask
from natix_roadwork.data.leak_audit import MetadataChoice, resolve_metadata_fields
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.embedded import embedded_backbone, is_embedded
from natix_roadwork.gps.gate import SamplingPlan
from natix_roadwork.model.checkpoint import check_image_processor
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dark_rows import DarkRows, choose_dark_rows
from natix_roadwork.training.gps_inputs import sampling_of
from natix_roadwork.training.image_statistics import image_statistics
from natix_roadwork.training.metadata_inputs import metadata_inputs
from natix_roadwork.training.token_inputs import (
    compute_tokens,
    feature_folder,
    fit_standardizer,
    standardizer_rows,
)


# Settings that are fields of `RoadworkConfig` under the same name.
MODEL_FIELDS = (
    *("feature_pooling", "evidence_grid", "keep_views", "hidden_size", "num_attention_layers", "num_attention_heads"),
    *("attention_gate", "feed_forward", "view_positions", "dropout", "loss_weights", "focal_gamma", "label_smoothing"),
    *("view_size", "evidence_size", "num_evidence_queries", "token_dropout", "pyramid"),
    *("gps_encoder", "gps_jitter_km", "metadata_dropout", "whole_metadata_dropout"),
    *("metadata_residual", "mask_size", "mask_evidence"),
)
# Settings of `RoadworkImageProcessor` under the same name.
VIEW_FIELDS = ("view_layout", "squares", "global_fit", "view_size", "max_megapixels", "decode_mode", "resize_backend")


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
        dark: Which train rows are dark, where their brightness decides how they are drawn.
    """

    rows: LoadedRows
    model: RoadworkForImageClassification
    processor: RoadworkImageProcessor
    datasets: dict[str, PhotoRows] | dict[str, FeatureRows]
    tokens: dict[str, FeatureRows]
    metadata: MetadataChoice = field(default_factory=lambda: MetadataChoice([], {}))
    sampling: SamplingPlan | None = None
    fitted: NDArray[np.int64] | None = None
    dark: DarkRows | None = None

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
    kept: dict[str, Any] = {"folder": folder, "metadata": metadata, "augmentation": augmentation}
    tokens: dict[str, FeatureRows] = {}
    if cached or settings.baselines:
        tokens = compute_tokens(splits, model, processor, settings, args, **kept)
    sample = standardizer_rows(len(splits["train"]), args.seed)
    if tokens:
        fit_standardizer(model, tokens["train"].select(sample))
    else:
        chosen = {"standardizer": splits["train"].select(sample)}
        fit_standardizer(model, compute_tokens(chosen, model, processor, settings, args, **kept)["standardizer"])
    tokens = _with_selection(tokens, fitted, selection)
    inputs: dict[str, Any] = tokens
    if not cached:
        views = _unnormalised(processor)
        photos = {name: PhotoRows(split, views, metadata, augmentation) for name, split in splits.items()}
        inputs = _with_selection(photos, fitted, selection)
    return PretrainInputs(rows, model, processor, inputs, tokens, choice, sampling, fitted, dark)


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


def build_model(
    settings: PretrainArguments,
    train_labels: list[int],
    metadata_fields: Sequence[str] = (),
    sampling_weights: ArrayLike | None = None,
) -> tuple[RoadworkForImageClassification, RoadworkImageProcessor]:
    """Build the untrained model on its backbone, and the processor with the backbone's image mean and deviation.

    Args:
        settings: Backbone, head and loss.
        train_labels: `(N,)` labels, from which `focal_alpha: auto` is computed.
        metadata_fields: The metadata the model reads, `auto` resolved.
        sampling_weights: `(N,)` weights by which these rows are drawn; None = all alike.

    Raises:
        ValueError: If a setting does not fit the backbone.
    """
    backbone_id = settings.backbone_id
    if is_embedded(backbone_id):
        backbone_id = str(embedded_backbone(backbone_id))
    head = head_settings(settings, train_labels, metadata_fields, sampling_weights)
    model = RoadworkForImageClassification.from_backbone(backbone_id, revision=settings.backbone_revision, **head)
    config = model.config
    mean, std = image_statistics(backbone_id, config.backbone_config, config.backbone_revision)
    config.image_mean, config.image_std = mean, std
    processor = build_processor(settings, model)
    return model, processor


def head_settings(
    settings: PretrainArguments,
    train_labels: list[int],
    metadata_fields: Sequence[str] = (),
    sampling_weights: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return the fields of `RoadworkConfig` that a run decides, those of the backbone left out; see `build_model`."""
    alpha = balanced_alpha(train_labels, sampling_weights) if settings.focal_alpha == "auto" else settings.focal_alpha
    decided = {"focal_alpha": alpha, "metadata_fields": list(metadata_fields)}
    decided["extra_evidence_size"] = evidence_width(settings.extra_evidence)
    views = RoadworkImageProcessor(**{name: getattr(settings, name) for name in VIEW_FIELDS}).num_views
    return {name: getattr(settings, name) for name in MODEL_FIELDS} | decided | {"num_views": views}


def build_processor(settings: PretrainArguments, model: RoadworkForImageClassification) -> RoadworkImageProcessor:
    """Build the image processor of a model, with its image mean and deviation.

    Raises:
        ValueError: If the views of the settings are not those of the model.
    """
    views = {name: getattr(settings, name) for name in VIEW_FIELDS}
    config = model.config
    processor = RoadworkImageProcessor(image_mean=config.image_mean, image_std=config.image_std, **views)
    check_image_processor(config, processor.settings())
    return processor


def balanced_alpha(labels: list[int], weights: ArrayLike | None = None) -> list[float]:
    """Weigh classes inversely to their frequency among the draws: N / 2 N_c for class c, so that the mean is 1.

    Args:
        labels: `(N,)` labels.
        weights: `(N,)` sampling weights, so that sampling and class weights do not both favour a class; None = all 1.

    Raises:
        ValueError: If a class has no row.
    """
    counts = Counter(labels)
    if not counts[0] or not counts[1]:
        raise ValueError(f"focal_alpha=auto needs train rows of both classes, found {dict(counts)}")
    drawn = np.bincount(labels, weights=weights, minlength=2)
    return [float(drawn.sum() / (2 * drawn[label])) for label in (0, 1)]


def _unnormalised(processor: RoadworkImageProcessor) -> RoadworkImageProcessor:
    """The same views as uint8, a quarter of the bytes between data loader workers and the model."""
    return RoadworkImageProcessor(**processor.settings() | {"do_normalize": False})

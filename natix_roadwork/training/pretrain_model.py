"""The untrained model of a pretraining run, on its backbone, and its image processor; `pretrain_inputs.py` asks for both."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from natix_roadwork.data.extra_evidence import evidence_width
from natix_roadwork.embedded import embedded_backbone, is_embedded
from natix_roadwork.model.checkpoint import check_image_processor
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import PretrainArguments
from natix_roadwork.training.image_statistics import image_statistics


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
    decided: dict[str, Any] = {"focal_alpha": alpha, "metadata_fields": list(metadata_fields)}
    decided["extra_evidence_size"] = evidence_width(settings.extra_evidence)
    views = RoadworkImageProcessor(**{name: getattr(settings, name) for name in VIEW_FIELDS}).num_views
    depth_view = settings.depth_folder is not None
    decided |= {"num_views": views + depth_view, "depth_view": depth_view}
    return {name: getattr(settings, name) for name in MODEL_FIELDS} | decided


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


def unnormalised(processor: RoadworkImageProcessor) -> RoadworkImageProcessor:
    """The same views as uint8, a quarter of the bytes between data loader workers and the model."""
    return RoadworkImageProcessor(**processor.settings() | {"do_normalize": False})

"""The student: a stock image classifier and the image processor it is trained and shipped with.

In come the settings; out go a model of `AutoModelForImageClassification` and a `ViTImageProcessor` of 224 pixels.
`distillation_training.py` trains it, `hub/export.py` writes it.
"""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ViTImageProcessor,
)
from transformers.image_processing_base import ImageProcessingMixin

from natix_roadwork.calibration import decision_layer
from natix_roadwork.embedded import embedded_backbone, is_embedded
from natix_roadwork.subnet.challenge import VIEW_SIDE
from natix_roadwork.training.distillation_arguments import DistillArguments
from natix_roadwork.training.image_statistics import image_statistics
from natix_roadwork.training.yaml_args import nearest_key


LABELS = {0: "None", 1: "Roadwork"}
STOCK, MODERN = "stock-4.45", "modern"
# Convolutional or transformer image classifiers that transformers 4.45.2, which the stock miner pins, loads by name and
# whose input is one square picture.
STOCK_MODEL_TYPES = (
    *("beit", "clip", "convnext", "convnextv2", "deit", "dinov2", "efficientnet", "focalnet", "hiera", "pvt_v2"),
    *("regnet", "resnet", "siglip", "swiftformer", "swin", "swinv2", "vit"),
)
_RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}


def label_settings() -> dict[str, Any]:
    """Return the config's fields that name the two classes."""
    return {"num_labels": len(LABELS), "id2label": dict(LABELS), "label2id": {name: i for i, name in LABELS.items()}}


def check_profile(model_type: str, profile: str) -> None:
    """Refuse an architecture that the profile's readers cannot load.

    Raises:
        ValueError: With the architecture and those that can be loaded.
    """
    if profile == STOCK and model_type not in STOCK_MODEL_TYPES:
        raise ValueError(
            f"model_type={model_type!r} is not among the architectures that the stock miner's transformers 4.45.2 loads "
            f"({', '.join(STOCK_MODEL_TYPES)}); choose one of them, or the profile modern for readers with a newer one"
        )


def build_student(settings: DistillArguments) -> PreTrainedModel:
    """Build the student, its last layer new; the caller sets the seed.

    Raises:
        ValueError: If there are no such weights, a config key is unknown, the profile does not know the architecture, or
            the model does not take 224 pixels.
    """
    if settings.student_config is not None:
        model = AutoModelForImageClassification.from_config(_untrained_config(settings.student_config))
    else:
        source = _source(settings.student_id)
        check_profile(
            AutoConfig.from_pretrained(source, revision=settings.student_revision).model_type, settings.profile
        )
        model = AutoModelForImageClassification.from_pretrained(
            source,
            revision=settings.student_revision,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # the last layer of another task
            **label_settings(),
        )
    check_profile(model.config.model_type, settings.profile)
    model.config.problem_type = "single_label_classification"
    decision_layer(model)
    _check_input(model)
    return model


def build_student_processor(settings: DistillArguments) -> ViTImageProcessor:
    """Build the processor, with the mean, deviation and resampling that the student's weights were trained with."""
    if settings.student_id is None:
        return vit_processor()
    source, revision = _source(settings.student_id), settings.student_revision
    config = AutoConfig.from_pretrained(source, revision=revision)
    mean, std = image_statistics(source, config, revision)
    return vit_processor(mean, std, _resampling(source, config, revision))


def vit_processor(
    mean: list[float] | None = None, std: list[float] | None = None, resample: int = 2
) -> ViTImageProcessor:
    """Make a `ViTImageProcessor` that squashes any picture to 224 x 224, every setting explicit.

    Args:
        mean: Mean of each channel on the scale 0..1; None = 0.5.
        std: Deviation of each channel; None = 0.5.
        resample: Pillow's number of the resampling, 2 = bilinear.
    """
    half = [0.5, 0.5, 0.5]
    return ViTImageProcessor(
        do_resize=True,
        size={"height": VIEW_SIDE, "width": VIEW_SIDE},
        resample=resample,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=half if mean is None else list(mean),
        image_std=half if std is None else list(std),
    )


def _source(student_id: str) -> str:
    return str(embedded_backbone(student_id)) if is_embedded(student_id) else student_id


def _untrained_config(values: dict[str, Any]) -> PreTrainedConfig:
    model_type = values["model_type"]
    known = AutoConfig.for_model(model_type).to_dict()
    for key in values:
        if key not in known:
            raise ValueError(f"student_config: unknown key {key!r} of {model_type}{nearest_key(key, known)}")
    rest = {key: value for key, value in values.items() if key != "model_type"}
    return AutoConfig.for_model(model_type, **rest | label_settings())


def _resampling(source: str, config: PreTrainedConfig, revision: str | None) -> int:
    settings: dict[str, Any] = getattr(config, "pretrained_cfg", None) or {}
    if settings.get("interpolation") in _RESAMPLING:
        return _RESAMPLING[settings["interpolation"]]
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source, revision=revision)
    except OSError:  # image_statistics has said so already
        settings = {}
    return int(settings.get("resample", _RESAMPLING["bilinear"]))


@torch.no_grad()
def _check_input(model: PreTrainedModel) -> None:
    training = model.training
    try:
        model.eval()(pixel_values=torch.zeros(1, 3, VIEW_SIDE, VIEW_SIDE))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the student {type(model).__name__} does not take {VIEW_SIDE} x {VIEW_SIDE} pixels: {error}"
        ) from error
    finally:
        model.train(training)

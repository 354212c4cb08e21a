"""The image mean and deviation of a backbone, which model and processor share; `pretrain_model.py` builds both."""

from typing import Any

from transformers import PreTrainedConfig
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import logging

from natix_roadwork.model.configuration_roadwork import IMAGENET_MEAN, IMAGENET_STD


logger = logging.get_logger(__name__)


def image_statistics(
    backbone_id: str, config: PreTrainedConfig, revision: str | None = None
) -> tuple[list[float], list[float]]:
    """Find the per-channel mean and deviation the backbone was trained with, on pixels in [0, 1].

    They come from timm's own settings or from the backbone's `preprocessor_config.json`; ImageNet's where neither is.

    Args:
        backbone_id: Hub id or folder.
        config: The backbone's config.
        revision: Branch, tag or commit on the Hub.
    """
    settings: dict[str, Any] = getattr(config, "pretrained_cfg", None) or {}
    if settings.get("mean") and settings.get("std"):
        return list(settings["mean"]), list(settings["std"])
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(backbone_id, revision=revision)
    except OSError:
        logger.warning(f"{backbone_id} says no image mean and deviation; ImageNet's are used.")
        settings = {}
    return list(settings.get("image_mean", IMAGENET_MEAN)), list(settings.get("image_std", IMAGENET_STD))

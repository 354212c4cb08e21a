"""Deciding from a street photo whether there is roadwork.

Importing the package registers its model and image processor with the Auto classes, so that
`AutoModel.from_pretrained` needs no remote code.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification, RoadworkModel, RoadworkOutput


AutoConfig.register("natix_roadwork", RoadworkConfig, exist_ok=True)
AutoModel.register(RoadworkConfig, RoadworkModel, exist_ok=True)
AutoModelForImageClassification.register(RoadworkConfig, RoadworkForImageClassification, exist_ok=True)
# One class for every backend: the views are cut by Pillow, whether torchvision is there or not.
AutoImageProcessor.register(
    RoadworkConfig,
    image_processor_classes={"pil": RoadworkImageProcessor, "torchvision": RoadworkImageProcessor},
    exist_ok=True,
)
RoadworkConfig.register_for_auto_class()
RoadworkForImageClassification.register_for_auto_class("AutoModelForImageClassification")
RoadworkModel.register_for_auto_class("AutoModel")
RoadworkImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = [
    "RoadworkConfig",
    "RoadworkForImageClassification",
    "RoadworkImageProcessor",
    "RoadworkModel",
    "RoadworkOutput",
]

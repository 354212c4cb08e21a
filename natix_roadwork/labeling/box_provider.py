"""Boxes of detectors as masks: what all have in common, and detectors with labels of their own.

`detect` gives the boxes of a photo, `find` fills them. A filled box marks more than the object: its record says
`"masks": "filled boxes"`. All in float32, for bfloat16 moves a box by several pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModelForObjectDetection, BaseImageProcessor, PreTrainedModel

from natix_roadwork.labeling.detections import Detection, distinct_boxes, filled_boxes
from natix_roadwork.labeling.mask_provider import PhotoObjects
from natix_roadwork.labeling.pretrained import check_share, load_model, load_pretrained, model_settings
from natix_roadwork.labeling.prompts import check_labels
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


class BoxProvider(ABC):
    """A detector whose boxes stand for masks.

    Attributes:
        name: Stands in every record.
        classes: Classes it can find.
        library: What runs it, with its version.
        marks: What its masks are.
    """

    name: str
    classes: tuple[str, ...]
    library: str = f"transformers {transformers.__version__}"
    marks: str = "filled boxes"

    def __init__(
        self, model: nn.Module, *, model_id: str, revision: str | None, min_score: float, nms_iou: float
    ) -> None:
        """Take what all detectors have.

        Args:
            model: Detector.
            model_id: What `settings` calls the model.
            revision: Likewise.
            min_score: Only boxes with a higher score are kept.
            nms_iou: Boxes of one class that overlap by more than this intersection over union are one object; 1 = all
                stay.
        """
        self.model, self.model_id, self.revision = model, model_id, revision
        self.min_score = check_share(min_score, "min_score")
        self.nms_iou = check_share(nms_iou, "nms_iou")

    @abstractmethod
    def detect(self, photo: NDArray[np.uint8]) -> list[Detection]:
        """Find the boxes of a photo `(H, W, 3)` RGB, upright, by falling score."""

    def find(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> PhotoObjects:
        """Detect the objects of one photo and fill their boxes.

        Args:
            row: Not read.
            photo: `(H, W, 3)` RGB, upright.
        """
        return PhotoObjects(filled_boxes(self.detect(photo)))

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what is found, weights included, as JSON values."""
        limits = {"min_score": self.min_score, "nms_iou": self.nms_iou}
        return {"provider": self.name, "masks": self.marks, **limits, **self._model_settings}

    @cached_property
    def _model_settings(self) -> dict[str, Any]:
        return model_settings(self.model, self.model_id, self.revision, "float32", self.library)


class LabelBoxProvider(BoxProvider):
    """RF-DETR, D-FINE, RT-DETRv2 and every other detector of `AutoModelForObjectDetection`: boxes of its own labels.

    Attributes:
        labels: The detector's label to our class; its other labels are not looked for.
        model_class: What loads its weights.
    """

    name = "label_boxes"
    model_class: Any = AutoModelForObjectDetection

    def __init__(
        self,
        model: PreTrainedModel,
        processor: BaseImageProcessor,
        *,
        model_id: str,
        labels: Mapping[str, str],
        revision: str | None = None,
        min_score: float = 0.5,
        nms_iou: float = 0.7,
    ) -> None:
        """Take a model that is in evaluation mode on its device.

        Args:
            model: Detector.
            processor: Its image processor.
            model_id: What `settings` calls the model.
            labels: The detector's label to our class.
            revision: As `model_id`.
            min_score: As in `BoxProvider`.
            nms_iou: As in `BoxProvider`.

        Raises:
            ValueError: If a setting is wrong, or the detector lacks a label.
        """
        super().__init__(model, model_id=model_id, revision=revision, min_score=min_score, nms_iou=nms_iou)
        self.processor = processor
        self.labels = check_labels(labels, model.config.id2label.values(), model_id)
        self.classes = tuple(kind for kind in MASK_CLASSES if kind in self.labels.values())

    @classmethod
    def from_pretrained(
        cls, model_id: str, *, device: str | torch.device, revision: str | None = None, **settings: Any
    ) -> Self:
        """Load a detector from the Hub, such as `ustc-community/dfine-xlarge-coco`, or from a folder.

        Args:
            model_id: Hub id, or a folder.
            device: Such as `cpu` or `cuda:1`.
            revision: Commit on the Hub.
            settings: `labels`, `min_score`, `nms_iou`.

        Raises:
            ValueError: If the model cannot be had, or a setting is wrong.
        """
        processor = load_pretrained(AutoImageProcessor.from_pretrained, model_id, revision)
        model = load_model(cls.model_class.from_pretrained, model_id, revision, device)
        return cls(model, processor, model_id=model_id, revision=revision, **settings)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what is found, weights included, as JSON values."""
        return {**super().settings(), "labels": self.labels}

    @torch.inference_mode()
    def detect(self, photo: NDArray[np.uint8]) -> list[Detection]:
        """Find the boxes of a photo `(H, W, 3)` RGB, upright, by falling score."""
        size = photo.shape[:2]
        inputs = self.processor(images=Image.fromarray(photo), return_tensors="pt").to(self.model.device)
        (found,) = self.processor.post_process_object_detection(
            self.model(**inputs), threshold=self.min_score, target_sizes=[size]
        )
        named = [self.model.config.id2label[number] for number in found["labels"].tolist()]
        wanted = [number for number, label in enumerate(named) if label in self.labels]
        names = [(self.labels[named[number]], named[number]) for number in wanted]
        return distinct_boxes(found["boxes"][wanted], found["scores"][wanted], names, size, self.nms_iou)

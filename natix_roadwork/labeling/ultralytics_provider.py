"""Boxes of YOLO-Master and other detectors in the format of ultralytics, which the user has installed.

That package is AGPL-3.0, so this project does not depend on it: it is imported when `UltralyticsProvider` is made, and
nowhere else.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from natix_roadwork.labeling.box_provider import BoxProvider
from natix_roadwork.labeling.detections import Detection, distinct_boxes
from natix_roadwork.labeling.prompts import check_labels
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


class UltralyticsProvider(BoxProvider):
    """A detector that the user's `ultralytics` package runs; YOLO-Master's fork installs under that name too.

    Its weights are a pickle, which runs code as it is read: use a file whose maker you trust. Whoever gives the package, or
    a service built on it, to others must keep its licence, AGPL-3.0.

    Attributes:
        labels: The detector's label to our class; its other labels are not looked for.
    """

    name = "ultralytics_boxes"

    def __init__(
        self,
        weights: str | Path,
        *,
        labels: Mapping[str, str],
        device: str | torch.device,
        min_score: float = 0.3,
        nms_iou: float = 0.7,
        image_size: int = 1280,
    ) -> None:
        """Load a detector from its file.

        Args:
            weights: The file, such as `yolo_master_n.pt`; nothing is fetched.
            labels: The detector's label to our class.
            device: Such as `cpu` or `cuda:1`.
            min_score: As in `BoxProvider`.
            nms_iou: As in `BoxProvider`.
            image_size: Longer side that photos are resized to, a multiple of 32.

        Raises:
            ValueError: If the package or the file is missing, a setting is wrong, or the detector lacks a label.
        """
        try:
            ultralytics = importlib.import_module("ultralytics")
        except ImportError as error:
            raise ValueError(
                f"provider=ultralytics_boxes needs the package ultralytics, which cannot be imported ({error}). It is AGPL-3.0, "
                "not a part of this project: read its licence, then install it, or YOLO-Master's fork of it, yourself; "
                "RF-DETR and D-FINE (provider: label_boxes) need neither"
            ) from error
        if not Path(weights).is_file():  # by a bare name the package would fetch some
            raise ValueError(f"model={str(weights)!r} is no file; give the file of a detector's weights")
        if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 32 or image_size % 32:
            raise ValueError(f"image_size={image_size!r} must be a positive multiple of 32")
        self.detector = ultralytics.YOLO(str(weights))
        super().__init__(
            self.detector.model, model_id=Path(weights).name, revision=None, min_score=min_score, nms_iou=nms_iou
        )
        self.library = f"ultralytics {ultralytics.__version__}"
        self.device, self.image_size = torch.device(device), image_size
        self.labels = check_labels(labels, self.detector.names.values(), self.model_id)
        self.classes = tuple(kind for kind in MASK_CLASSES if kind in self.labels.values())
        self.settings()  # hashes the weights before the first photo, when the package melts layers together

    @classmethod
    def from_pretrained(cls, model_id: str, *, device: str | torch.device, **settings: Any) -> Self:
        """Load a detector from its file; as the constructor, in the form of the other providers."""
        return cls(model_id, device=device, **settings)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what is found, weights included, as JSON values."""
        return {**super().settings(), "labels": self.labels, "image_size": self.image_size}

    def detect(self, photo: NDArray[np.uint8]) -> list[Detection]:
        """Find the boxes of a photo `(H, W, 3)` RGB, upright, by falling score."""
        bgr = np.ascontiguousarray(photo[..., ::-1])  # what the package takes an array for
        (result,) = self.detector.predict(
            bgr, conf=self.min_score, iou=self.nms_iou, imgsz=self.image_size, device=str(self.device), verbose=False
        )
        named = [self.detector.names[int(number)] for number in result.boxes.cls.tolist()]
        scores = result.boxes.conf.float().cpu()
        # The package keeps a score equal to the limit, the other providers do not.
        wanted = [
            number for number, label in enumerate(named) if label in self.labels and scores[number] > self.min_score
        ]
        names = [(self.labels[named[number]], named[number]) for number in wanted]
        return distinct_boxes(result.boxes.xyxy[wanted], scores[wanted], names, photo.shape[:2], self.nms_iou)

"""Masks of RF-DETR's segmentation models, whose labels are their own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import batched_nms
from transformers import RfDetrForInstanceSegmentation

from natix_roadwork.labeling.box_provider import LabelBoxProvider
from natix_roadwork.labeling.detections import cut_mask
from natix_roadwork.labeling.mask_provider import PhotoObjects
from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


class LabelMaskProvider(LabelBoxProvider):
    """An RF-DETR that gives a mask with each box, such as one trained on the masks of ROADWork.

    `detect` gives its boxes, `find` its masks; those of one class whose boxes overlap by more than `nms_iou` are one object.
    """

    name = "label_masks"
    marks = "instance masks"
    model_class = RfDetrForInstanceSegmentation

    @torch.inference_mode()
    def find(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> PhotoObjects:
        """Find the objects of one photo, by falling score.

        Args:
            row: Not read.
            photo: `(H, W, 3)` RGB, upright.
        """
        inputs = self.processor(images=Image.fromarray(photo), return_tensors="pt").to(self.model.device)
        (found,) = self.processor.post_process_instance_segmentation(
            self.model(**inputs), threshold=self.min_score, target_sizes=[photo.shape[:2]], return_binary_maps=True
        )
        objects = []
        # Where nothing is found the processor gives an empty map in place of no masks.
        maps = found["segmentation"] if found["segments_info"] else ()
        for mask, segment in zip(maps, found["segments_info"], strict=True):
            label = self.model.config.id2label[segment["label_id"]]
            if label in self.labels:
                objects.append(cut_mask(self.labels[label], mask, label, segment["score"]))
        if not objects:
            return PhotoObjects()
        boxes = torch.tensor([one.box for one in objects]).float()
        scores = torch.tensor([one.score for one in objects])
        kinds = torch.tensor([MASK_CLASSES.index(one.kind) for one in objects])
        return PhotoObjects([objects[number] for number in batched_nms(boxes, scores, kinds, self.nms_iou).tolist()])

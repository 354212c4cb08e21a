"""Masks from text prompts by SAM 3.

A photo goes through the image encoder once; every prompt is then asked of the same features. The run of
`pseudo_masks.py` calls `Sam3Provider.find` for each photo and writes what it finds.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Sam3Model, Sam3Processor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3ImageSegmentationOutput, Sam3VisionEncoderOutput

from natix_roadwork.data.masks import MaskError
from natix_roadwork.labeling.detections import cut_mask, distinct_masks
from natix_roadwork.labeling.mask_provider import Box, FoundObject, PhotoObjects
from natix_roadwork.labeling.pretrained import (
    arithmetic,
    check_dtype,
    check_share,
    load_model,
    load_pretrained,
    model_settings,
)
from natix_roadwork.labeling.prompts import Exemplars, check_prompts, read_exemplars


PROMPTS_A_PASS = 8  # asked together; bounds the memory, does not change what is found


class Sam3Provider:
    """SAM 3 with text prompts and, where a photo has them, example boxes.

    SAM 3 takes an example only from the photo that it searches: a box around one cone of a photo helps to find the others
    of this photo. It takes no example from another photo, no picture of a class, and no marked negative photo; what all
    photos have in common can only be said in words. Boxes are added to the prompts of their class, which are still asked
    one by one. SAM 3 itself suppresses no duplicates.

    Attributes:
        name: `sam3`.
        classes: Classes that have prompts.
        prompts: Class to its prompts.
    """

    name = "sam3"

    def __init__(
        self,
        model: Sam3Model,
        processor: Sam3Processor,
        *,
        model_id: str,
        revision: str | None = None,
        prompts: Mapping[str, list[str]] | None = None,
        min_score: float = 0.5,
        nms_iou: float = 0.5,
        mask_threshold: float = 0.5,
        dtype: str | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Take a model that is in evaluation mode on its device, its weights in float32.

        Args:
            model: SAM 3.
            processor: Its processor.
            model_id: What `settings` calls the model.
            revision: Likewise.
            prompts: Class to prompts; None = `DEFAULT_PROMPTS`.
            min_score: Only objects with a higher score are kept. The score is that of
                `post_process_instance_segmentation`: sigmoid(object) times sigmoid(presence of the prompt).
            nms_iou: Objects of one class whose masks overlap by more than this intersection over union, measured on the
                model's own grid, are one, the best of them; 1 = all stay.
            mask_threshold: Probability above which a pixel belongs to an object.
            dtype: `float32` or `bfloat16` (autocast); None = `bfloat16` on a GPU.
            exemplars: Example boxes of some rows.

        Raises:
            ValueError: If a setting is wrong, or a prompt is longer than the text encoder reads.
        """
        self.model, self.processor = model, processor
        self.model_id, self.revision = model_id, revision
        self.prompts = check_prompts(prompts)
        self.classes = tuple(self.prompts)
        self.min_score = check_share(min_score, "min_score")
        self.nms_iou = check_share(nms_iou, "nms_iou")
        self.mask_threshold = check_share(mask_threshold, "mask_threshold")
        self.dtype = check_dtype(dtype or ("bfloat16" if model.device.type == "cuda" else "float32"))
        self.exemplars = exemplars
        for row_id, classes in exemplars.boxes.items() if exemplars else ():
            for kind in classes:
                if kind not in self.prompts:
                    raise ValueError(f"exemplars of row {row_id!r} mark {kind!r}, which has no prompts; give it some")
        self._texts = {kind: list(self._encode_texts(phrases)) for kind, phrases in self.prompts.items()}

    @classmethod
    def from_pretrained(
        cls,
        model_id: str = "facebook/sam3",
        *,
        device: str | torch.device,
        revision: str | None = None,
        exemplars: str | None = None,
        **settings: Any,
    ) -> Self:
        """Load SAM 3 from the Hub, whose `facebook/sam3` is gated, or from a folder.

        Args:
            model_id: Hub id, or a folder.
            device: Such as `cpu` or `cuda:1`.
            revision: Commit on the Hub.
            exemplars: JSON file of example boxes, as `read_exemplars` reads it.
            settings: `prompts`, `min_score`, `nms_iou`, `mask_threshold`, `dtype`.

        Raises:
            ValueError: If the model cannot be had, with what to do, or a setting is wrong.
        """
        marked = read_exemplars(exemplars) if exemplars is not None else None
        processor = load_pretrained(Sam3Processor.from_pretrained, model_id, revision)
        model = load_model(Sam3Model.from_pretrained, model_id, revision, device)
        return cls(model, processor, model_id=model_id, revision=revision, exemplars=marked, **settings)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what is found, weights included, as JSON values."""
        return {
            "provider": self.name,
            **self._model_settings,
            "prompts": self.prompts,
            "min_score": self.min_score,
            "nms_iou": self.nms_iou,
            "mask_threshold": self.mask_threshold,
            "exemplars": self.exemplars.digest if self.exemplars else None,
        }

    @cached_property
    def _model_settings(self) -> dict[str, Any]:
        library = f"transformers {transformers.__version__}"
        return model_settings(self.model, self.model_id, self.revision, self.dtype, library)

    @torch.inference_mode()
    def find(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> PhotoObjects:
        """Find the objects of one photo.

        Args:
            row: Its `row_id` finds the example boxes.
            photo: `(H, W, 3)` RGB, upright.

        Returns:
            Objects by class in the order of `prompts`, then by falling score, and the presence of each prompt.

        Raises:
            MaskError: If an example box lies outside the photo.
        """
        size = photo.shape[:2]
        marked = self._marked(str(row["row_id"]), size)
        device = self.model.device
        with arithmetic(device, self.dtype):
            pixels = self.processor(images=Image.fromarray(photo), return_tensors="pt", device=device)["pixel_values"]
            vision = self.model.get_vision_features(pixel_values=pixels.to(device))
        objects: list[FoundObject] = []
        presence: dict[str, float] = {}
        for kind, phrases in self.prompts.items():
            asked = list(self._ask(vision, kind, marked.get(kind), size))
            believed = torch.cat([out.presence_logits for out in asked]).sigmoid().flatten()  # (P,)
            presence |= dict(zip(phrases, believed.tolist(), strict=True))
            objects += self._objects(kind, asked, size)
        return PhotoObjects(objects, presence)

    def _ask(
        self, vision: Sam3VisionEncoderOutput, kind: str, boxes: list[Box] | None, size: tuple[int, int]
    ) -> Iterator[Sam3ImageSegmentationOutput]:
        """Ask all prompts of a class of one photo's features; P prompts a pass, the outputs in float32."""
        examples: dict[str, Tensor] = {}
        if boxes:
            read = self.processor(original_sizes=[list(size)], input_boxes=[boxes], return_tensors="pt")
            examples = {name: read[name].to(self.model.device) for name in ("input_boxes", "input_boxes_labels")}
        for embedded, attended in self._texts[kind]:
            count = len(embedded)
            # SAM 3 pools the features in example boxes as float16, which autocast to bfloat16 refuses.
            with arithmetic(self.model.device, "float32" if boxes else self.dtype):
                out = self.model(
                    vision_embeds=_repeat(vision, count),
                    text_embeds=BaseModelOutputWithPooling(pooler_output=embedded),
                    attention_mask=attended,
                    **{name: value.expand(count, *value.shape[1:]) for name, value in examples.items()},
                )
            names = ("pred_masks", "pred_boxes", "pred_logits", "presence_logits")
            yield Sam3ImageSegmentationOutput(**{name: out[name].float() for name in names})

    def _objects(
        self, kind: str, asked: list[Sam3ImageSegmentationOutput], size: tuple[int, int]
    ) -> Iterator[FoundObject]:
        """Score the queries of a class, drop duplicates, and bring the masks of the rest to the photo's size."""
        logits = torch.cat([out.pred_logits for out in asked])  # (P, Q)
        masks = torch.cat([out.pred_masks for out in asked])  # (P, Q, h, w)
        presence = torch.cat([out.presence_logits for out in asked])  # (P, 1)
        scores = logits.sigmoid() * presence.sigmoid()
        chosen = torch.nonzero(scores > self.min_score)  # (N, 2)
        order = scores[tuple(chosen.T)].argsort(descending=True, stable=True)
        chosen = chosen[order]
        # No pixel of the resized mask exceeds the largest of the grid, so a mask that is empty here stays so.
        on_grid = masks[tuple(chosen.T)].sigmoid() > self.mask_threshold
        for index in distinct_masks(on_grid, self.nms_iou):
            prompt, query = chosen[index].tolist()
            # One at a time: the processor makes eight bytes of each pixel of the photo.
            single = Sam3ImageSegmentationOutput(
                pred_masks=masks[None, None, prompt, query],
                pred_boxes=torch.zeros(1, 1, 4),
                pred_logits=logits[None, None, prompt, query],
                presence_logits=presence[None, prompt],
            )
            (found,) = self.processor.post_process_instance_segmentation(
                single,
                threshold=-1.0,
                mask_threshold=self.mask_threshold,
                target_sizes=[size],  # chosen above
            )
            if found["masks"].any():
                score = scores[prompt, query].item()
                yield cut_mask(kind, found["masks"][0].bool(), self.prompts[kind][prompt], score)

    @torch.inference_mode()
    def _encode_texts(self, phrases: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Embed prompts `(P, L, D)` with the mask of their tokens `(P, L)`, once for all photos."""
        longest = self.model.config.text_config.max_position_embeddings
        for first in range(0, len(phrases), PROMPTS_A_PASS):
            some = phrases[first : first + PROMPTS_A_PASS]
            for phrase in some:
                length = len(self.processor.tokenizer(phrase)["input_ids"])
                if length > longest:
                    raise ValueError(f"prompt {phrase!r} has {length} tokens, SAM 3 reads {longest}; make it shorter")
            tokens = self.processor(text=some, return_tensors="pt").to(self.model.device)
            with arithmetic(self.model.device, self.dtype):
                embedded = self.model.get_text_features(**tokens).pooler_output
            yield embedded.float(), tokens["attention_mask"]

    def _marked(self, row_id: str, size: tuple[int, int]) -> dict[str, list[Box]]:
        """The example boxes of a photo, all of them inside it."""
        marked = self.exemplars.boxes.get(row_id, {}) if self.exemplars else {}
        for kind, boxes in marked.items():
            for box in boxes:
                if box[2] > size[1] or box[3] > size[0]:
                    raise MaskError(
                        "exemplar outside",
                        f"row {row_id!r}: the {kind} exemplar {list(box)} leaves its photo of {size[1]}x{size[0]}; mark it "
                        "in pixels of the upright photo",
                    )
        return marked


def _repeat(vision: Sam3VisionEncoderOutput, count: int) -> Sam3VisionEncoderOutput:
    """One photo's features in float32 for `count` prompts, without a copy of each."""
    return Sam3VisionEncoderOutput(
        fpn_hidden_states=tuple(level.float().expand(count, -1, -1, -1) for level in vision.fpn_hidden_states),
        fpn_position_encoding=tuple(level.float().expand(count, -1, -1, -1) for level in vision.fpn_position_encoding),
    )

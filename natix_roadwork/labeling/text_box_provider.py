"""Boxes of what prompts name, by open-vocabulary detectors, filled to masks."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, PreTrainedModel, ProcessorMixin

from natix_roadwork.labeling.box_provider import BoxProvider
from natix_roadwork.labeling.detections import Detection, distinct_boxes
from natix_roadwork.labeling.pretrained import load_model, load_pretrained
from natix_roadwork.labeling.prompts import check_prompts


GROUNDED = ("grounding-dino", "mm-grounding-dino")


class TextBoxProvider(BoxProvider):
    """Grounding DINO or MM Grounding DINO: boxes of what prompts name.

    All prompts are asked at once, so that a photo is encoded once. A box belongs to the prompt whose tokens fit it best in
    the mean (as MMDetection scores it), and its score is that prompt's best token (as the processor scores it).

    Attributes:
        prompts: Class to its prompts.
    """

    name = "text_boxes"

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        *,
        model_id: str,
        revision: str | None = None,
        prompts: Mapping[str, list[str]] | None = None,
        min_score: float = 0.3,
        nms_iou: float = 0.5,
    ) -> None:
        """Take a model that is in evaluation mode on its device.

        Args:
            model: Detector.
            processor: Its processor.
            model_id: What `settings` calls the model.
            revision: Likewise.
            prompts: Class to prompts; None = `DEFAULT_PROMPTS`.
            min_score: As in `BoxProvider`.
            nms_iou: As in `BoxProvider`.

        Raises:
            ValueError: If a setting is wrong, the model is of another family, or the prompts together are longer than it
                reads.
        """
        super().__init__(model, model_id=model_id, revision=revision, min_score=min_score, nms_iou=nms_iou)
        if model.config.model_type not in GROUNDED:
            raise ValueError(
                f"model={model_id!r} is of type {model.config.model_type!r}; text_boxes takes {' or '.join(GROUNDED)}"
            )
        self.processor = processor
        self.prompts = check_prompts(prompts)
        self.classes = tuple(self.prompts)
        self._names = [(kind, phrase) for kind, phrases in self.prompts.items() for phrase in phrases]
        self._phrases = [phrase for _, phrase in self._names]
        self._spans = self._token_spans()

    @classmethod
    def from_pretrained(
        cls, model_id: str, *, device: str | torch.device, revision: str | None = None, **settings: Any
    ) -> Self:
        """Load a detector from the Hub, such as `IDEA-Research/grounding-dino-base`, or from a folder.

        Args:
            model_id: Hub id, or a folder.
            device: Such as `cpu` or `cuda:1`.
            revision: Commit on the Hub.
            settings: `prompts`, `min_score`, `nms_iou`.

        Raises:
            ValueError: If the model cannot be had, or a setting is wrong.
        """
        processor = load_pretrained(AutoProcessor.from_pretrained, model_id, revision)
        model = load_model(AutoModelForZeroShotObjectDetection.from_pretrained, model_id, revision, device)
        return cls(model, processor, model_id=model_id, revision=revision, **settings)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what is found, weights included, as JSON values."""
        return {**super().settings(), "prompts": self.prompts}

    @torch.inference_mode()
    def detect(self, photo: NDArray[np.uint8]) -> list[Detection]:
        """Find the boxes of a photo `(H, W, 3)` RGB, upright, by falling score."""
        size = photo.shape[:2]
        inputs = self.processor(images=Image.fromarray(photo), text=[self._phrases], return_tensors="pt")
        out = self.model(**inputs.to(self.model.device))
        fit = torch.stack([out.logits[0, :, span].sigmoid().mean(dim=-1) for span in self._spans])  # (P, Q)
        owners = fit.argmax(dim=0)  # (Q,)
        boxes, scores, names = [], [], []
        for number, (name, span) in enumerate(zip(self._names, self._spans, strict=True)):
            mine = type(out)(
                logits=out.logits[:, owners == number, span], pred_boxes=out.pred_boxes[:, owners == number]
            )
            (found,) = self.processor.post_process_grounded_object_detection(
                mine, inputs["input_ids"], threshold=self.min_score, text_threshold=1.0, target_sizes=[size]
            )
            boxes.append(found["boxes"])
            scores.append(found["scores"])
            names += [name] * len(found["scores"])
        return distinct_boxes(torch.cat(boxes), torch.cat(scores), names, size, self.nms_iou)

    def _token_spans(self) -> list[slice]:
        """Where the tokens of each prompt lie in the text of all of them."""
        ids = self.processor(text=[self._phrases])["input_ids"][0]
        most = min(self.model.config.max_text_len, self.model.config.text_config.max_position_embeddings)
        if len(ids) > most:
            raise ValueError(f"prompts have {len(ids)} tokens together, {self.model_id} reads {most}; give fewer")
        spans, start = [], 1  # after the token that begins the text
        for phrase in self._phrases:
            alone = self.processor.tokenizer(phrase.lower(), add_special_tokens=False)["input_ids"]
            spans.append(slice(start, start + len(alone)))
            if list(ids[spans[-1]]) != alone:
                raise ValueError(
                    f"prompt {phrase!r} is read in another way among others by {self.model_id}; reword it"
                )
            start += len(alone) + 1  # and the full stop
        return spans

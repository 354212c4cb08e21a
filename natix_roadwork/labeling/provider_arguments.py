"""Settings of the models that mark photos: which model, what it is asked, how doubtful and double finds are treated.

A recipe that runs such a model takes these keys; `providers.py` makes the model from them.
"""

import json
from dataclasses import dataclass, field
from typing import Any


# Keys of each model provider besides `model`, `model_revision` and `min_score`; None = the provider's own default.
MODEL_PROVIDERS: dict[str, tuple[str, ...]] = {
    "sam3": ("prompts", "nms_iou", "mask_threshold", "dtype", "exemplars"),
    "text_boxes": ("prompts", "nms_iou"),
    "label_boxes": ("labels", "nms_iou"),
    "label_masks": ("labels", "nms_iou"),
    "ultralytics_boxes": ("labels", "nms_iou", "image_size"),
}


@dataclass(kw_only=True)
class ModelProviderArguments:
    """How a model marks photos.

    Attributes:
        model: Hub id or folder of the model; of `ultralytics_boxes` a file.
        model_revision: Its branch, tag or commit on the Hub.
        prompts: Of `sam3` and `text_boxes`: JSON mapping of class to a list of noun phrases; None = `prompts.DEFAULT_PROMPTS`.
        labels: Of the others: JSON mapping of the model's own labels to classes.
        exemplars: Of `sam3`: JSON file of example boxes in the photos themselves, by row id and class.
        nms_iou: Finds of one class that overlap by more than this are one.
        mask_threshold: Of `sam3`: probability above which a pixel belongs to an object.
        dtype: Of `sam3`: `float32` or `bfloat16`.
        image_size: Of `ultralytics_boxes`: longer side that photos are resized to.
    """

    model: str | None = field(default=None, metadata={"help": "Hub id or folder of the model that marks."})
    model_revision: str | None = field(default=None, metadata={"help": "Its branch, tag or commit on the Hub."})
    prompts: str | None = field(default=None, metadata={"help": "JSON mapping of class to noun phrases."})
    labels: str | None = field(default=None, metadata={"help": "JSON mapping of a detector's labels to classes."})
    exemplars: str | None = field(default=None, metadata={"help": "sam3: JSON file of example boxes."})
    nms_iou: float | None = field(default=None, metadata={"help": "Overlap above which two finds are one."})
    mask_threshold: float | None = field(default=None, metadata={"help": "sam3: probability of a marked pixel."})
    dtype: str | None = field(default=None, metadata={"help": "sam3: float32 or bfloat16."})
    image_size: int | None = field(default=None, metadata={"help": "ultralytics_boxes: longer side in pixels."})

    def check_model_keys(self, provider: str) -> None:
        """Refuse keys that the provider does not read, a missing model, and mappings that are no JSON.

        Raises:
            ValueError: If there is one; the key and its value are named.
        """
        own = MODEL_PROVIDERS.get(provider, ())
        known = {key for keys in MODEL_PROVIDERS.values() for key in keys}
        read = {*own, "model"} if own else set()
        if own and provider != "ultralytics_boxes":  # its model is a file
            read.add("model_revision")
        for key in sorted({*known, "model", "model_revision"} - read):
            if getattr(self, key) is not None:
                raise ValueError(f"{key}={getattr(self, key)!r} is not read by provider={provider}; leave it out")
        if own and self.model is None:
            raise ValueError(f"model is missing; provider={provider} needs a Hub id, a folder or a file")
        if "labels" in own and self.labels is None:
            raise ValueError(
                f"labels is missing; provider={provider} needs a JSON mapping of the model's labels to classes"
            )
        self.model_settings(provider)

    def model_settings(self, provider: str) -> dict[str, Any]:
        """Return the keys of a model provider that are given, as its `from_pretrained` takes them.

        Raises:
            ValueError: If a mapping is no JSON.
        """
        given = {key: getattr(self, key) for key in MODEL_PROVIDERS.get(provider, ())}
        given = {key: value for key, value in given.items() if value is not None}
        for key in ("prompts", "labels"):
            if isinstance(given.get(key), str):
                try:
                    given[key] = json.loads(given[key])
                except ValueError as error:
                    raise ValueError(f"{key}={given[key]!r} is no JSON ({error})") from error
        return given

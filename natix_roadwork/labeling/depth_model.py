"""How near each part of a photo is: any depth model of transformers, Depth Anything V2 by default.

A photo goes through the model alone, so that its map does not depend on its neighbours. `depth_maps.py` writes the maps.
"""

from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

from natix_roadwork.data.depth import DepthError
from natix_roadwork.labeling.pretrained import arithmetic, load_model, load_pretrained, model_settings


PREDICTS = ("auto", "nearness", "distance")
PERCENTILES = (1.0, 99.0)
NEAREST = 1e-3  # a predicted distance of 0 would be infinitely near


class DepthModel:
    """A depth model with its image processor.

    Args:
        model: Gives `predicted_depth (1, h, w)`.
        processor: Makes its `pixel_values` of a photo.
        predicts: `nearness` or `distance`.
        dtype: Of the arithmetic, one of `pretrained.DTYPES`.
        source: Model id, revision and the like, for the run's settings.
    """

    def __init__(
        self, model: PreTrainedModel, processor: BaseImageProcessor, predicts: str, dtype: str, source: dict[str, Any]
    ) -> None:
        """Keep them."""
        self.model, self.processor, self.predicts, self.dtype, self.source = model, processor, predicts, dtype, source

    @classmethod
    def from_pretrained(
        cls,
        model_id: str,
        revision: str | None = None,
        predicts: str = "auto",
        dtype: str = "float32",
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a depth model and its image processor.

        Args:
            model_id: Hub id, or a folder.
            revision: Commit, tag or branch on the Hub.
            predicts: One of `PREDICTS`.
            dtype: `float32` or `bfloat16`.
            device: Such as `cpu` or `cuda:1`.

        Raises:
            ValueError: If there is no such model, this version of transformers has no depth class for it, it lacks weights,
                or its config does not say what it predicts and `predicts` is `auto`.
        """
        values, _ = load_pretrained(PreTrainedConfig.get_config_dict, model_id, revision)
        kind = values.get("model_type")
        if kind not in MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES:
            raise ValueError(
                f"model={model_id!r}: transformers {transformers.__version__} has no depth model of type {kind!r}, and code "
                "of a model's own is never run. Depth Anything 3 needs a version that has its class; Depth Anything V2, such "
                "as depth-anything/Depth-Anything-V2-Small-hf, works with every version"
            )
        model = load_model(AutoModelForDepthEstimation.from_pretrained, model_id, revision, device)
        found = _predicts(model.config, model_id) if predicts == "auto" else predicts
        processor = load_pretrained(AutoImageProcessor.from_pretrained, model_id, revision)
        source = model_settings(model, model_id, revision, dtype, f"transformers {transformers.__version__}")
        return cls(model, processor, found, dtype, source)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides what is predicted, weights included, as JSON values."""
        return {**self.source, "predicts": self.predicts, "processor": self.processor.to_dict()}

    @torch.inference_mode()
    def nearness(self, photo: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
        """Predict how near each part of a photo is, larger = nearer, in a unit of the photo's own.

        Args:
            photo: `(H, W, 3)` RGB, upright.
            size: Width and height of the map.

        Returns:
            `(h, w)`.

        Raises:
            DepthError: If a prediction is not finite.
        """
        inputs = self.processor(images=Image.fromarray(photo), return_tensors="pt").to(self.model.device)
        with arithmetic(self.model.device, self.dtype):
            depth = self.model(**inputs).predicted_depth
        depth = depth.float()
        if not depth.isfinite().all():
            raise DepthError("not finite", f"{self.source['model']} gives values that are not finite for it")
        if self.predicts == "distance":
            depth = 1 / depth.clamp(min=NEAREST)
        depth = F.interpolate(depth[:, None], size[::-1], mode="bilinear", antialias=True, align_corners=False)
        return depth[0, 0].cpu().numpy()


def grey(nearness: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bring a map `(h, w)` to 8 bits: its 1st percentile becomes 0, its 99th 255, what lies beyond is cut off.

    Relative depth has no unit, so each photo is spread over the whole scale; percentiles, so that a few pixels of a bonnet or
    a lens flare do not press the street together.

    Raises:
        DepthError: If the percentiles are equal: nothing is nearer than anything else.
    """
    low, high = np.percentile(nearness, PERCENTILES)
    if not high > low:
        raise DepthError("flat", f"nothing in it is nearer than anything else (all about {low:.4g})")
    return np.rint(np.clip((nearness - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _predicts(config: PreTrainedConfig, model_id: str) -> str:
    kind = config.to_dict().get("depth_estimation_type")
    if kind not in ("relative", "metric"):
        raise ValueError(
            f"predicts='auto': the config of {model_id!r} ({config.model_type}) does not say what it predicts; give "
            "predicts: nearness (larger = nearer) or predicts: distance"
        )
    return "nearness" if kind == "relative" else "distance"

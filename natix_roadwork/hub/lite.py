"""The short way from a photo's bytes to the probability of roadwork, with a lite student.

In comes a folder of `hub/export.py` and JPEG bytes; out goes a float. Pixels are those of the folder's `ViTImageProcessor`,
to the bit; only the decoding of large photos may be cheaper, by choice.
"""

import io
import warnings
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torchvision.transforms.v2.functional as transforms
from PIL import Image
from torchvision.transforms import InterpolationMode
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel, ViTImageProcessor

from natix_roadwork.model.photo import load_photo


ROADWORK = "Roadwork"
DRAFT_FACTOR = 2  # decoded sides are at least this many times the model's, so that the resampling still averages
_INTERPOLATION = {
    0: InterpolationMode.NEAREST,
    1: InterpolationMode.LANCZOS,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}


class LiteClassifier:
    """A lite student that answers for one photo.

    Args:
        model: The student.
        processor: Its processor.
        draft: Decode JPEGs much larger than the model's input at a half, quarter or eighth of their size, which libjpeg
            does far faster; the probability changes a little (`tests/benchmarks/lite_latency.py` says how much).
        max_megapixels: Largest accepted photo in millions of pixels.

    Raises:
        ValueError: If the model has no label `Roadwork`.
    """

    def __init__(
        self, model: PreTrainedModel, processor: ViTImageProcessor, draft: bool = False, max_megapixels: float = 80.0
    ) -> None:
        """Prepare what does not depend on the photo."""
        labels = {name: int(number) for number, name in model.config.id2label.items()}
        if ROADWORK not in labels:
            raise ValueError(
                f"the model's labels are {list(labels)}, without {ROADWORK!r}; export it by hub/export.py"
            )
        self.model = model.eval()
        self.label = labels[ROADWORK]
        self.size = [int(processor.size["height"]), int(processor.size["width"])]
        self.interpolation = _INTERPOLATION[int(processor.resample)]
        # As the processor does it: mean and deviation on the scale of the pixels, one subtraction and one division.
        scale = 1.0 / processor.rescale_factor
        self.mean, self.std = (
            (torch.tensor(values) * scale).view(3, 1, 1) for values in (processor.image_mean, processor.image_std)
        )
        self.draft = draft
        self.max_megapixels = max_megapixels

    @classmethod
    def from_pretrained(cls, folder: str | Path, draft: bool = False) -> Self:
        """Load a folder of `hub/export.py`, or a Hub id.

        Raises:
            ValueError: As the class.
            OSError: If there is no such model.
        """
        return cls(
            AutoModelForImageClassification.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder), draft
        )

    def __call__(self, photo: bytes) -> float:
        """Return the probability of roadwork, in [0, 1].

        Args:
            photo: Encoded bytes of any size and format that `load_photo` opens.

        Raises:
            ValueError: If the photo cannot be read, or the answer is not finite.
        """
        return self.probability(self.pixels(photo))

    def pixels(self, photo: bytes) -> torch.Tensor:
        """Make the model's input `(1, 3, H, W)` of a photo's bytes."""
        stored = load_photo(self._drafted(photo), self.max_megapixels)
        values = torch.from_numpy(stored if stored.flags.writeable else np.copy(stored)).permute(2, 0, 1)
        if list(values.shape[1:]) != self.size:
            values = transforms.resize(values.contiguous(), self.size, self.interpolation, antialias=True)
        return values.to(torch.float32).sub_(self.mean).div_(self.std)[None]

    @torch.inference_mode()
    def probability(self, pixels: torch.Tensor) -> float:
        """Run the model on `(1, 3, H, W)`."""
        logits = self.model(pixel_values=pixels).logits[0].float()
        value = torch.softmax(logits, dim=-1)[self.label].item()
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"the model answers {value} (logits {logits.tolist()}); its weights are broken")
        return value

    def _drafted(self, photo: bytes) -> bytes | Image.Image:
        """Open a large JPEG so that it is decoded at a part of its size; other photos as they are."""
        if not self.draft:
            return photo
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                picture = Image.open(io.BytesIO(photo), formats=["JPEG"])
        except (OSError, Image.DecompressionBombError):
            return photo  # load_photo opens it, or says what is wrong
        if picture.width * picture.height > self.max_megapixels * 1e6 or picture.mode != "RGB":
            return photo
        return picture if picture.draft("RGB", (DRAFT_FACTOR * self.size[1], DRAFT_FACTOR * self.size[0])) else photo

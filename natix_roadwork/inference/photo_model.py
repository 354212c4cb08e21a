"""A saved model that answers for single photos, whatever they come as: this library's twelve views, or a stock model.

In come photos in any form that `model.photo.load_photo` opens; out go probabilities of roadwork and, from a model with
views, what each of them brought. `photo_answers.py` runs it over files, `demo.py` over uploads.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedConfig

from natix_roadwork.data.evidence_map import photo_evidence
from natix_roadwork.data.natix_columns import LABEL_NAMES
from natix_roadwork.data.predictions import ORIGINAL
from natix_roadwork.inference.member import Member, load_member
from natix_roadwork.inference.predict_rows import model_inputs, run_head
from natix_roadwork.inference.row_evidence import ViewEvidence, view_evidence
from natix_roadwork.inference.tta_transforms import TRANSFORM_NAMES, transform_photo
from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.model.outputs import RoadworkOutput
from natix_roadwork.model.photo import PhotoSource, load_photo


ROADWORK = LABEL_NAMES[1]
BYTES_A_PIXEL, BYTES_BESIDES = 8, 64 * 2**20  # uncompressed 16-bit RGBA; previews, profiles, other metadata
MAX_MEGAPIXELS = 80.0  # of a stock model, whose processor has no bound of its own
EXPLAINED = ("view_indices", "view_weights", "view_logits", "token_weights")
TTA_MODES = {"off": (ORIGINAL,), "mean": tuple(range(len(TRANSFORM_NAMES)))}
"""Test-time transforms by mode: none, or the mean over all sixteen."""


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo as a model reads it.

    Attributes:
        pixels: `(T, V, 3, S, S)` uint8 views, or `(T, 3, H, W)` of a stock model; T transforms, the photo as it is first.
        valid: Views that are not masked, V flags; empty for a stock model.
        size: Width and height of the upright photo in pixels.
    """

    pixels: Tensor
    valid: list[bool]
    size: tuple[int, int]


@dataclass(frozen=True)
class PhotoReading:
    """What a model says of a photo.

    Attributes:
        probability: Of roadwork; the mean over the photo's transforms. NaN where the model gave no finite answer.
        views: What each view brought, of the photo as it is; empty unless asked for, and for a stock model.
        shares: `(h, w)` map of the evidence, summing to 1; None as `views` is empty.
    """

    probability: float
    views: list[ViewEvidence] = field(default_factory=list)
    shares: NDArray[np.float64] | None = None


class PhotoModel(ABC):
    """A model that answers for photos.

    Attributes:
        max_megapixels: Larger photos are refused from their header.
        has_views: Whether it can tell what single views brought.
    """

    max_megapixels: float
    has_views: bool

    @abstractmethod
    def prepare(
        self, photo: PhotoSource, transforms: Sequence[int] = (ORIGINAL,), name: str | None = None
    ) -> PreparedPhoto:
        """Open a photo and make of it what the model reads; safe in several threads.

        Args:
            photo: Anything `load_photo` opens.
            transforms: Numbers of TTA transforms, 0 first.
            name: What to call the photo in an error; a path names itself.

        Raises:
            ValueError: If the photo cannot be read or transformed.
        """

    @abstractmethod
    def answer(self, photos: Sequence[PreparedPhoto], explain: bool = False) -> list[PhotoReading]:
        """Run the model.

        Args:
            photos: At least one, all with the same transforms.
            explain: Whether views and evidence are read too.
        """


class ViewsPhotoModel(PhotoModel):
    """A model of this library, with adapters or without; it answers from the photo alone, without metadata.

    Args:
        member: The model with its processor.
    """

    has_views = True

    def __init__(self, member: Member) -> None:
        """Keep the model, and choose the backbone's number format as `recipes/predict.py` does."""
        self.member, self.processor = member, member.processor
        self.max_megapixels = member.processor.max_megapixels
        on_gpu = member.model.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.precision = torch.bfloat16 if on_gpu else torch.float32

    def prepare(
        self, photo: PhotoSource, transforms: Sequence[int] = (ORIGINAL,), name: str | None = None
    ) -> PreparedPhoto:
        """Cut the views of each transform, as `PhotoModel.prepare` says."""
        _refuse_huge_file(photo, self.max_megapixels)
        # The photo as it is goes the processor's own way, which may decode it at half its size.
        views, valid, size = self.processor.views_mask_and_size(photo, name)
        cut = [views]
        if len(transforms) > 1:
            pixels = load_photo(photo, self.max_megapixels, name)
            cut += [self.processor.render_views(transform_photo(pixels, number)) for number in transforms[1:]]
        # Left as (V, S, S, 3) in memory: the backbone reads channels last.
        return PreparedPhoto(torch.from_numpy(np.stack(cut)).permute(0, 1, 4, 2, 3), valid, size)

    @torch.inference_mode()
    def answer(self, photos: Sequence[PreparedPhoto], explain: bool = False) -> list[PhotoReading]:
        """Run backbone and head on all variants together; with adapters the mean of their answers counts."""
        count = len(photos[0].pixels)
        masks = torch.tensor([photo.valid for photo in photos]).repeat_interleave(count, dim=0)
        batch = {"pixel_values": torch.cat([photo.pixels for photo in photos]), "view_mask": masks}
        inputs = model_inputs(self.member.answers, batch, self.precision)
        outputs = run_head(self.member.answers, inputs)
        probabilities = _photo_probabilities(torch.stack([one.logits for one in outputs]).mean(dim=0), 1, count)
        if not explain:
            return [PhotoReading(probability) for probability in probabilities]
        # A view selector may have masked more views than the photo's shape did.
        valid = inputs["view_mask"][::count].tolist()
        originals = [RoadworkOutput(**{name: one[name][::count] for name in EXPLAINED}) for one in outputs]
        sizes, grid = [photo.size for photo in photos], self.member.model.config.evidence_grid
        by_adapter = zip(*(photo_evidence(self.processor, one, grid, sizes) for one in originals), strict=True)
        maps = [np.mean(of_one_photo, axis=0) for of_one_photo in by_adapter]
        views = [
            mean_views([view_evidence(self.processor, one, number, valid[number], size) for one in originals])
            for number, size in enumerate(sizes)
        ]
        return [PhotoReading(*reading) for reading in zip(probabilities, views, maps, strict=True)]


class StockPhotoModel(PhotoModel):
    """A stock image classifier of transformers, such as a lite model: one view, one of its labels named `Roadwork`.

    Args:
        name: Folder or Hub id of the model with its image processor.
        device: Where it runs.

    Raises:
        ValueError: If it cannot be loaded, or none of its labels is `Roadwork`.
    """

    has_views = False
    max_megapixels = MAX_MEGAPIXELS

    def __init__(self, name: str, device: torch.device) -> None:
        """Load the model and its processor."""
        try:
            self.processor = AutoImageProcessor.from_pretrained(name)
            # No pickle is opened, and no code of the folder runs.
            model = AutoModelForImageClassification.from_pretrained(name, dtype=torch.float32, use_safetensors=True)
            self.model = model.to(device).eval()
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ValueError(_not_loaded(name, error)) from error
        numbers = [number for number, label in self.model.config.id2label.items() if label == ROADWORK]
        if len(numbers) != 1 or self.model.config.num_labels < 2:
            raise ValueError(
                f"model={name!r} has the labels {list(self.model.config.id2label.values())}; a roadwork model has several, "
                f"one of them {ROADWORK!r}"
            )
        self.roadwork = int(numbers[0])

    def prepare(
        self, photo: PhotoSource, transforms: Sequence[int] = (ORIGINAL,), name: str | None = None
    ) -> PreparedPhoto:
        """Make the processor's pixels of each transform, as `PhotoModel.prepare` says."""
        _refuse_huge_file(photo, self.max_megapixels)
        pixels = load_photo(photo, self.max_megapixels, name)
        pictures = [Image.fromarray(transform_photo(pixels, number)) for number in transforms]
        read = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        return PreparedPhoto(read, [], (pixels.shape[1], pixels.shape[0]))

    @torch.inference_mode()
    def answer(self, photos: Sequence[PreparedPhoto], explain: bool = False) -> list[PhotoReading]:
        """Run the model on all variants together; it has no views to explain."""
        count = len(photos[0].pixels)
        pixels = torch.cat([photo.pixels for photo in photos]).to(self.model.device)
        logits = self.model(pixel_values=pixels).logits.float()
        return [PhotoReading(probability) for probability in _photo_probabilities(logits, self.roadwork, count)]


def load_photo_model(name: str, device: str | None = None, adapters: str | None = None) -> PhotoModel:
    """Load a model that answers for photos.

    Args:
        name: Folder or Hub id of a model of this library, or of a stock image classifier with a label `Roadwork`.
        device: Such as `cpu` or `cuda:1`; None = a GPU where there is one.
        adapters: Folder of fold adapters, whose mean answers; only for models of this library.

    Raises:
        ValueError: If there is no such model, device or adapter, or they do not fit.
    """
    place = _device(device)
    try:
        kind = PreTrainedConfig.get_config_dict(name)[0].get("model_type")
    except OSError as error:
        raise ValueError(_not_loaded(name, error)) from error
    if kind == RoadworkConfig.model_type:
        return ViewsPhotoModel(load_member(name, place, adapters))
    if adapters is not None:
        raise ValueError(
            f"adapters={adapters!r}: model={name!r} is of type {kind!r}, which takes none; leave them out"
        )
    return StockPhotoModel(name, place)


def mean_views(answers: Sequence[list[ViewEvidence]]) -> list[ViewEvidence]:
    """Average what several adapters say of the views of one photo; a view that one of them keeps is kept."""
    if len(answers) == 1:
        return answers[0]
    means = []
    for views in zip(*answers, strict=True):
        kept = [view for view in views if view.probability is not None]
        probability = float(np.mean([view.probability for view in kept])) if kept else None
        weight = float(np.mean([view.weight for view in views]))
        first = (kept or views)[0]
        means.append(ViewEvidence(first.name, first.box, first.state, weight, probability))
    return means


def _photo_probabilities(logits: Tensor, roadwork: int, count: int) -> list[float]:
    """Average the variants of each photo: logits `(B * T, classes)` to B probabilities."""
    return logits.double().softmax(-1)[:, roadwork].unflatten(0, (-1, count)).mean(dim=1).tolist()


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return place


def _refuse_huge_file(photo: PhotoSource, max_megapixels: float) -> None:
    """Refuse a file before it is read whole that is longer than any photo of an accepted size."""
    if not isinstance(photo, str | os.PathLike) or not os.path.isfile(photo):
        return
    length, most = os.path.getsize(photo), round(max_megapixels * 1e6 * BYTES_A_PIXEL) + BYTES_BESIDES
    if length > most:
        raise ValueError(
            f"photo {os.fspath(photo)!r} has {length / 1e6:.0f} MB, more than the {most / 1e6:.0f} MB of an uncompressed "
            f"photo of max_megapixels = {max_megapixels:g}"
        )


def _not_loaded(name: str, error: Exception) -> str:
    return (
        f"model={name!r}: no model with its image processor in a folder of that name, and none to be had from the Hub "
        f"({' '.join(str(error).split())[:200]}); give the folder of a saved model, or a Hub id"
    )

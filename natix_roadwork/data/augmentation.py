"""Augmented views of a photo, every draw a function of its address.

In come the rendered `uint8` views of a photo and its address (epoch, position in the epoch's draw); out go the views as
training sees them, still `uint8`. `data/photo_batches.py` and the feature cache call it; evaluation never does.

Nothing depends on what was augmented before, in which process, or beside which other views: the random numbers of a
photo come from (seed, epoch, position), those of one of its views from (seed, epoch, position, view).
"""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import get_worker_info

from natix_roadwork.data.augmentation_effects import photo_effects, view_effects
from natix_roadwork.data.augmentation_presets import VALIDATOR_REGIMES, check_preset, probabilities
from natix_roadwork.data.depth_views import depth_view
from natix_roadwork.data.mask_views import through_picture, view_cover
from natix_roadwork.data.quiet_albumentations import A
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.photo import PhotoSource, load_photo
from natix_roadwork.subnet.challenge import draw_level, validator_geometry, validator_view


# Rises when the same settings and address give other pixels than before.
FORMAT_VERSION = 1
# The pipelines, in order; the number is part of a draw's address.
VIEW_STAGE, PHOTO_STAGE = 0, 1
WHOLE_PHOTO = 0


class ViewAugmentation:
    """Augment the views of photos.

    By default colour, weather, noise and the horizontal flip are drawn once a photo, so that its views agree, and
    rotation, zoom and perspective once a view; with `per_view` everything is drawn once a view. Each view goes on showing
    its own part of the photo: a flip mirrors every view in place and exchanges none, so that views from several draws
    can be combined and the whole photo is still there.

    An object is small to pickle and builds its `A.Compose` when first used. It serves one thread at a time.

    Args:
        preset: A name of `PRESETS` in `data/augmentation_presets.py`.
        seed: Seed of all draws.
        per_view: Whether everything is drawn once a view.

    Raises:
        ValueError: If the preset is unknown or the seed negative.
    """

    def __init__(self, preset: str, *, seed: int = 0, per_view: bool = False) -> None:
        """Check and keep the settings."""
        if seed < 0:
            raise ValueError(f"seed={seed!r} must be 0 or more")
        self.preset = check_preset(preset)
        self.seed = seed
        self.per_view = per_view
        self._built: dict[int, tuple[A.Compose, A.Compose]] = {}

    def __call__(
        self,
        views: NDArray[np.uint8],
        epoch: int,
        position: int,
        mask: NDArray[np.uint8] | None = None,
        view_indices: Sequence[int] | None = None,
    ) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment the views of one photo.

        Args:
            views: `uint8` `(V, S, S, 3)`; not changed.
            epoch: Number of the epoch, from 0.
            position: Place among the draws of the epoch, from 0.
            mask: Cover of the global view, view 0, `uint8` `(S, S, C)` (`data/mask_views.py`); it follows the geometry of
                that view.
            view_indices: Which views of the photo these are; all from 0 on when None.

        Returns:
            `uint8` `(V, S, S, 3)`, and with a mask also the mask.

        Raises:
            ValueError: If views or mask have another type or shape, or the address is negative.
        """
        if self.preset in VALIDATOR_REGIMES:
            raise ValueError(f"preset {self.preset!r} acts on the photo before its views are cut; call views_of")
        indices = list(range(len(views))) if view_indices is None else [int(index) for index in view_indices]
        _check(views, indices, mask)
        changed = views.copy()
        for stage, places, view in self._steps(indices):
            compose = self._composed(views.shape[1])[stage]
            if not compose.transforms:
                continue
            seed_pipeline(compose, self._draw(epoch, position, stage, view))
            sees_mask = mask is not None and 0 in indices[places]
            done = compose(images=changed[places], **({"mask": mask} if sees_mask else {}))
            mask = done["mask"] if sees_mask else mask
        return changed if mask is None else (changed, mask)

    def views_of(
        self, processor: RoadworkImageProcessor, photo: PhotoSource, epoch: int, position: int
    ) -> tuple[NDArray[np.uint8], list[bool]]:
        """Cut the views of one photo and augment them, or cut them from the picture a validator would send.

        Args:
            processor: Cuts the views.
            photo: Anything `load_photo` opens.
            epoch: Number of the epoch, from 0.
            position: Place among the draws of the epoch, from 0.

        Returns:
            `uint8` `(V, S, S, 3)` and which of them are valid.

        Raises:
            ValueError: If the photo cannot be read, or the address is negative.
        """
        if self.preset in VALIDATOR_REGIMES:
            draw = self._draw(epoch, position, PHOTO_STAGE, WHOLE_PHOTO)
            picture = Image.fromarray(load_photo(photo, processor.max_megapixels))
            return processor.views_and_mask(
                validator_view(picture, VALIDATOR_REGIMES[self.preset], draw_level(draw), draw)
            )
        views, valid = processor.views_and_mask(photo)
        return self(views, epoch, position), valid

    def views_and_cover(
        self, processor: RoadworkImageProcessor, photo: PhotoSource, bits: NDArray[np.uint8], epoch: int, position: int
    ) -> tuple[NDArray[np.uint8], list[bool], NDArray[np.uint8]]:
        """Do what `views_of` does, with a mask that follows the photo.

        Args:
            processor: Cuts the views.
            photo: Anything `load_photo` opens.
            bits: `uint8` `(H, W)` mask of the upright photo, one class a bit.
            epoch: Number of the epoch, from 0.
            position: Place among the draws of the epoch, from 0.

        Returns:
            What `views_of` does, and the cover of the global view, `uint8` `(S, S, C)`.

        Raises:
            ValueError: If the photo cannot be read, or the address is negative.
        """
        if self.preset in VALIDATOR_REGIMES:
            sent = through_picture(bits, partial(self._as_sent, epoch=epoch, position=position))
            return *self.views_of(processor, photo, epoch, position), view_cover(processor, sent)
        views, valid = processor.views_and_mask(photo)
        views, cover = self(views, epoch, position, view_cover(processor, bits))
        return views, valid, cover

    def depth_view(
        self,
        processor: RoadworkImageProcessor,
        depth: NDArray[np.uint8],
        size: tuple[int, int],
        epoch: int,
        position: int,
    ) -> NDArray[np.uint8]:
        """Render the depth map of a photo where its global view is: flipped, turned and zoomed alike, in no other way changed.

        Args:
            processor: Cuts the views.
            depth: `uint8` `(h, w)` of the whole upright photo.
            size: Width and height of that photo.
            epoch: Number of the epoch, from 0.
            position: Place among the draws of the epoch, from 0.

        Returns:
            `uint8` `(S, S, 3)`; what lies outside the photo is black, as far away.
        """
        if self.preset in VALIDATOR_REGIMES:
            picture = np.array(Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR).convert("RGB"))
            return depth_view(processor, self._as_sent(picture, epoch, position))
        view = depth_view(processor, depth)
        return self(np.zeros_like(view)[None], epoch, position, view, [0])[1]

    def settings(self) -> dict[str, Any]:
        """Give everything that decides the outcome besides the address, as JSON values."""
        return {
            "format": FORMAT_VERSION,
            "preset": self.preset,
            "probabilities": probabilities(self.preset),
            "seed": self.seed,
            "per_view": self.per_view,
            "packages": {"albumentations": A.__version__, "opencv": cv2.__version__},
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leave the built pipelines out; a worker builds its own."""
        return self.__dict__ | {"_built": {}}

    def _steps(self, indices: list[int]) -> list[tuple[int, slice, int]]:
        """Which pipeline runs over which places of `views`, and the view in the address of its draw."""
        each = [(slice(place, place + 1), view) for place, view in enumerate(indices)]
        photo = each if self.per_view else [(slice(None), WHOLE_PHOTO)]
        return [(VIEW_STAGE, *step) for step in each] + [(PHOTO_STAGE, *step) for step in photo]

    def _composed(self, size: int) -> tuple[A.Compose, A.Compose]:
        if size not in self._built:
            if get_worker_info() is not None:
                cv2.setNumThreads(0)  # workers share the cores; elsewhere the number is the user's
            self._built[size] = A.Compose(view_effects(self.preset)), A.Compose(photo_effects(self.preset, size))
        return self._built[size]

    def _as_sent(self, picture: NDArray[np.uint8], epoch: int, position: int) -> NDArray[np.uint8]:
        """Move a picture as a validator moves the photo of an address."""
        draw = self._draw(epoch, position, PHOTO_STAGE, WHOLE_PHOTO)
        regime = VALIDATOR_REGIMES[self.preset]
        return np.asarray(validator_geometry(Image.fromarray(picture), regime, draw_level(draw), draw))

    def _draw(self, epoch: int, position: int, stage: int, view: int) -> np.random.Generator:
        if epoch < 0 or position < 0:
            raise ValueError(f"epoch={epoch!r} and position={position!r} must be 0 or more")
        # A spawn key, unlike a longer seed, gives (1,) and (1, 0) different numbers.
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, position, stage, view)))


def seed_pipeline(compose: A.Compose, draw: np.random.Generator) -> None:
    """Let a pipeline draw from one generator; albumentations reads two, one of Python's own kind."""
    compose.set_random_state(draw, random.Random(int(draw.integers(2**63))))


def _check(views: NDArray[np.uint8], indices: list[int], mask: NDArray[np.uint8] | None) -> None:
    shape = np.shape(views)
    square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3 and min(shape) > 0
    if not isinstance(views, np.ndarray) or views.dtype != np.uint8 or not square:
        kind = getattr(views, "dtype", type(views).__name__)
        raise ValueError(
            f"views must be a uint8 array (V, S, S, 3), got {kind} {shape}; processor.render_views gives it"
        )
    if len(indices) != len(views) or len(set(indices)) != len(indices) or min(indices) < 0:
        raise ValueError(f"view_indices={indices} must name each of the {len(views)} views once")
    if mask is None:
        return
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.shape[:-1] != shape[1:3]:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise ValueError(
            f"mask must be a uint8 array ({shape[1]}, {shape[2]}, C) like the views, got {kind} {np.shape(mask)}"
        )
    if 0 not in indices:
        raise ValueError(f"view_indices={indices} lacks the global view, 0, which the mask belongs to")

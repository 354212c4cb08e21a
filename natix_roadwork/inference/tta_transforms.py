"""The sixteen TTA transforms: mild variants of one photo, the same for the same photo every time.

In come the pixels of a whole photo and a transform's number; out go pixels of the same size, from which the views are cut
as from any photo. `PhotoTransforms` makes them of rows that `predict.py` reads; `tta.py` puts the answers together.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.augmentation_transforms import (
    BrightnessContrast,
    Flip,
    Saturation,
    hue_matrix,
    move,
    saturation_matrix,
)
from natix_roadwork.data.predictions import ORIGINAL
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.photo import PhotoSource, load_photo


Picture = NDArray[np.uint8]
# Rises when a transform gives other pixels than before.
FORMAT_VERSION = 1
LONGEST_SIDE = 32_766  # OpenCV moves no longer picture
ANGLE = 10.0  # degrees
TILT = 0.06  # how far the corners of a tilted side lie inside the photo, in heights


def rotate_and_zoom(photo: Picture, degrees: float = 0.0, factor: float = 1.0) -> Picture:
    """Turn a photo about its middle, counter-clockwise for a positive angle, and enlarge it.

    What comes in from outside is the photo mirrored at its edge: training mirrors too, while a black wedge is nothing that
    a street photo has, and would itself move the features away from those of training.
    """
    height, width = photo.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, factor)
    return move(photo, matrix, cv2.INTER_LINEAR)


def tilt(photo: Picture, left: bool) -> Picture:
    """See a photo as from one side: its left or right side is stretched; nothing comes in from outside."""
    height, width = photo.shape[:2]
    inset = TILT * height
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
    shrunk = [0, 3] if left else [1, 2]
    source = corners.copy()
    source[shrunk, 1] += (inset, -inset)
    return move(photo, cv2.getPerspectiveTransform(source, corners), cv2.INTER_LINEAR)


def change_levels(photo: Picture, brightness: float = 1.0, contrast: float = 1.0) -> Picture:
    """Scale the levels of a photo, and draw them away from or towards its mean grey."""
    return BrightnessContrast().apply(photo, brightness=brightness, contrast=contrast)


def change_colours(photo: Picture, saturation: float, hue: float) -> Picture:
    """Scale the saturation of a photo and turn its hues by an angle in degrees."""
    return Saturation().apply(photo, matrix=hue_matrix(hue) @ saturation_matrix(saturation))


def blur(photo: Picture, share: float, least: float) -> Picture:
    """Blur by a Gaussian whose deviation is a share of the shorter side: photos of every size look alike in a view."""
    return cv2.GaussianBlur(photo, (0, 0), max(least, share * min(photo.shape[:2])))


_TRANSFORMS: dict[str, Callable[[Picture], Picture]] = {
    "original": lambda photo: photo,
    "flip": lambda photo: Flip().apply(photo),
    "rotate_left": lambda photo: rotate_and_zoom(photo, degrees=ANGLE),
    "rotate_right": lambda photo: rotate_and_zoom(photo, degrees=-ANGLE),
    "scale_down": lambda photo: rotate_and_zoom(photo, factor=0.9),
    "scale_up": lambda photo: rotate_and_zoom(photo, factor=1.1),
    "darker": lambda photo: change_levels(photo, brightness=0.85),
    "brighter": lambda photo: change_levels(photo, brightness=1.15),
    "less_contrast": lambda photo: change_levels(photo, contrast=0.85),
    "more_contrast": lambda photo: change_levels(photo, contrast=1.15),
    "jitter_pale": lambda photo: change_colours(photo, saturation=0.8, hue=-8.0),
    "jitter_vivid": lambda photo: change_colours(photo, saturation=1.2, hue=8.0),
    "blur_slight": lambda photo: blur(photo, share=0.001, least=0.5),
    "blur_strong": lambda photo: blur(photo, share=0.002, least=1.0),
    "perspective_left": lambda photo: tilt(photo, left=True),
    "perspective_right": lambda photo: tilt(photo, left=False),
}
TRANSFORM_NAMES = tuple(_TRANSFORMS)
"""Names by number: the number is `transforms` of a `Predictions`, 0 the photo as it is."""


def transform_photo(photo: Picture, number: int) -> Picture:
    """Make one TTA transform of a photo.

    Args:
        photo: `uint8` `(H, W, 3)`, upright; it is not written to.
        number: 0 to 15, the place in `TRANSFORM_NAMES`.

    Returns:
        `uint8` `(H, W, 3)`, the same pixels for the same photo; for 0 the photo itself.

    Raises:
        ValueError: If there is no such transform, or the photo is no such array or too long.
    """
    if number not in range(len(TRANSFORM_NAMES)):
        raise ValueError(f"number={number!r} is no TTA transform; give 0 to {len(TRANSFORM_NAMES) - 1}")
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise ValueError(f"photo has shape {photo.shape} of {photo.dtype}; give uint8 (H, W, 3), as load_photo does")
    if max(photo.shape) > LONGEST_SIDE:
        raise ValueError(
            f"photo is {photo.shape[1]} x {photo.shape[0]}, longer than the {LONGEST_SIDE} pixels that can be "
            "transformed; downscale it with recipes/prepare_data.py, or leave TTA off"
        )
    return _TRANSFORMS[TRANSFORM_NAMES[number]](photo)


def transform_settings(numbers: tuple[int, ...]) -> dict[str, Any]:
    """Return everything that decides the pixels of some transforms, as JSON values."""
    names = [TRANSFORM_NAMES[number] for number in numbers]
    return {"format": FORMAT_VERSION, "numbers": list(numbers), "names": names, "opencv": cv2.__version__}


class PhotoTransforms:
    """Cuts views from a TTA transform of each photo; the epoch of a row's address is the transform's number."""

    def views_of(
        self, processor: RoadworkImageProcessor, photo: PhotoSource, epoch: int, position: int
    ) -> tuple[NDArray[np.uint8], list[bool]]:
        """Decode a photo, transform the whole of it, and cut its views.

        Args:
            processor: Cuts the views.
            photo: Anything `load_photo` opens.
            epoch: Number of the transform.
            position: Not read: a transform is the same wherever the row stands.

        Returns:
            `uint8` `(V, S, S, 3)` and which of them are valid.

        Raises:
            ValueError: If the photo cannot be read or transformed.
        """
        if epoch == ORIGINAL:
            return processor.views_and_mask(photo)
        return processor.views_and_mask(transform_photo(load_photo(photo, processor.max_megapixels), epoch))

"""TrivialAugment: one effect a picture, of a strength drawn from 31 steps.

After Müller and Hutter, https://arxiv.org/abs/2103.10158. A cone is known by its orange, so what takes colours apart is
left out (posterise, solarise, equalise) and saturation is never taken below half.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.augmentation_transforms import (
    InPlace,
    Picture,
    hue_matrix,
    move,
    move_cover,
    saturation_matrix,
)
from natix_roadwork.data.quiet_albumentations import A


NUM_BINS = 31
# Largest strength: degrees, shares of the side, slopes, deviations of a factor from 1.
GEOMETRY = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.2, "translate_y": 0.2}
COLOUR = {"brightness": 0.6, "contrast": 0.6, "saturation": 0.5, "hue": 15.0, "sharpness": 0.9}
OPERATIONS = ("identity", *GEOMETRY, *COLOUR)


class TrivialAugment(InPlace, A.DualTransform):
    """Apply one of `OPERATIONS`, all equally likely, at one of 31 evenly spaced strengths, in either direction."""

    def __init__(self) -> None:
        """Always apply one; identity is among them."""
        super().__init__(p=1.0)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the operation and its signed strength."""
        operation = OPERATIONS[self.random_generator.integers(len(OPERATIONS))]
        step, sign = self.random_generator.integers(NUM_BINS), self.random_generator.choice((-1.0, 1.0))
        return {
            "operation": operation,
            "strength": sign * step / (NUM_BINS - 1) * (GEOMETRY | COLOUR).get(operation, 0.0),
        }

    def change(self, img: Picture, out: Picture, operation: str, strength: float, **params: Any) -> None:
        """Change the picture."""
        if operation in GEOMETRY:
            out[...] = move(img, _matrix(operation, strength, *img.shape[:2]), cv2.INTER_LINEAR)
        else:
            out[...] = _colour(img, operation, strength)

    def apply_to_mask(self, mask: Picture, operation: str, strength: float, **params: Any) -> Picture:
        """Move the mask with the picture."""
        if operation in GEOMETRY:
            return move_cover(mask, _matrix(operation, strength, *mask.shape[:2]))
        return mask


def _matrix(operation: str, strength: float, height: int, width: int) -> NDArray[np.float64]:
    """The 2 x 3 matrix of an operation about the middle."""
    x, y = (width - 1) / 2, (height - 1) / 2
    if operation == "rotate":
        return cv2.getRotationMatrix2D((x, y), strength, 1.0)
    if operation == "shear_x":
        return np.array([[1, strength, -strength * y], [0, 1, 0]])
    if operation == "shear_y":
        return np.array([[1, 0, 0], [strength, 1, -strength * x]])
    across = operation == "translate_x"
    return np.array([[1, 0, strength * width * across], [0, 1, strength * height * (not across)]], dtype=np.float64)


def _colour(img: Picture, operation: str, strength: float) -> Picture:
    """Brightness scales all levels, contrast their distance from the mean grey, sharpness the detail."""
    factor = 1 + strength
    if operation == "brightness":
        return cv2.convertScaleAbs(img, alpha=factor)
    if operation == "contrast":
        grey = cv2.cvtColor(img, cv2.COLOR_RGB2GRAY).mean()
        return cv2.addWeighted(img, factor, img, 0.0, (1 - factor) * grey)
    if operation == "saturation":
        return cv2.transform(img, saturation_matrix(factor))
    if operation == "hue":
        return cv2.transform(img, hue_matrix(strength))
    if operation == "sharpness":
        return cv2.addWeighted(img, factor, cv2.blur(img, (3, 3)), 1 - factor, 0)
    return img

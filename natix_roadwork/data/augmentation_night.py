"""Low light on views: what a photo of the same place would lack of light.

In and out: `uint8` `(H, W, 3)`. Noise, motion blur and glare of a night photo are those of the other presets, stronger.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.augmentation_transforms import RGB_TO_YIQ, InPlace
from natix_roadwork.data.quiet_albumentations import A


Picture = NDArray[np.uint8]
EVERY = 4  # of both axes, pixels from which the mean grey level is taken


class LowLight(InPlace, A.ImageOnlyTransform):
    """Gamma, exposure and a colour cast that bring a photo down to a drawn mean grey level, by one table a channel.

    A level `v` becomes `255 * gain * cast * (v / 255) ** gamma`; gamma deepens the shadows more than the lights, the gain
    is what is left to reach the wanted mean. A photo that is darker already is not made darker, so that none turns black.

    Args:
        mean: Smallest and largest wanted mean grey level, 0 to 255, of all views of a photo together.
        gamma: Smallest and largest exponent.
        cast: Largest deviation of a channel's gain from that of green: red up and blue down, or the other way.
        p: Probability.
    """

    def __init__(
        self,
        mean: tuple[float, float] = (20.0, 70.0),
        gamma: tuple[float, float] = (1.0, 1.8),
        cast: float = 0.15,
        p: float = 0.5,
    ) -> None:
        """Keep the settings."""
        super().__init__(p=p)
        self.mean, self.gamma, self.cast = mean, gamma, cast

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw level, gamma and cast; the table of all views of the photo."""
        wanted, gamma = self.py_random.uniform(*self.mean), self.py_random.uniform(*self.gamma)
        turn = self.py_random.uniform(-self.cast, self.cast)
        pictures = data["images"] if "images" in data else data["image"][None]
        return {"table": low_light_table(pictures, wanted, gamma, turn)}

    def change(self, img: Picture, out: Picture, table: Picture, **params: Any) -> None:
        """Look each level up."""
        cv2.LUT(img, table, dst=out)


def low_light_table(pictures: Picture, wanted: float, gamma: float, turn: float) -> Picture:
    """Make the table of `LowLight` for some pictures.

    Args:
        pictures: `(N, H, W, 3)`.
        wanted: Mean grey level that they shall have; where they are darker already, only their colours are turned.
        gamma: Exponent.
        turn: Added to the gain of red and taken from that of blue.

    Returns:
        `(1, 256, 3)` new levels.
    """
    grey = pictures[:, ::EVERY, ::EVERY] @ RGB_TO_YIQ[0] / 255
    if 255 * grey.mean() <= wanted:
        gamma, gain = 1.0, 1.0
    else:
        # A photo that gamma alone has made darker than wanted keeps that: light is never added.
        gain = min(1.0, wanted / 255 / max(float((grey**gamma).mean()), 1e-6))
    gains = gain * np.array([1 + turn, 1.0, 1 - turn])
    levels = 255 * gains * (np.arange(256)[:, None] / 255) ** gamma
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[None]

"""Geometry, colour and noise on views, faster than the albumentations transforms of the same parameters.

In and out: `uint8` `(H, W, 3)`, and for geometry a mask `(H, W)` that follows to the pixel.
"""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.quiet_albumentations import A


Picture = NDArray[np.uint8]
# Y = .299 R + .587 G + .114 B and two colour axes; a hue is an angle in the plane of the latter.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)
BANK_MARGIN = 64
BANK_SEED = 0
BANK_DEVIATION = 32.0  # of the noise kept as 8 bits around 128: values reach four deviations


class InPlace:
    """Mix-in before an albumentations class: it writes into given memory, and overwrites `images`.

    New memory for each result costs as much as most effects. A class defines `change`; `apply` and `apply_to_images`
    follow. Scratch memory belongs to the object, so an object serves one thread at a time.
    """

    def change(self, img: Picture, out: Picture, **params: Any) -> None:
        """Write the changed picture into `out`, which may be `img` itself."""
        raise NotImplementedError

    def apply(self, img: Picture, *args: Any, **params: Any) -> Picture:
        """Return the changed picture."""
        out = np.empty_like(img)
        self.change(img, out, **params)
        return out

    def apply_to_images(self, images: NDArray[np.uint8], *args: Any, **params: Any) -> NDArray[np.uint8]:
        """Apply the same parameters to each of `images` `(N, H, W, 3)`, which are overwritten."""
        for image in images:
            self.change(image, image, **params)
        return images

    def scratch(self, name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> NDArray:
        """Memory of the object for one use, kept as long as the shape is the same; its content is what was left."""
        kept: dict[str, NDArray] = self.__dict__.setdefault("_scratch", {})
        if name not in kept or kept[name].shape != shape:
            kept[name] = np.empty(shape, dtype)
        return kept[name]


class BrightnessContrast(InPlace, A.ImageOnlyTransform):
    """Levels scaled, and drawn away from or towards the mean grey of the view.

    `brightness * (contrast * v + (1 - contrast) * mean)`, as `A.ColorJitter` does it in two steps. Unlike an offset it
    turns no dark photo black.

    Args:
        limit: Largest deviation of either factor from 1.
        p: Probability.
    """

    def __init__(self, limit: float = 0.3, p: float = 0.5) -> None:
        """Keep the settings."""
        super().__init__(p=p)
        self.limit = limit

    def get_params(self) -> dict[str, Any]:
        """Draw both factors."""
        brightness, contrast = (1 + self.py_random.uniform(-self.limit, self.limit) for _ in range(2))
        return {"brightness": brightness, "contrast": contrast}

    def change(self, img: Picture, out: Picture, brightness: float, contrast: float, **params: Any) -> None:
        """Scale each level."""
        mean = float(RGB_TO_YIQ[0] @ cv2.mean(img)[:3])
        cv2.addWeighted(img, brightness * contrast, img, 0.0, brightness * (1 - contrast) * mean, dst=out)


class MotionBlur(InPlace, A.MotionBlur):
    """`A.MotionBlur`."""

    def change(self, img: Picture, out: Picture, **params: Any) -> None:
        """Blur along a line."""
        out[...] = A.MotionBlur.apply(self, img, **params)


class GaussianBlur(InPlace, A.GaussianBlur):
    """`A.GaussianBlur`."""

    def change(self, img: Picture, out: Picture, **params: Any) -> None:
        """Blur."""
        out[...] = A.GaussianBlur.apply(self, img, **params)


class Flip(InPlace, A.HorizontalFlip):
    """`A.HorizontalFlip`; each of `images` is mirrored in its place."""

    def change(self, img: Picture, out: Picture, **params: Any) -> None:
        """Mirror."""
        cv2.flip(img, 1, dst=out)

    def apply_to_mask(self, mask: Picture, *args: Any, **params: Any) -> Picture:
        """Mirror the mask with the picture."""
        return cv2.flip(mask, 1)


class Warp(InPlace, A.DualTransform):
    """Rotation, zoom and perspective as one homography, so that a picture is resampled once.

    Each has a probability of its own. Rotation and zoom are about the middle; the corners of the perspective are drawn
    as `A.Perspective` draws them. What comes in from outside is the picture mirrored at its edge, in the mask too.

    Args:
        rotate: Largest angle in degrees, both ways.
        rotate_p: Probability of a rotation.
        zoom: Smallest and largest factor.
        zoom_p: Probability of a zoom.
        perspective: Smallest and largest deviation of a corner, in sides of the picture.
        perspective_p: Probability of a perspective.
    """

    def __init__(
        self,
        rotate: float = 15.0,
        rotate_p: float = 0.0,
        zoom: tuple[float, float] = (0.7, 1.3),
        zoom_p: float = 0.0,
        perspective: tuple[float, float] = (0.05, 0.1),
        perspective_p: float = 0.0,
    ) -> None:
        """Keep the settings."""
        super().__init__(p=1.0)
        self.rotate, self.rotate_p = rotate, rotate_p
        self.zoom, self.zoom_p = zoom, zoom_p
        self.perspective, self.perspective_p = perspective, perspective_p

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw which of the three happen, and the matrix of all; None when none does."""
        height, width = params["shape"][:2]
        draw, matrix = self.random_generator, None
        happen = draw.random(3) < (self.rotate_p, self.zoom_p, self.perspective_p)
        if happen[:2].any():
            angle = draw.uniform(-self.rotate, self.rotate) if happen[0] else 0.0
            factor = draw.uniform(*self.zoom) if happen[1] else 1.0
            matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, factor)
        if happen[2]:
            corners = _inner_corners(height, width, draw.uniform(*self.perspective), draw)
            tilted = cv2.getPerspectiveTransform(corners, _corners(height, width))
            matrix = tilted if matrix is None else tilted @ np.vstack((matrix, (0.0, 0.0, 1.0)))
        return {"matrix": matrix}

    def change(self, img: Picture, out: Picture, matrix: NDArray[np.float64] | None, **params: Any) -> None:
        """Resample bilinearly."""
        if matrix is None:
            np.copyto(out, img)
            return
        # OpenCV moves four channels faster than three.
        shape = (*img.shape[:2], 4)
        padded = cv2.cvtColor(img, cv2.COLOR_RGB2RGBA, dst=self.scratch("before", shape))
        moved = move(padded, matrix, cv2.INTER_LINEAR, self.scratch("after", shape))
        cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB, dst=out)

    def apply_to_mask(self, mask: Picture, matrix: NDArray[np.float64] | None, **params: Any) -> Picture:
        """Resample the mask as the picture."""
        return mask if matrix is None else move_cover(mask, matrix)


def move_cover(cover: Picture, matrix: NDArray[np.float64]) -> Picture:
    """Move the cover of a view `(H, W, C)` as its picture is moved, four channels at a time."""
    moved = np.zeros_like(cover)
    for start in range(0, cover.shape[2], 4):
        part = np.ascontiguousarray(cover[..., start : start + 4])
        if part.any():
            moved[..., start : start + 4] = move(part, matrix, cv2.INTER_LINEAR).reshape(part.shape)
    return moved


def move(picture: Picture, matrix: NDArray[np.float64], interpolation: int, out: Picture | None = None) -> Picture:
    """Move a picture by a 2 x 3 or 3 x 3 matrix from its pixels to those of the result, of the same size."""
    by = cv2.warpAffine if len(matrix) == 2 else cv2.warpPerspective
    return by(picture, matrix, picture.shape[1::-1], dst=out, flags=interpolation, borderMode=cv2.BORDER_REFLECT_101)


def _corners(height: int, width: int) -> NDArray[np.float32]:
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)


def _inner_corners(height: int, width: int, deviation: float, draw: np.random.Generator) -> NDArray[np.float32]:
    """Each corner moved inwards by the absolute value of a normal deviate, at most .32 of the side."""
    corners = _corners(1, 1)
    inwards = np.abs(draw.normal(0.0, deviation, (4, 2))) % 0.32
    return ((corners + (1 - 2 * corners) * inwards) * (width, height)).astype(np.float32)


class Saturation(InPlace, A.ImageOnlyTransform):
    """Colours further from or nearer to their grey, `factor * v + (1 - factor) * grey`, as `A.ColorJitter` does it.

    Args:
        limit: Largest deviation of the factor from 1.
        p: Probability.
    """

    def __init__(self, limit: float = 0.2, p: float = 0.5) -> None:
        """Keep the settings."""
        super().__init__(p=p)
        self.limit = limit

    def get_params(self) -> dict[str, Any]:
        """Draw the matrix."""
        return {"matrix": saturation_matrix(1 + self.py_random.uniform(-self.limit, self.limit))}

    def change(self, img: Picture, out: Picture, matrix: NDArray[np.float64], **params: Any) -> None:
        """Multiply each pixel with the matrix."""
        cv2.transform(img, matrix, dst=out)


class Hue(InPlace, A.ImageOnlyTransform):
    """Colours turned around the grey axis, at their luminance.

    A linear map, six times faster than over HSV. Unlike there a colour keeps its luminance in place of its HSV value.

    Args:
        limit: Largest angle in degrees, both ways.
        p: Probability.
    """

    def __init__(self, limit: float = 15.0, p: float = 0.5) -> None:
        """Keep the settings."""
        super().__init__(p=p)
        self.limit = limit

    def get_params(self) -> dict[str, Any]:
        """Draw the matrix."""
        return {"matrix": hue_matrix(self.py_random.uniform(-self.limit, self.limit))}

    def change(self, img: Picture, out: Picture, matrix: NDArray[np.float64], **params: Any) -> None:
        """Multiply each pixel with the matrix."""
        cv2.transform(img, matrix, dst=out)


def saturation_matrix(factor: float) -> NDArray[np.float64]:
    """RGB to RGB `(3, 3)`: 0 gives greys, 1 changes nothing."""
    return factor * np.eye(3) + (1 - factor) * np.tile(RGB_TO_YIQ[0], (3, 1))


def hue_matrix(degrees: float) -> NDArray[np.float64]:
    """RGB to RGB `(3, 3)`: a rotation of the colour plane; red turns towards yellow for a positive angle."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    return YIQ_TO_RGB @ turn @ RGB_TO_YIQ


class Noise(InPlace, A.ImageOnlyTransform):
    """Normal noise, independent in pixels and channels, cut at a random place out of a sheet drawn once a process.

    Args:
        deviation: Smallest and largest standard deviation in grey levels.
        p: Probability.
    """

    def __init__(self, deviation: tuple[float, float] = (5.0, 10.0), p: float = 0.5) -> None:
        """Keep the settings."""
        super().__init__(p=p)
        self.deviation = deviation

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the strength and the place in the sheet."""
        height, width = params["shape"][:2]
        top, left = self.random_generator.integers(BANK_MARGIN, size=2)
        piece = _noise_sheet(height, width)[top : top + height, left : left + width]
        return {"piece": piece, "strength": self.py_random.uniform(*self.deviation) / BANK_DEVIATION}

    def change(self, img: Picture, out: Picture, piece: Picture, strength: float, **params: Any) -> None:
        """Add the noise."""
        cv2.addWeighted(img, 1.0, piece, strength, -128 * strength, dst=out)


@lru_cache(maxsize=2)
def _noise_sheet(height: int, width: int) -> Picture:
    """Noise around 128, larger than a picture by the margin; the same in every process."""
    shape = height + BANK_MARGIN, width + BANK_MARGIN, 3
    noise = np.random.default_rng(BANK_SEED).standard_normal(shape, dtype=np.float32)
    return np.clip(np.rint(128 + BANK_DEVIATION * noise), 0, 255).astype(np.uint8)

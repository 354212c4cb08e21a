"""Rows with photos and a stand-in for the augmentation, for the tests of the feature cache and of live training."""

import io

import numpy as np
from datasets import Dataset, Features, Image, Value
from numpy.typing import NDArray
from PIL import Image as PILImage

from natix_roadwork import RoadworkImageProcessor
from natix_roadwork.model.photo import PhotoSource


def encoded_photo(seed: int) -> bytes:
    """A PNG of 120 x 90 pixels of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def photo_rows(num_rows: int) -> Dataset:
    """Rows whose photos lie in the table; labels alternate."""
    columns = {
        "row_id": [f"row:{row}" for row in range(num_rows)],
        "image": [{"bytes": encoded_photo(row), "path": None} for row in range(num_rows)],
        "label": [row % 2 for row in range(num_rows)],
        "group": [f"group:{row}" for row in range(num_rows)],
    }
    kinds = {
        "row_id": Value("string"),
        "image": Image(decode=False),
        "label": Value("int64"),
        "group": Value("string"),
    }
    return Dataset.from_dict(columns, features=Features(kinds))


class AddressedNoise:
    """Adds to each view a level drawn from (seed, epoch, position, view)."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, views: NDArray[np.uint8], epoch: int, position: int) -> NDArray[np.uint8]:
        levels = np.random.default_rng([self.seed, epoch, position]).integers(1, 256, (len(views), 1, 1, 1))
        return (views + levels).astype(np.uint8)

    def views_of(
        self, processor: RoadworkImageProcessor, photo: PhotoSource, epoch: int, position: int
    ) -> tuple[NDArray[np.uint8], list[bool]]:
        views, valid = processor.views_and_mask(photo)
        return self(views, epoch, position), valid

    def settings(self) -> dict[str, object]:
        return {"name": "addressed noise", "seed": self.seed}

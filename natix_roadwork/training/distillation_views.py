"""Rows as a student sees them: one 224-pixel view of what a validator would send of each photo.

In come rows whose photos are still encoded; out go batches of `pixel_values`, labels and the teacher's values.
`distillation_training.py` trains on them.
"""

import copy
import zlib
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import ViTImageProcessor

from natix_roadwork.data.draws import DrawRows, Indices, address
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.model.photo import load_photo
from natix_roadwork.subnet.challenge import REGIMES, draw_level, validator_view
from natix_roadwork.training.distillation_teacher import TeacherValues


TRAIN_DRAW, FIXED_DRAW = 0, 1  # first part of a draw's address


class StudentRows(DrawRows):
    """Rows read as validator views, each drawn by its address.

    A draw of the training gets regime and level from (seed, epoch, position). A bare row number gets the fixed view of its
    row: a function of the seed and the row id, the same in every split and for every student.

    Args:
        rows: Rows of `data.dataset.load_rows`.
        processor: Squashes a picture to the student's input.
        regime_shares: Share of each regime among the views.
        seed: Seed of all draws.
        max_megapixels: Largest accepted photo in millions of pixels.
        teacher: Values of these rows for the batches of the training; None = none.
    """

    def __init__(
        self,
        rows: Dataset,
        processor: ViTImageProcessor,
        regime_shares: Mapping[str, float],
        seed: int,
        max_megapixels: float = 80.0,
        teacher: TeacherValues | None = None,
    ) -> None:
        """Keep what every worker needs a copy of."""
        self.rows = rows.select_columns(["row_id", "image", "label", "group", "split"])
        self.processor = processor
        self.shares = np.array([regime_shares.get(regime, 0.0) for regime in REGIMES])
        self.seed = seed
        self.max_megapixels = max_megapixels
        self.teacher = teacher
        self.regime: str | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def labels(self) -> NDArray[np.int64]:
        """`(N,)` 0 None, 1 Roadwork."""
        return np.asarray(self.rows["label"][:], dtype=np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """`(N,)` group names."""
        return np.asarray(self.rows["group"][:], dtype=np.str_)

    @property
    def regimes(self) -> list[str]:
        """Regimes that the views are drawn from."""
        return [regime for regime, share in zip(REGIMES, self.shares, strict=True) if share > 0]

    def select(self, rows: NDArray[np.int64]) -> Self:
        """Return some of these rows, in the order given."""
        chosen = copy.copy(self)
        chosen.rows = self.rows.select(rows)
        chosen.teacher = None if self.teacher is None else self.teacher.select(rows)
        return chosen

    def without_teacher(self) -> Self:
        """Return these rows with their labels alone."""
        plain = copy.copy(self)
        plain.teacher = None
        return plain

    def in_regime(self, regime: str) -> Self:
        """Return these rows as all sent in one regime."""
        fixed = copy.copy(self)
        fixed.regime = regime
        return fixed

    def read(self, draws: Indices) -> dict[str, Tensor]:
        """Return `pixel_values` `(B, 3, 224, 224)`, `labels` `(B,)`, and the teacher's values where there are some."""
        numbers, epochs, positions = address(draws)
        found = self.rows[numbers.tolist()]
        if epochs is None or positions is None:
            keys = [(FIXED_DRAW, zlib.crc32(row_id.encode())) for row_id in found["row_id"]]
        else:
            keys = [(TRAIN_DRAW, *place) for place in zip(epochs.tolist(), positions.tolist(), strict=True)]
        views = [self._view(*one) for one in zip(found["row_id"], found["image"], keys, strict=True)]
        pixels = self.processor(images=views, return_tensors="pt")["pixel_values"]
        batch = {"pixel_values": pixels, "labels": torch.tensor(found["label"], dtype=torch.long)}
        return batch | ({} if self.teacher is None else self.teacher.batch(numbers))

    def _view(self, row_id: str, image: Mapping[str, bytes | str | None], key: Sequence[int]) -> Image.Image:
        draw = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=tuple(key)))
        regime, level = str(draw.choice(REGIMES, p=self.shares)), draw_level(draw)
        try:
            photo = Image.fromarray(load_photo(photo_source(image), self.max_megapixels))
        except ValueError as error:
            raise ValueError(
                f"row {row_id!r}: the photo cannot be decoded ({error}); --verify_images true finds and drops such photos "
                "beforehand"
            ) from error
        return validator_view(photo, self.regime or regime, level, draw)

"""Which errors are a photo's failure, after which the others go on, and which end the run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from natix_roadwork.data.masks import mask_path
from natix_roadwork.labeling import pseudo_masks
from natix_roadwork.labeling.mask_provider import PhotoObjects
from natix_roadwork.labeling.pseudo_masks import mark_photos
from tests.marked_photos import settings_of


BROKEN = "train/5.png"


class Breaking:
    """A provider that finds nothing, and raises an error at one photo."""

    name, classes = "breaking", ("cone",)

    def __init__(self, error: Exception) -> None:
        self.error, self.seen = error, []

    def settings(self) -> dict[str, Any]:
        return {}

    def find(self, row: dict[str, Any], photo: np.ndarray) -> PhotoObjects:
        self.seen.append(row["row_id"])
        if row["row_id"] == BROKEN:
            raise self.error
        return PhotoObjects([])


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], Breaking]:
    def chosen(error: Exception) -> Breaking:
        provider = Breaking(error)
        monkeypatch.setattr(pseudo_masks, "load_provider", lambda *_: provider)
        return provider

    return chosen


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (torch.OutOfMemoryError("CUDA:\nTried 9 GiB"), "OutOfMemoryError", "OutOfMemoryError: CUDA: Tried 9 GiB"),
        (RuntimeError("no space for a tensor"), "RuntimeError", "RuntimeError: no space for a tensor"),
        (MemoryError(), "MemoryError", "MemoryError:"),
        (cv2.error("resize failed"), "cv2.error", "cv2.error: resize failed"),
    ],
)
def test_a_photo_that_breaks_the_provider_is_a_failure(
    tmp_path: Path, use: Callable[[Exception], Breaking], error: Exception, reason: str, message: str
) -> None:
    use(error)
    settings = settings_of(tmp_path)
    result = mark_photos(settings)
    assert result.details["failures"] == {reason: 1} and result.details["photos_written"] == 11
    (line,) = (Path(settings.output_dir) / "failures.jsonl").read_text().splitlines()
    told = {"row_id": BROKEN, "split": "train", "reason": reason, "message": f"row {BROKEN!r}: {message}"}
    assert json.loads(line) == told
    assert not mask_path(settings.output_dir, BROKEN).exists()


@pytest.mark.parametrize("error", [TypeError, KeyError, NotImplementedError, RecursionError])
def test_a_mistake_of_the_provider_ends_the_run(
    tmp_path: Path, use: Callable[[Exception], Breaking], error: type[Exception]
) -> None:
    provider = use(error("wrong"))
    with pytest.raises(error, match="wrong"):
        mark_photos(settings_of(tmp_path))
    assert provider.seen[-1] == BROKEN

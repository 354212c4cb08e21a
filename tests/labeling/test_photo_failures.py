"""What a photo that cannot be marked does to a run, and what a mistake of ours does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from natix_roadwork.labeling.mask_provider import PhotoObjects
from natix_roadwork.labeling.pseudo_masks import mark_photos
from tests.labeling.test_pseudo_masks import failures_in, use
from tests.marked_photos import settings_of


def test_a_photo_too_large_for_the_device_is_counted_and_a_bug_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, settings = use(monkeypatch), settings_of(tmp_path)
    find = provider.find

    def too_large(row: dict[str, Any], photo: np.ndarray) -> PhotoObjects:
        if row["row_id"] == "train/3.png":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return find(row, photo)

    monkeypatch.setattr(provider, "find", too_large)
    mark_photos(settings)
    assert {one["row_id"]: one["reason"] for one in failures_in(settings.output_dir)} == {
        "train/2.png": "not marked",
        "train/3.png": "OutOfMemoryError",
    }
    monkeypatch.setattr(provider, "find", lambda row, photo: len(None))
    with pytest.raises(TypeError):
        mark_photos(settings)

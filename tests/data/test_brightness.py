import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from natix_roadwork.data import brightness as module
from natix_roadwork.data.brightness import brightness_of, mean_grey
from natix_roadwork.data.dataset import load_rows
from tests.recipe_photos import write_photos


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_brightness_is_the_mean_grey_level(kind: str, tmp_path: Path) -> None:
    photo = Image.new("RGB", (1600, 900), (200, 200, 200))
    photo.paste((0, 0, 0), (0, 0, 800, 900))
    buffer = io.BytesIO()
    photo.save(buffer, kind)
    (tmp_path / "photo").write_bytes(buffer.getvalue())
    assert mean_grey(buffer.getvalue()) == pytest.approx(100, abs=1)
    assert mean_grey(str(tmp_path / "photo")) == mean_grey(buffer.getvalue())


def test_rows_are_measured_in_their_order(tmp_path: Path) -> None:
    rows = load_rows(str(write_photos(tmp_path)), near_duplicates=False).splits["train"]
    levels = brightness_of(rows, progress=False)
    assert np.array_equal(levels > 120, np.array(rows["label"][:]) == 1)
    assert np.array_equal(brightness_of(rows.select([3, 0]), progress=False), levels[[3, 0]])
    assert np.array_equal(brightness_of(rows), levels)


def test_a_photo_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load_rows(str(write_photos(tmp_path)), near_duplicates=False).splits["dev"]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.enable_caching()
    try:
        levels = brightness_of(rows)
        monkeypatch.setattr(module, "mean_grey", lambda source: -1.0)
        assert np.array_equal(brightness_of(rows), levels) and levels.min() >= 0
    finally:
        datasets.disable_caching()


def test_a_damaged_photo_names_its_row() -> None:
    damaged = Dataset.from_dict({"row_id": ["dev/a.jpg"], "image": [{"bytes": b"no photo", "path": None}]})
    with pytest.raises(ValueError, match=r"row 'dev/a.jpg': the photo cannot be decoded.*--verify_images"):
        brightness_of(damaged, progress=False)


def test_progress_bars_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []
    monkeypatch.setattr(module, "are_progress_bars_disabled", lambda: False)
    monkeypatch.setattr(module, "disable_progress_bars", lambda: bars.append("off"))
    monkeypatch.setattr(module, "enable_progress_bars", lambda: bars.append("on"))
    with module._bars(shown=True):
        assert bars == []
    with module._bars(shown=False):
        assert bars == ["off"]
    assert bars == ["off", "on"]

"""An imagefolder with metadata and the predictions of a made-up member, for the tests and the benchmark of the report."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork.data.predictions import Predictions


CITIES = {"Pittsburgh": (40.44, -80.0), "Denver": (39.74, -104.99), "Seattle": (47.61, -122.33)}
WEATHER = ("Sunny", "Cloudy", "Rainy", "Snowy")


def report_folder(folder: Path, num_rows: int, photos: Sequence[Path] = (), seed: int = 0) -> Path:
    """A dev split of `num_rows`: links to the photos in turn, or small ones drawn here, every fourth of them dark."""
    draw = np.random.default_rng(seed)
    (folder / "dev").mkdir(parents=True)
    lines = []
    for row in range(num_rows):
        name = f"{row:05d}.jpg"
        if photos:
            os.symlink(photos[row % len(photos)], folder / "dev" / name)
        else:
            low = 10 if row % 4 == 0 else 110
            pixels = draw.integers(low, low + 40, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((120, 90)).save(folder / "dev" / name, quality=90)
        city = list(CITIES)[row % 3]
        latitude, longitude = np.array(CITIES[city]) + draw.normal(0, 0.2, 2)
        values = {"gps": f"[{latitude}, {longitude}]", "city": city, "weather": WEATHER[row // 2 % 4]}
        values |= {"daytime": "Dark" if row % 4 == 0 else "Light", "scene": "Urban", "label": int(draw.random() < 0.6)}
        lines.append(json.dumps({"file_name": name, **values}))
    (folder / "dev" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def member_of(rows: Dataset, wrong_where: NDArray[np.bool_] | None = None, seed: int = 0) -> Predictions:
    """A member that is mostly right, but guesses where it is told to."""
    draw = np.random.default_rng(seed)
    labels = np.asarray(rows["label"][:])
    margins = draw.normal(0, 1.2, len(labels)) + 3.0 * (2 * labels - 1)
    if wrong_where is not None:
        margins[wrong_where] = draw.normal(0, 2.0, int(wrong_where.sum()))
    return Predictions(
        member="made up",
        row_ids=np.array(rows["row_id"][:]),
        labels=labels,
        groups=np.array(rows["group"][:]),
        splits=np.array(rows["split"][:]),
        logits=np.stack([-margins / 2, margins / 2], axis=1).astype(np.float32),
        embeddings=np.zeros((len(labels), 0), np.float32),
        folds=np.full(len(labels), -1),
        transforms=np.zeros(len(labels), dtype=np.int64),
        record={"learned_from": ["train"]},
    )

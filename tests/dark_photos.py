"""Photos of which every third is dark, for the tests of training by brightness."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


ROWS = {"train": 60, "dev": 12, "test": 6}
DARK_SHARE = 1 / 3


def write_dark_photos(folder: Path, num_rows: dict[str, int] | None = None) -> Path:
    """An imagefolder of both classes alike in both kinds of light, whose daytime tag says the opposite of the pixels.

    A row with roadwork has an orange square.
    """
    draw = np.random.default_rng(0)
    for split, count in (num_rows or ROWS).items():
        (folder / split).mkdir(parents=True)
        lines = []
        for row in range(count):
            dark, label = row % 3 == 0, row % 2
            low = 10 if dark else 120
            blocks = draw.integers(low, low + 50, (6, 8, 3), dtype=np.uint8)  # noise would be one near-duplicate
            pixels = np.kron(blocks, np.ones((16, 16, 1), np.uint8))
            if label:
                pixels[40:50, 50:60] = (255, 120, 0)
            Image.fromarray(pixels).save(folder / split / f"{row}.png")
            daytime = "Light" if dark else "Dark"
            lines.append(json.dumps({"file_name": f"{row}.png", "label": label, "daytime": daytime}))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder

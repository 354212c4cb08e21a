"""Photos of which every third is dark, for the tests of training by brightness."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


ROWS = {"train": 30, "dev": 12, "test": 6}
DARK_SHARE = 1 / 3


def write_dark_photos(folder: Path) -> Path:
    """An imagefolder of both classes alike in both kinds of light, whose daytime tag says the opposite of the pixels.

    A row with roadwork has an orange square.
    """
    draw = np.random.default_rng(0)
    for split, count in ROWS.items():
        (folder / split).mkdir(parents=True)
        lines = []
        for row in range(count):
            dark, label = row % 3 == 0, row % 2
            low = 10 if dark else 120
            pixels = draw.integers(low, low + 50, (96, 128, 3), dtype=np.uint8)
            if label:
                pixels[40:60, 50:70] = (255, 120, 0)
            Image.fromarray(pixels).save(folder / split / f"{row}.png")
            daytime = "Light" if dark else "Dark"
            lines.append(json.dumps({"file_name": f"{row}.png", "label": label, "daytime": daytime}))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder

"""Photos with metadata for whole runs of a recipe at tiny size."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, num_rows: dict[str, int] | None = None) -> Path:
    """An imagefolder with its own dev and test, whose label is the brightness of the photo."""
    draw = np.random.default_rng(0)
    for split, count in (num_rows or {"train": 16, "dev": 8, "test": 8}).items():
        (folder / split).mkdir(parents=True)
        lines = []
        for row in range(count):
            low = 140 if row % 2 else 0
            pixels = draw.integers(low, low + 100, (96, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{row}.png")
            gps = f"[{40.44 + draw.normal(0, 0.1)}, {-80.0 + draw.normal(0, 0.1)}]"
            values = {"gps": gps, "weather": ["Sunny", "Rainy"][row // 2 % 2], "daytime": "Light", "scene": "Urban"}
            values["text"] = "Two lanes." if row % 4 < 2 else ""
            lines.append(json.dumps({"file_name": f"{row}.png", "label": row % 2, **values}))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder

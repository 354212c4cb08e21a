"""Photos with masks, and COCO files that say the same, for the tests of labeling."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments


SIZE = (64, 48)
CATEGORIES = ("Cone", "Barricade", "Temporary Traffic Control Sign", "Worker", "Work Vehicle", "Work Equipment")


def boxes_of(row: int) -> list[tuple[int, int, int, int, int]]:
    """Class, left, top, right and bottom of the objects of a row; even rows have none."""
    return [(row % 6, 4 + row, 5, 24 + row, 25), ((row + 1) % 6, 10, 20, 50, 40)] if row % 2 else []


def mask_of(row: int) -> np.ndarray:
    bits = np.zeros(SIZE[::-1], np.uint8)
    for kind, left, top, right, bottom in boxes_of(row):
        bits[top:bottom, left:right] |= 1 << kind
    return bits


def write_marked_photos(folder: Path, num_rows: dict[str, int] | None = None) -> Path:
    """An imagefolder whose rows name their masks; label 1 has two objects."""
    draw = np.random.default_rng(0)
    for split, count in (num_rows or {"train": 8, "dev": 4}).items():
        (folder / split / "masks").mkdir(parents=True)
        lines = []
        for row in range(count):
            Image.fromarray(draw.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)).save(
                folder / split / f"{row}.png"
            )
            Image.fromarray(mask_of(row)).save(folder / split / "masks" / f"{row}.png")
            values = {"file_name": f"{row}.png", "label": row % 2, "mask": f"masks/{row}.png"}
            lines.append(json.dumps(values))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def settings_of(folder: Path, name: str = "masks", **values: Any) -> PseudoMaskArguments:
    """Settings that write the masks of the photos below a folder, by default the rows' own."""
    if not (folder / "photos").is_dir():
        write_marked_photos(folder / "photos")
    common = {"provider": "scenes", "min_area": 0, "near_duplicates": False, "seed": 0, "use_cpu": True}
    paths = {"dataset_name": str(folder / "photos"), "output_dir": str(folder / name)}
    return PseudoMaskArguments(**common | paths | values)


def polygon(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco_of(split: str, count: int, categories: tuple[str, ...] = CATEGORIES, prefix: bool = True) -> dict[str, Any]:
    """A COCO file of the first rows of a split, its marks as polygons."""
    names = [f"{split}/{row}.png" if prefix else f"{row}.png" for row in range(count)]
    images = [
        {"id": row + 1, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for row, name in enumerate(names)
    ]
    annotations = []
    for row in range(count):
        for kind, *box in boxes_of(row):
            mark = {"segmentation": [polygon(*box)], "category_id": kind + 1, "image_id": row + 1}
            annotations.append({"id": len(annotations) + 1, **mark})
    listed = [{"id": number, "name": name} for number, name in enumerate(categories, 1)]
    return {"images": images, "annotations": annotations, "categories": listed}


def write_coco(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def files_of(folder: str | Path, besides: tuple[str, ...] = ("result.json",)) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name not in besides)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

"""What masks cost: photos with and without their masks, and cached tokens with and without patch grids.

    python tests/benchmarks/masks.py

Photos are drawn scenes 1,920 pixels wide that show evidence, with their own masks, read by one thread as a training reads
them: decoded, cut into twelve views of 224 pixels, augmented. The cache has one clean draw of 2 x 2 grid tokens and a patch grid of
32 x 32 x 1,280 a photo, the widest there is. All figures are reported, none has a bar.
"""

import io
import tempfile
from itertools import count as count_from
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage
from ratios import Comparison, fastest_rounds, finish, options

from natix_roadwork.data.augmentation import ViewAugmentation
from natix_roadwork.data.draws import Draw
from natix_roadwork.data.feature_cache import FeatureCache
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.mask_source import RowMasks, find_masks
from natix_roadwork.data.masks import write_mask
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.data.scene_table import SceneSettings
from natix_roadwork.data.scenes import draw_scene
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor


MASK_SIZE, GRID, TOKENS = 128, (32, 32, 1280), 6


def scene_rows(count: int, folder: Path) -> tuple[Dataset, RowMasks]:
    """Drawn scenes as rows, and their masks in a folder."""
    columns: dict[str, list] = {name: [] for name in ("row_id", "image", "label", "width", "height", "mask")}
    settings = SceneSettings(width=1920)
    shown = (number for number in count_from(0) if draw_scene(number, settings).mask.any())
    for number in islice(shown, count):
        scene, file = draw_scene(number, settings), io.BytesIO()
        PILImage.fromarray(scene.photo).save(file, "JPEG", quality=90)
        write_mask(folder, str(number), scene.mask, {})
        height, width = scene.mask.shape
        row = (str(number), {"bytes": file.getvalue(), "path": None}, scene.label, width, height, "")
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    kinds = {name: Value("int64") for name in columns} | {"row_id": Value("string"), "mask": Value("string")}
    rows = Dataset.from_dict(columns, features=Features(kinds | {"image": Image(decode=False)}))
    return rows, find_masks({"all": rows}, MASK_SIZE, str(folder))


def cached(rows: Dataset, folder: Path, grid: bool) -> FeatureRows:
    """A cache in memory with tokens of noise."""
    shape = (len(rows), 1, 12, TOKENS, GRID[2])
    shard = {"tokens": torch.randn(shape).half(), "view_mask": torch.ones(len(rows), 12, dtype=torch.bool)}
    if grid:
        shard["grid"] = torch.randn(len(rows), 1, *GRID).half()
    return FeatureRows(FeatureCache(folder, {}, shape, len(rows), [shard]), rows)


def main() -> None:
    """Measure and print."""
    asked = options(__doc__, photos=8)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        rows, masks = scene_rows(asked.photos, Path(scratch))
        processor = RoadworkImageProcessor(view_size=224, do_normalize=False)
        draws = [Draw(row, 0, row) for row in range(len(rows))]
        for preset in ("none", "light", "heavy"):
            plain, ours = (
                PhotoRows(rows, processor, augmentation=ViewAugmentation(preset), masks=each) for each in (None, masks)
            )
            found.append(
                compare(f"photo, augmentation {preset}: without masks -> with", plain, ours, draws, asked.rounds)
            )
        plain, ours = (cached(rows, Path(scratch), grid) for grid in (False, True))
        found.append(compare("cached tokens: without patch grids -> with", plain, ours, draws, asked.rounds))
    finish(found, asked)


def compare(
    name: str, plain: PhotoRows | FeatureRows, ours: PhotoRows | FeatureRows, draws: list[Draw], rounds: int
) -> Comparison:
    """Milliseconds a photo of both."""
    times = fastest_rounds({"plain": lambda: plain.read(draws), "ours": lambda: ours.read(draws)}, rounds)
    each = {way: value / len(draws) for way, value in times.items()}
    return Comparison(name, each["plain"], each["ours"], each["ours"] / each["plain"])


if __name__ == "__main__":
    main()

"""How well planted near-duplicates of drawn scenes are found, and what looking for them costs.

    python tests/benchmarks/near_duplicates.py [--num_rows 480] [--width 640] [--folder runs/bench_duplicates]

Pairs are those of photos that end in one set. One counts as right when both photos show the same place: frames of one video a few metres apart may be found too, and
belong together anyway. The strict precision counts them as wrong. Exit code 1 when recall or precision is below 0.95.
"""

import argparse
import io
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from natix_roadwork.data.groups import components_of
from natix_roadwork.data.near_duplicates import hash_pairs, near_duplicate_pairs, photo_print, photo_prints
from natix_roadwork.data.scene_table import ScenePlan, SceneSettings, plan_rows
from natix_roadwork.data.scenes import write_scenes


LEAST = 0.95


def planted_scores(folder: Path, settings: SceneSettings) -> dict[str, float]:
    """Find near-duplicates among drawn scenes; recall of the planted pairs, precision of the found ones."""
    write_scenes(folder, settings, num_workers=2, masks=False)
    photos = {}
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["image", "id"])
        photos |= dict(zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True))
    plans = plan_rows(settings)
    rows = Dataset.from_list(
        [{"image": photos[plan.row]} for plan in plans], features=Features({"image": Image(decode=False)})
    )
    started = time.perf_counter()
    pairs = near_duplicate_pairs(photo_prints(rows))
    seconds = time.perf_counter() - started
    planted = {(a, b) for b in range(len(plans)) for a in range(b) if _spot(plans[a]) == _spot(plans[b])}
    sets = components_of(len(plans), [pairs])
    found = {(a, b) for b in range(len(plans)) for a in range(b) if sets[a] == sets[b]}
    right = {(a, b) for a, b in found if plans[a].place_number == plans[b].place_number}
    return {
        "rows": len(plans),
        "planted": len(planted),
        "found": len(found),
        "recall": len(found & planted) / len(planted),
        "precision": len(right) / len(found),
        "strict_precision": len(found & planted) / len(found),
        "ms_a_photo": 1000 * seconds / len(plans),
    }


def decode_ms(width: int, height: int, repeats: int = 5) -> float:
    """Time the print of one large JPEG, in ms."""
    rng = np.random.default_rng(0)
    coarse = PILImage.fromarray(rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), PILImage.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    started = time.perf_counter()
    for _ in range(repeats):
        photo_print(buffer.getvalue())
    return 1000 * (time.perf_counter() - started) / repeats


def search_seconds(num_rows: int) -> float:
    """Time the search among random hashes."""
    hashes = np.random.default_rng(0).integers(0, 2**63, num_rows).astype(np.uint64)
    started = time.perf_counter()
    hash_pairs(hashes)
    return time.perf_counter() - started


def _spot(plan: ScenePlan) -> tuple[int, int]:
    return plan.place_number, plan.frame


def main() -> int:
    """Measure, print, and compare with the least recall and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_rows", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_duplicates"))
    parser.add_argument("--search_rows", type=int, nargs="*", default=[10_000, 40_000])
    own = parser.parse_args()
    scores = planted_scores(own.folder, SceneSettings(num_rows=own.num_rows, width=own.width, duplicate_share=0.15))
    for name, value in scores.items():
        print(f"{name:20} {value:.3f}")
    print(f"one 4032x3024 JPEG   {decode_ms(4032, 3024):.1f} ms")
    for num_rows in own.search_rows:
        print(f"search {num_rows:>13,} {search_seconds(num_rows):.1f} s")
    return int(min(scores["recall"], scores["precision"]) < LEAST)


if __name__ == "__main__":
    sys.exit(main())

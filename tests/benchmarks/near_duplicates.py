"""How well planted near-duplicates of drawn scenes are found, and what looking for them costs.

    python tests/benchmarks/near_duplicates.py [--seeds 0] [--num_rows 480] [--output result.json] [--search_rows 10000]

One data set of scenes is drawn for each seed. Limits that were chosen on some seeds have to be judged on others;
`model_cards/results/near_duplicates.json` has seeds on which nothing was chosen. Pairs are those of photos that end in one set. One counts as right when both photos show the same place: frames of one video a few metres apart may be found too, and
belong together anyway. The strict precision counts them as wrong. Exit code 1 when recall or precision is below 0.95 on a
seed.
"""

import argparse
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from natix_roadwork.data.groups import components_of
from natix_roadwork.data.near_duplicates import (
    MAX_DISTANCE,
    MIN_CORRELATION,
    MIN_DETAIL,
    hash_pairs,
    near_duplicate_pairs,
    photo_print,
    photo_prints,
)
from natix_roadwork.data.scene_table import ScenePlan, SceneSettings, plan_rows
from natix_roadwork.data.scenes import write_scenes
from natix_roadwork.environment import environment, git_state


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
    """Measure, print, write, and compare with the least recall and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--num_rows", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_duplicates"))
    parser.add_argument("--search_rows", type=int, nargs="*", default=[])
    parser.add_argument("--output", type=Path, help="JSON file for the scores")
    own = parser.parse_args()
    commit, dirty = git_state()
    scores = {}
    for seed in own.seeds:
        settings = SceneSettings(num_rows=own.num_rows, width=own.width, seed=seed, duplicate_share=0.15)
        scores[seed] = planted_scores(own.folder / f"seed_{seed}", settings)
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores[seed].items()))
    if own.output is not None:
        limits = {"max_distance": MAX_DISTANCE, "min_correlation": MIN_CORRELATION, "min_detail": MIN_DETAIL}
        facts = {"command": sys.argv, "commit": commit, "dirty": dirty, "environment": environment()}
        own.output.write_text(
            json.dumps({**facts, "width": own.width, "limits": limits, "seeds": scores}, indent=1) + "\n"
        )
    print(f"one 4032x3024 JPEG {decode_ms(4032, 3024):.1f} ms")
    for num_rows in own.search_rows:
        print(f"search {num_rows:,} rows {search_seconds(num_rows):.1f} s")
    return int(any(min(found["recall"], found["precision"]) < LEAST for found in scores.values()))


if __name__ == "__main__":
    sys.exit(main())

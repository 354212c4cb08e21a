"""What the leak audit flags on drawn scenes, and how often it flags a field when labels are shuffled by group.

    python tests/benchmarks/leak_audit.py [--num_rows 420] [--shuffles 20] [--output result.json]

Two data sets are drawn: one with every planted leak, one with none. Exit code 1 when a planted leak is missed, a clean
field is flagged, or more than 5 % of the shuffled fields are flagged.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.leak_audit import audit_features
from natix_roadwork.data.leak_probes import field_features
from natix_roadwork.data.scene_table import SceneLeaks, SceneSettings
from natix_roadwork.data.scenes import write_scenes
from natix_roadwork.environment import environment, git_state
from tests.leaking_rows import shuffled_by_group


# Fields that each leak of `SceneLeaks` gives away: a larger photo has more bytes, a city its coordinates.
PLANTED = {
    "description": {"text", "travel_alteration"},
    "photo_size": {"photo_size", "file_bytes"},
    "city": {"city", "gps"},
}
MAX_SHUFFLED_SHARE = 0.05


def drawn_rows(folder: Path, num_rows: int, seed: int, leaks: bool) -> Dataset:
    """Draw scenes with all leaks or none, and load their train and dev rows."""
    chosen = SceneLeaks(**dict.fromkeys(PLANTED, leaks))
    settings = SceneSettings(num_rows=num_rows, test_share=0.0, seed=seed, width=640, positive_share=0.7, leaks=chosen)
    write_scenes(folder, settings, num_workers=2, masks=False)
    splits = load_rows(str(folder)).splits
    return concatenate_datasets([splits["train"], splits["dev"]])


def measure(folder: Path, num_rows: int, seed: int, shuffles: int) -> dict[str, object]:
    """Audit scenes with all leaks, with none, and the leaking ones with shuffled labels."""
    found = {}
    for name in ("clean", "leaking"):
        rows = drawn_rows(folder / name, num_rows, seed, leaks=name == "leaking")
        labels, groups, fields = np.asarray(rows["label"][:]), np.asarray(rows["group"][:]), field_features(rows)
        found[name] = audit_features(fields, labels, groups).as_dict()
    flagged = []
    for shuffle in range(shuffles):
        shuffled = shuffled_by_group(labels, groups, shuffle)
        flagged.append(audit_features(fields, shuffled, groups, num_samples=400, seed=shuffle).flagged)
    share = sum(map(len, flagged)) / (len(fields) * shuffles)
    planted = set().union(*PLANTED.values())
    names = {name: sorted(audit["flagged"]) for name, audit in found.items()}
    holds = set(names["leaking"]) == planted and not names["clean"] and share <= MAX_SHUFFLED_SHARE
    shuffled = {"shuffles": shuffles, "flagged_share": share, "flagged": [sorted(fields) for fields in flagged]}
    return {"planted": sorted(planted), "flagged": names, "holds": holds, "shuffled": shuffled, "audits": found}


def main() -> int:
    """Draw, audit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_rows", type=int, default=420)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_leaks"))
    parser.add_argument("--output", type=Path, help="JSON file for what was found")
    own = parser.parse_args()
    commit, dirty = git_state()
    result = measure(own.folder, own.num_rows, own.seed, own.shuffles)
    for name, fields in result["flagged"].items():
        print(f"{name}: {', '.join(fields) or 'nothing'} flagged")
    shuffled = result["shuffled"]
    print(f"{own.shuffles} shuffles: {shuffled['flagged_share']:.1%} of fields flagged")
    if own.output is not None:
        facts = {"command": sys.argv, "commit": commit, "dirty": dirty, "environment": environment()}
        own.output.write_text(json.dumps({**facts, "seed": own.seed, **result}, indent=1) + "\n")
    return int(not result["holds"])


if __name__ == "__main__":
    sys.exit(main())

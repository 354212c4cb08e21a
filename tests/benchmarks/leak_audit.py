"""How often the leak audit flags a field of drawn scenes when labels are shuffled by group, and what it flags unshuffled.

    python tests/benchmarks/leak_audit.py [--num_rows 420] [--shuffles 20]

Exit code 1 when a planted leak is missed, a clean field is flagged, or more than 5 % of the shuffled fields are flagged.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from natix_roadwork.data.leak_audit import audit_features, audited_fields
from natix_roadwork.data.leak_probes import field_features
from tests.leaking_rows import leaking_rows, shuffled_by_group


PLANTED = {
    "description": {"text", "travel_alteration"},
    "photo_size": {"photo_size", "file_bytes"},
    "city": {"city", "gps"},
}


def main() -> int:
    """Audit rows with all leaks, with none, and with shuffled labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_rows", type=int, default=420)
    parser.add_argument("--shuffles", type=int, default=20)
    own = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        leaky = leaking_rows(Path(folder) / "leaky", own.num_rows, **dict.fromkeys(PLANTED, True))
        clean = leaking_rows(Path(folder) / "clean", own.num_rows)
        started = time.perf_counter()
        found = set(audited_fields(leaky).flagged)
        seconds = time.perf_counter() - started
        wrong = set(audited_fields(clean).flagged)
        labels, groups = np.asarray(leaky["label"][:]), np.asarray(leaky["group"][:])
        fields = field_features(leaky)
        flagged = [
            audit_features(fields, shuffled_by_group(labels, groups, seed), groups, num_samples=400, seed=seed).flagged
            for seed in range(own.shuffles)
        ]
    share = sum(map(len, flagged)) / (len(fields) * own.shuffles)
    print(f"with all leaks: {sorted(found)}\nwithout: {sorted(wrong)}\none audit {seconds:.1f} s")
    print(f"{own.shuffles} shuffles: {share:.1%} of fields flagged: {[sorted(names) for names in flagged if names]}")
    return int(found != set().union(*PLANTED.values()) or bool(wrong) or share > 0.05)


if __name__ == "__main__":
    sys.exit(main())

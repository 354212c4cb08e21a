"""What an error report costs: seconds, the size of the page, the most memory.

    python tests/benchmarks/report.py --photos FOLDER [--num_rows 2000] [--model FOLDER] [--output result.json] [--check]

The folder's JPEGs are repeated under other names with drawn labels, places and weather; the logits are noise around the
label. With `--check`, exit code 1 when the report takes more than 60 s or the page more than 25 MiB.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.data.predictions import write_predictions
from natix_roadwork.environment import environment, git_state, peak_memory_bytes
from natix_roadwork.inference.report_run import ReportArguments, run_report
from tests.report_rows import member_of, report_folder


MOST_SECONDS, MOST_BYTES = 60.0, 25 * 2**20


def measure(photos: list[Path], num_rows: int, model: str | None, page: Path, folder: Path) -> dict[str, float]:
    """Write one report about `num_rows` rows, loading them included."""
    data = report_folder(folder / "data", num_rows, photos)
    rows = load_rows(str(data), near_duplicates=False).splits["dev"]
    write_predictions(folder / "dev.arrow", member_of(rows, np.arange(num_rows) % 4 == 0))
    arguments = ReportArguments(
        predictions=str(folder / "dev.arrow"),
        dataset_name=str(data),
        output=str(page),
        model=model,
        worst_rows=40,
        seed=0,
        near_duplicates=False,
    )
    started, started_cpu = time.perf_counter(), time.process_time()
    report = run_report(arguments)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    return {
        "rows": report.num_rows,
        "groups": report.num_groups,
        "worst_rows": len(report.worst),
        "tests": report.num_tests,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "page_bytes": page.stat().st_size,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main() -> int:
    """Measure, print, write, and compare with the bars where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--num_rows", type=int, default=2000)
    parser.add_argument("--model", help="model to run on the worst rows")
    parser.add_argument("--page", type=Path, help="keep the page here")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--check", action="store_true", help="exit code 1 above a bar")
    own = parser.parse_args()
    photos = sorted(path.absolute() for path in own.photos.glob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        page = own.page or Path(folder) / "report.html"
        found = measure(photos, own.num_rows, own.model, page, Path(folder))
    print(", ".join(f"{name} {value:,.1f}" for name, value in found.items()))
    if own.output is not None:
        commit, dirty = git_state()
        facts = {"command": sys.argv, "commit": commit, "dirty": dirty, "environment": environment()}
        own.output.write_text(json.dumps({**facts, **found}, indent=1) + "\n")
    return int(own.check and (found["seconds"] > MOST_SECONDS or found["page_bytes"] > MOST_BYTES))


if __name__ == "__main__":
    sys.exit(main())

"""Show how train rows would be drawn by their distance to the targets, before any training.

    python recipes/gps_report.py --dataset_name natix-network-org/roadwork --output_dir runs/gps --gps_sampling solved

`--gps_target dev` (the default), `test` or a `.npy` file says where the model will be used; `--gps_sampling off` shows the
data as they are. A map, the arrays and `result.json` lie in the output folder. Keys may also stand in a YAML file given
by `--config`; those of a training recipe are the same.
"""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from natix_roadwork.data.dataset import load_rows
from natix_roadwork.gps.clusters import NUM_CLUSTERS
from natix_roadwork.gps.report import MAP_NAME, write_report
from natix_roadwork.gps.settings import GPSArguments
from natix_roadwork.runs import RunRecorder
from natix_roadwork.training.gps_inputs import gps_of, plan_for
from natix_roadwork.training.yaml_args import parse_recipe


@dataclass
class GPSReportArguments(GPSArguments):
    """Which data set to look at, and where the report goes."""

    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    output_dir: str = field(metadata={"help": "Folder of the map, the arrays and result.json."})
    num_clusters: int = field(default=NUM_CLUSTERS, metadata={"help": "Target regions to name, 3 to 7 as planned."})
    dev_share: float = field(default=0.15, metadata={"help": "As in the training recipe."})
    seed: int = field(default=42, metadata={"help": "As in the training recipe."})


def main(argv: list[str]) -> None:
    """Parse the arguments, plan the draws, write map, arrays and result, and print the table."""
    (arguments,) = parse_recipe(argv, [GPSReportArguments])
    with RunRecorder(asdict(arguments), arguments.seed) as recorder:
        rows = load_rows(arguments.dataset_name, seed=arguments.seed, dev_share=arguments.dev_share)
        plan = plan_for(rows, arguments, arguments.seed)
        if plan is None:
            raise ValueError(f"{arguments.dataset_name!r}: train or {arguments.gps_target} has no coordinates to show")
        table = write_report(plan, arguments.output_dir, arguments.num_clusters, arguments.seed)
        for split, dataset in rows.splits.items():  # test_gps_coordinates.npy and the like
            np.save(Path(arguments.output_dir) / f"{split}_gps_coordinates.npy", gps_of(dataset))
        recorder.data = rows.as_dict()
        recorder.details = {"gps": plan.as_dict()}
        recorder.warnings += plan.warnings
        recorder.write(arguments.output_dir)
    print(f"{table}\nThe map is {Path(arguments.output_dir) / MAP_NAME}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"gps_report: {' '.join(str(error).split())}")

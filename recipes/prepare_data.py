"""Make a one-time, downscaled local copy of a large data set, then train from the copy.

    python recipes/prepare_data.py --dataset_name natix-network-org/roadwork --output_dir data/roadwork_2048

The copy has the same layout, names, rows and row ids. Run the command again to go on after a stop. Keys may also stand
in a YAML file given by `--config`; `--max_side`, `--quality` and the others are in `PrepareArguments`.
"""

import sys
from dataclasses import asdict

from natix_roadwork.data.copy_state import PrepareArguments
from natix_roadwork.data.downscaled_copy import downscaled_copy
from natix_roadwork.runs import RunRecorder
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, copy, record the run in `result.json` and say what was done."""
    (arguments,) = parse_recipe(argv, [PrepareArguments])
    with RunRecorder(asdict(arguments), seed=0) as recorder:
        report = downscaled_copy(arguments)
        recorder.data = {"name": arguments.dataset_name}
        recorder.details = asdict(report)
        recorder.write(arguments.output_dir)
    print(report.summary())
    print(f"The copy lies in {arguments.output_dir}; use it as --dataset_name.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"prepare_data: {' '.join(str(error).split())}")

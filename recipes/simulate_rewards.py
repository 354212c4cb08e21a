"""Simulate what a member, an ensemble or a model's folder would earn on NATIX's subnet.

    python recipes/simulate_rewards.py --config recipes/simulate_rewards/natix.yaml
    python recipes/simulate_rewards.py --config recipes/simulate_rewards/ensemble.yaml

`--model FOLDER` asks a model about the views that validators would send of held-out rows, in regimes A, B and C at four
levels; `--predictions FILE ...` takes the answers of `recipes/predict.py`, with `--ensemble ensemble.json` combined. Rows
that taught the model, and a lockbox, are left out. Keys are the fields of `SimulateArguments`; `result.json` holds every
figure.
"""

import logging
import sys

from natix_roadwork.inference.simulation_arguments import SimulateArguments
from natix_roadwork.inference.simulation_run import run_simulation, simulation_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, simulate, record the run and print the table."""
    (arguments,) = parse_recipe(argv, [SimulateArguments])
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO)
    print(simulation_table(run_simulation(arguments), arguments.output_dir))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"simulate_rewards: {' '.join(str(error).split())}")

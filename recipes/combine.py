"""Apply a saved ensemble to other rows: one prediction file of the ensemble, scored beside each of its members.

    python recipes/combine.py --config recipes/combine/quickstart.yaml

`ensemble` is the `ensemble.json` of `recipes/ensemble.py`, `predictions` lists its members' files of `recipes/predict.py` for
rows it was not fitted on, such as an imagefolder's own `test`. `recipes/report.py` reads what comes out. Keys are the fields of
`CombineArguments`.
"""

import sys

from natix_roadwork.inference.combined import CombineArguments, combination_table, run_combination
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, combine and score, and print the table."""
    (arguments,) = parse_recipe(argv, [CombineArguments])
    print(combination_table(run_combination(arguments), arguments.output_dir))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"combine: {' '.join(str(error).split())}")

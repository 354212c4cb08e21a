"""Measure test-time augmentation on held-out rows: five ways to put a photo's transforms together, and what each costs.

    python recipes/tta.py --config recipes/tta/natix.yaml

`predictions` lists files that `recipes/predict.py --tta all` wrote, `train_predictions` files with the train rows of the
same members (`--splits train`, without `tta`). A way is accepted only where its gain over the photos as they are has an
interval above 0; tau, weights and the choice itself are scored on rows that had no part in them. The folder `output_dir`
then holds `result.json`, `tta.arrow` (the choice as a member of its own) and the feature statistics. Keys are the fields
of `TTAArguments`.
"""

import sys

from natix_roadwork.inference.tta_run import TTAArguments, run_tta, tta_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, compare the modes, and print the table."""
    (arguments,) = parse_recipe(argv, [TTAArguments])
    print(tta_table(run_tta(arguments)))
    print(f"tta.arrow, the feature statistics and result.json lie in {arguments.output_dir}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"tta: {' '.join(str(error).split())}")

"""Write a calibrated copy of a model: after it, 0.5 is the best cut, for the share of roadwork where it will be used.

    python recipes/calibrate.py --config recipes/calibrate/quickstart.yaml

`predictions` is the model's file of `recipes/predict.py`; the rows must be held out, so train with `--selection_share`. The
gain is scored in grouped folds, the map that is saved is fitted on all held-out rows. Keys are the fields of
`CalibrateArguments`.
"""

import sys

from natix_roadwork.inference.calibrating import CalibrateArguments, calibration_table, run_calibration
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, score and save the calibrated model, and print the table."""
    (arguments,) = parse_recipe(argv, [CalibrateArguments])
    print(calibration_table(run_calibration(arguments), arguments.output_dir))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"calibrate: {' '.join(str(error).split())}")

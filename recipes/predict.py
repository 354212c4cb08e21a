"""Predict photos with a saved model: one Arrow file of row id, logits and embedding.

On a CPU, with the quickstart's model and scenes:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/predict.py \
        --config recipes/predict/quickstart.yaml

On all GPUs of a machine; killed and started again with `--existing_run resume` it continues:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/predict.py --config recipes/predict/natix.yaml

With `--tta all --feature_cache off` each photo's sixteen TTA transforms are predicted too, for `recipes/tta.py`.

Keys are the fields of `PredictArguments`; those of the data must be the training's, so that dev is what it was there. A
lockbox is never predicted.
"""

import logging
import sys

from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.predict import predict, prediction_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, predict, and print a short table on the main process."""
    (settings,) = parse_recipe(argv, [PredictArguments])
    state = settings.state()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if state.is_main_process else logging.WARNING)
    result = predict(settings)
    if state.is_main_process:
        print(prediction_table(result, settings))
    state.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"predict: {' '.join(str(error).split())}")

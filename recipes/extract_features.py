"""Compute the frozen backbone's tokens of a data set once, for any number of training runs.

On a CPU, with the embedded backbone and drawn scenes:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/extract_features.py \
        --config recipes/extract_features/quickstart.yaml

On all GPUs of a machine; killed and started again it continues:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/extract_features.py \
        --config recipes/extract_features/natix.yaml

Then `recipes/pretrain.py --feature_cache FOLDER` trains on them. Keys are those of `recipes/pretrain.py`: features can be
trained on where data, seed, backbone, views, draws and precision are the same; the settings that differ are named.
"""

import sys

from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.extraction import extract, feature_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, extract, and print a short table on the main process."""
    settings, args = parse_recipe(argv, (PretrainArguments, RoadworkTrainingArguments))
    result = extract(settings, args)
    if args.should_log:
        print(feature_table(result))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"extract_features: {' '.join(str(error).split())}")

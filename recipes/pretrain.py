"""Train a roadwork classifier on a frozen backbone.

On a CPU, with the embedded backbone and drawn scenes:

    natix-roadwork scenes runs/quickstart/scenes --num-rows 300 --positive-share 0.55 --test-share 0
    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/pretrain.py \
        --config recipes/pretrain/quickstart.yaml

The real thing, on GPUs:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pretrain.py \
        --config recipes/pretrain/model_1_baseline.yaml

Any key of the YAML may follow as `--key value`.
"""

import logging
import sys

from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dry_run import dry_run
from natix_roadwork.training.pretraining import pretrain, result_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, train, and print a short table on the main process."""
    settings, args = parse_recipe(argv, (PretrainArguments, RoadworkTrainingArguments))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if args.should_log else logging.WARNING)
    text = dry_run(settings, args) if settings.dry_run else result_table(pretrain(settings, args), args.output_dir)
    if args.should_log:
        print(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"pretrain: {' '.join(str(error).split())}")

"""Fine-tune one small adapter for each fold of a target set, and keep the out-of-fold predictions.

On a CPU, on the quickstart's model and scenes:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/finetune_folds.py \
        --config recipes/finetune_folds/quickstart.yaml

On GPUs, on the model of `recipes/pretrain/model_1_baseline.yaml`:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/finetune_folds.py \
        --config recipes/finetune_folds/model_1_baseline.yaml

The base should be trained with `--selection_share 0.15`, so that dev has taught it nothing. Killed and started again
with `--existing_run resume` it goes on, to the same files. Any key of the YAML may follow as `--key value`.
"""

import logging
import sys

from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetuning import finetune_folds, folds_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, fine-tune, and print a short table on the main process."""
    settings, args = parse_recipe(argv, (FinetuneArguments, RoadworkTrainingArguments))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if args.should_log else logging.WARNING)
    result = finetune_folds(settings, args)
    if args.should_log:
        print(folds_table(result, args.output_dir))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"finetune_folds: {' '.join(str(error).split())}")

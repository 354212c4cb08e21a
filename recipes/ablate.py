"""Measure what each component of a recipe brings, on one data set, out of fold.

On a CPU, with the embedded backbone and drawn scenes:

    natix-roadwork scenes runs/quickstart/scenes --num-rows 300 --positive-share 0.55 --test-share 0
    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/ablate.py \
        --config recipes/ablate/quickstart.yaml

`--dry_run true` lists the rows; `--rows with_mixup without_pyramid` measures some of them and what they are compared with.
A stopped run goes on where it was. Any key of `recipes/pretrain.py` may follow as `--key value`: it changes the default.
"""

import logging
import sys

from natix_roadwork.training.ablation import ablate, plan
from natix_roadwork.training.ablation_settings import AblationArguments
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, measure, and print the table."""
    ablation, settings, args = parse_recipe(argv, (AblationArguments, PretrainArguments, RoadworkTrainingArguments))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.WARNING)
    if settings.dry_run:
        print(plan(ablation, settings, args))
        return
    result, table = ablate(ablation, settings, args)
    print(table)
    for text in result.warnings:
        print(f"warning: {text}")
    print(f"{result.wall_seconds:.0f} s; ablation.md, result.json and rows/ lie in {args.output_dir}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"ablate: {' '.join(str(error).split())}")

"""Predict the train rows out of fold with full models, for the students of `recipes/distill.py`.

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/teacher_folds.py \
        --config recipes/pretrain/quickstart.yaml --output_dir runs/quickstart/teacher

`output_dir` then holds `teacher.arrow` and `result.json`. Keys are those of `recipes/pretrain.py` and the fields of
`TeacherFoldsArguments`; any may follow as `--key value`.
"""

import logging
import sys

from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.teacher_folds import TeacherFoldsArguments, teach_folds, teacher_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, train the heads, and print a short table on the main process."""
    settings, args = parse_recipe(argv, (TeacherFoldsArguments, RoadworkTrainingArguments))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if args.should_log else logging.WARNING)
    result = teach_folds(settings, args)
    if args.should_log:
        print(teacher_table(result, args.output_dir))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"teacher_folds: {' '.join(str(error).split())}")

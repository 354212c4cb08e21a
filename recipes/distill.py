"""Train a lite student, one 224-pixel view on a stock architecture, from the full teacher's answers, and export it.

On a CPU, on the quickstart's scenes, with the answers of `recipes/teacher_folds.py`:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/teacher_folds.py \
        --config recipes/pretrain/quickstart.yaml --output_dir runs/quickstart/teacher
    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/distill.py --config recipes/distill/quickstart.yaml

`output_dir` then holds `result.json` (the student by validator regime, the same student without the teacher, their paired
difference) and `lite/`, which the stock miner loads. Keys are the fields of `DistillArguments` and of
`DistillTrainingArguments`; any may follow as `--key value`.
"""

import logging
import sys
from pathlib import Path

from natix_roadwork.hub.export import LiteCard, export_lite
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.runs import interval_text
from natix_roadwork.training.distillation import CLEAN, LITE, Distilled, distill, distillation_table
from natix_roadwork.training.distillation_arguments import DistillArguments, DistillTrainingArguments
from natix_roadwork.training.yaml_args import parse_recipe


def export(done: Distilled, settings: DistillArguments, output_dir: str) -> None:
    """Write the student as a folder that needs no code of ours."""
    score = interval_text(done.result.metrics[CLEAN]["mcc"])
    card = LiteCard(
        model_name=settings.model_name,
        description=f"Roadwork or none for one 224 px view of a street photo; MCC {score} on its own dev rows.",
        version=settings.version,
        submitted_by=settings.submitted_by,
        repo_id=settings.repo_id,
    )
    export_lite(done.model, done.processor, Path(output_dir) / LITE, card, settings.profile)


def main(argv: list[str]) -> None:
    """Parse the recipe, distil, export, and print a short table on the main process."""
    settings, args = parse_recipe(argv, (DistillArguments, DistillTrainingArguments))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if args.should_log else logging.WARNING)
    done = distill(settings, args, None if settings.ensemble is None else Ensemble.load(settings.ensemble).combine)
    if args.should_save:
        export(done, settings, args.output_dir)
    if args.should_log:
        print(distillation_table(done.result, args.output_dir))
    args.distributed_state.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"distill: {' '.join(str(error).split())}")

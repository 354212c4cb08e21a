"""Combine the predictions of several members, score every way honestly, save the first way as one JSON file.

    python recipes/ensemble.py --config recipes/ensemble/natix.yaml

`predictions` lists the files of `recipes/predict.py` or of fold fine-tuning; rows that a member has learned from are left
out, counted and named. Scores come from nested cross-validation over groups. The folder `output_dir` then holds
`ensemble.json`, fitted on all held-out rows, and `result.json`. Keys are the fields of `EnsembleArguments`.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from natix_roadwork.data.predictions import read_predictions
from natix_roadwork.inference.ensemble import ENSEMBLE_NAME, fit_ensemble, splits_of
from natix_roadwork.inference.ensemble_report import EnsembleArguments, data_of, details_of, metrics_of, summary
from natix_roadwork.inference.member_table import member_table
from natix_roadwork.inference.nested import gains_of_members, score_ensembles
from natix_roadwork.runs import RunRecorder
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, score, fit and save the ensemble, record the run and print the table."""
    (arguments,) = parse_recipe(argv, [EnsembleArguments])
    with RunRecorder(asdict(arguments), seed=arguments.seed) as recorder:
        members = [read_predictions(path) for path in arguments.predictions]
        table = member_table(members)
        settings = (arguments.num_folds, arguments.target_prior, arguments.seed, arguments.num_samples)
        scores = score_ensembles(table, arguments.methods, *settings)
        gains = gains_of_members(table, arguments.methods[0], *settings)
        ensemble = fit_ensemble(
            table,
            arguments.methods[0],
            arguments.target_prior,
            arguments.seed,
            with_bootstrap=True,
            fitted_on=splits_of(table, members),
        )
        ensemble.save(Path(arguments.output_dir) / ENSEMBLE_NAME)
        recorder.data = data_of(table)
        recorder.metrics, recorder.baselines = metrics_of(scores, arguments.methods[0])
        recorder.details = details_of(scores, gains, ensemble)
        recorder.warnings += table.notes
        recorder.write(arguments.output_dir)
    print(summary(table, scores, gains, ensemble))
    print(f"{ENSEMBLE_NAME} and result.json lie in {arguments.output_dir}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"ensemble: {' '.join(str(error).split())}")

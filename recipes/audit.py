"""Audit a data set before training on it: leaks, groups and splits, near-duplicates, doubtful labels.

    python recipes/audit.py --config recipes/audit/quickstart.yaml

The folder `output_dir` then holds `leaks.json`, `split_manifest.json`, `folds_manifest.json`, `groups.csv`,
`near_duplicates.html`, `label_noise.html` and `result.json`. A lockbox is never scored; only its groups are read. Keys
are the fields of `AuditArguments`.
"""

import sys
from dataclasses import asdict

from natix_roadwork.runs import RunRecorder
from natix_roadwork.training.audit import AuditArguments, run_audit
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, audit, record the run in `result.json` and print what was found."""
    (arguments,) = parse_recipe(argv, [AuditArguments])
    with RunRecorder(asdict(arguments), seed=arguments.seed) as recorder:
        report = run_audit(arguments)
        recorder.data = report.rows.as_dict()
        recorder.metrics = {"out_of_fold": report.metrics}
        recorder.details = report.details()
        recorder.write(arguments.output_dir)
    print(report.summary())
    print(f"The tables, manifests and pages lie in {arguments.output_dir}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"audit: {' '.join(str(error).split())}")

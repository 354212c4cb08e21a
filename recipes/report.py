"""Show where a member is wrong: one HTML page of figures, slices, curves, a map and the worst rows.

    python recipes/report.py --config recipes/report/quickstart.yaml

The page needs no network and no other file; its figures lie beside it as JSON. The keys that load rows must be those of
the run that made the predictions; with `--model`, the page shows what the model looked at in the worst rows. Keys are the
fields of `ReportArguments`; `natix-roadwork report` takes the same ones.
"""

import sys

from natix_roadwork.inference.report_run import ReportArguments, report_summary, run_report
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, write the page and its record, and print what stands out."""
    (arguments,) = parse_recipe(argv, [ReportArguments])
    print(report_summary(run_report(arguments), arguments.output))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"report: {' '.join(str(error).split())}")

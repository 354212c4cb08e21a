"""Judge a folder of masks: one HTML page of coverage, false positives, agreement with references, and examples.

    python recipes/mask_quality.py --config recipes/mask_quality/quickstart.yaml

The page needs no network and no other file; `result.json` beside it holds its figures. Keys are the fields of
`QualityArguments`. It needs the extra `labeling` (pycocotools), for average precision.
"""

import sys

from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, write the page and its record, and print the figures that judge the masks."""
    try:
        from natix_roadwork.labeling.mask_quality import QualityArguments, quality_summary, run_quality
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'natix-roadwork[labeling]'") from error
    (arguments,) = parse_recipe(argv, [QualityArguments])
    print(quality_summary(run_quality(arguments), arguments.output_dir))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"mask_quality: {' '.join(str(error).split())}")

"""Average weights into one model, as fast as a single member: fold adapters of a model, or members that began alike.

    python recipes/soup.py --config recipes/soup/quickstart.yaml
    python recipes/soup.py --config recipes/soup/models.yaml

`model` with `adapters` takes the fold adapters of `recipes/finetune_folds.py`; `models` takes members that were trained from the
same weights; others are refused by name. The soup is a model folder: predict with it as with any other, and let
`recipes/ensemble.py` compare. Keys are the fields of `SoupArguments`.
"""

import sys

from natix_roadwork.inference.souping import SoupArguments, run_soup, soup_table
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the arguments, average and save the model, and say what it is."""
    (arguments,) = parse_recipe(argv, [SoupArguments])
    print(soup_table(run_soup(arguments), arguments.output_dir))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"soup: {' '.join(str(error).split())}")

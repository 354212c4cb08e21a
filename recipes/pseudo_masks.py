"""Mark where the evidence is: one mask and one record a photo, by people, the drawn scenes, or a model.

On a CPU, with the quickstart's scenes and their own masks:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/pseudo_masks.py \
        --config recipes/pseudo_masks/quickstart.yaml

On all GPUs of a machine; killed and started again it goes on with the photos that are missing:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/pseudo_masks.py --config recipes/pseudo_masks/sam3.yaml

Keys are the fields of `PseudoMaskArguments`.
"""

import logging
import sys

from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_mask_report import mask_table
from natix_roadwork.labeling.pseudo_masks import mark_photos
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, mark the photos, and print a short table on the main process."""
    (settings,) = parse_recipe(argv, [PseudoMaskArguments])
    state = settings.state()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if state.is_main_process else logging.WARNING)
    result = mark_photos(settings)
    if state.is_main_process:
        print(mask_table(result, settings.output_dir))
    state.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"pseudo_masks: {' '.join(str(error).split())}")

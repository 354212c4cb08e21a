"""Write what a detector finds in each photo as extra evidence for a model: boxes, then one file of figures.

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/detect.py --config recipes/detect/boxes.yaml
    accelerate launch recipes/pretrain.py --config recipes/pretrain/model_1_baseline.yaml \
        --extra_evidence runs/detections/evidence.arrow

Killed and started again it goes on with the photos that are missing. Keys are those of `recipes/pseudo_masks.py`, whose records
and filled boxes lie beside the file; a provider that knows the label is refused.
"""

import logging
import sys

from natix_roadwork.data.extra_evidence import check_provider
from natix_roadwork.labeling.detector_evidence import write_detections
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_mask_report import mask_table
from natix_roadwork.labeling.pseudo_masks import mark_photos
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, look at the photos, and write the figures on the main process."""
    (settings,) = parse_recipe(argv, [PseudoMaskArguments])
    check_provider(settings.provider)
    state = settings.state()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if state.is_main_process else logging.WARNING)
    result = mark_photos(settings)
    if state.is_main_process:
        print(mask_table(result, settings.output_dir))
        print(write_detections(settings))
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"detect: {' '.join(str(error).split())}")

"""Make depth maps: how near each part of a photo is, one small grey picture a photo, for the depth view.

On a CPU, with the quickstart's scenes:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/depth_maps.py \
        --config recipes/depth_maps/quickstart.yaml

On all GPUs of a machine; killed and started again it goes on with the photos that are missing:

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/depth_maps.py --config recipes/depth_maps/natix.yaml

Keys are the fields of `DepthMapArguments`.
"""

import logging
import sys

from natix_roadwork.labeling.depth_map_arguments import DepthMapArguments
from natix_roadwork.labeling.depth_maps import depth_table, make_depth_maps
from natix_roadwork.training.yaml_args import parse_recipe


def main(argv: list[str]) -> None:
    """Parse the recipe, make the maps, and print a short table on the main process."""
    (settings,) = parse_recipe(argv, [DepthMapArguments])
    state = settings.state()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("natix_roadwork").setLevel(logging.INFO if state.is_main_process else logging.WARNING)
    result = make_depth_maps(settings)
    if state.is_main_process:
        print(depth_table(result, settings.output_dir))
    state.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"depth_maps: {' '.join(str(error).split())}")

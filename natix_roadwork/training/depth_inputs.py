"""The depth side of a run's batches: the depth maps that a recipe names, for a model with a depth view.

`pretrain_inputs.py` and its like hand the outcome to the data room, which appends the depth view to each photo's views.
"""

from datasets import Dataset

from natix_roadwork.data.depth_source import RowDepths, find_depths
from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments


def depth_inputs(
    splits: dict[str, Dataset], settings: PretrainArguments, args: RoadworkTrainingArguments
) -> RowDepths | None:
    """Find and check the depth maps of all rows; None where the settings name no folder of them.

    Raises:
        ValueError: If a map is bad, or there is none.
    """
    if settings.depth_folder is None:
        return None
    return find_depths(splits, settings.depth_folder, args.distributed_state)


def require_depth_view(config: RoadworkConfig, depth_folder: str | None, model: str) -> None:
    """Refuse depth maps for a model that has no view for them.

    Raises:
        ValueError: If it has none.
    """
    if depth_folder is not None and not config.depth_view:
        raise ValueError(
            f"depth_folder={depth_folder!r}: {model} was trained without a depth view; leave depth_folder out, or train with it"
        )

"""The mask side of a run's batches: whether the loss has a mask term, and where its masks are.

`pretrain_inputs.py` hands the outcome to the data room, which puts labels of the masks into each batch.
"""

from datasets import Dataset

from natix_roadwork.data.mask_source import RowMasks, find_masks
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments


def mask_inputs(
    splits: dict[str, Dataset],
    settings: PretrainArguments,
    args: RoadworkTrainingArguments,
    *,
    required: bool = True,
) -> RowMasks | None:
    """Find and check the masks of all rows; None for a loss without a mask term, which reads no mask.

    Args:
        splits: The rows.
        settings: The loss, the masks' size and their folder.
        args: The processes that share the work.
        required: Whether rows without any mask are an error.

    Raises:
        ValueError: If a mask is bad and that is refused, or there is none.
    """
    if "mask" not in (settings.loss_weights or {}):
        return None
    return find_masks(
        splits,
        settings.mask_size,
        settings.mask_folder,
        settings.bad_masks,
        required=required,
        state=args.distributed_state,
    )

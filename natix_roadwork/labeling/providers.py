"""From the key `provider` to what marks the photos: the one place to name a new source of masks."""

from pathlib import Path

import torch

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.labeling.mask_provider import MaskProvider
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments


def load_provider(settings: PseudoMaskArguments, device: torch.device, rows: LoadedRows) -> MaskProvider:
    """Make the provider that the settings name; its module, and what that needs, is imported here.

    Args:
        settings: Of the run.
        device: Where a model goes.
        rows: All rows of the data set.

    Raises:
        ValueError: If it cannot start: a file or weights are missing, or a package is.
    """
    if settings.provider == "scenes":
        from natix_roadwork.labeling.scenes_provider import ScenesProvider

        has_column = any(any(split["mask"][:]) for split in rows.splits.values())
        return ScenesProvider(Path(settings.dataset_name) / "masks", has_column)
    if settings.provider == "human":
        try:
            from natix_roadwork.labeling.human_provider import HumanProvider, photo_paths
        except ImportError as error:
            raise ValueError(
                f"provider=human needs pycocotools ({error}); pip install 'natix-roadwork[labeling]'"
            ) from error
        names = [path for split in rows.splits.values() for path in photo_paths(split)]
        return HumanProvider(settings.annotations, names, settings.aliases)
    provider_class = _model_provider(settings.provider)
    revision = {} if settings.model_revision is None else {"revision": settings.model_revision}
    return provider_class.from_pretrained(
        settings.model,
        device=device,
        min_score=settings.min_score,
        **revision,
        **settings.model_settings(settings.provider),
    )


def _model_provider(name: str) -> type:
    if name == "sam3":
        from natix_roadwork.labeling.sam3_provider import Sam3Provider

        return Sam3Provider
    if name == "text_boxes":
        from natix_roadwork.labeling.text_box_provider import TextBoxProvider

        return TextBoxProvider
    if name == "label_boxes":
        from natix_roadwork.labeling.box_provider import LabelBoxProvider

        return LabelBoxProvider
    if name == "label_masks":
        from natix_roadwork.labeling.instance_provider import LabelMaskProvider

        return LabelMaskProvider
    from natix_roadwork.labeling.ultralytics_provider import UltralyticsProvider

    return UltralyticsProvider

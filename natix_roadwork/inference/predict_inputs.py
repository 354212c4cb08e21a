"""What a member reads of a data set: the rows of the splits to predict, as photos or as cached tokens, with their metadata.

`predict.py` runs them through the model.
"""

from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.depth_source import RowDepths, find_depths
from natix_roadwork.data.extra_evidence import ExtraEvidence
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_key import FeatureOptions
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.metadata import MetadataInputs
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.data.text_vectors import TEXT_FOLDER, compute_text_vectors
from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments
from natix_roadwork.inference.member import Member
from natix_roadwork.inference.tta_transforms import PhotoTransforms
from natix_roadwork.training.depth_inputs import require_depth_view
from natix_roadwork.training.metadata_inputs import load_evidence, require_width


def load_predicted(
    settings: PredictArguments, state: PartialState, allow_lockbox: bool = False
) -> tuple[LoadedRows, dict[str, Dataset]]:
    """Load the data set, split as in training; of its splits, those to predict.

    Raises:
        ValueError: If the data cannot be used, or a split is not there, empty, or a lockbox that may not be predicted.
    """
    with state.main_process_first():
        rows = load_rows(
            settings.dataset_name,
            revision=settings.dataset_revision,
            **{key: getattr(settings, key) for key in ROW_KEYS},
        )
    for name in settings.splits:
        if not len(rows.splits.get(name, [])):
            raise ValueError(
                f"splits={settings.splits!r}: {settings.dataset_name!r} has no {name} rows, only "
                f"{ {split: len(found) for split, found in rows.splits.items()} }"
            )
        if name == "test" and rows.lockbox and not allow_lockbox:
            raise ValueError(
                f"splits={settings.splits!r}: the test split of {settings.dataset_name!r} is a lockbox, which is scored "
                "once for each published model, by publishing it; predict dev"
            )
    return rows, {name: rows.splits[name] for name in settings.splits}


def member_inputs(
    member: Member,
    splits: dict[str, Dataset],
    settings: PredictArguments,
    state: PartialState,
    depths: RowDepths | None = None,
) -> dict[str, PhotoRows] | dict[str, FeatureRows]:
    """Make what the member reads of each split: photos, or tokens from the cache, with the metadata of its config.

    Raises:
        ValueError: If the cache, or the text encoder, cannot be used.
    """
    metadata = read_metadata(member, splits, settings, state)
    if settings.feature_cache == "off":
        transforms = PhotoTransforms() if depths is None else None  # a depth map does not follow them
        return {
            name: PhotoRows(split, member.processor, metadata, transforms, depths=depths)
            for name, split in splits.items()
        }
    if member.model.view_selector is not None:
        raise ValueError(
            f"feature_cache={settings.feature_cache!r}: the model looks at a photo to choose its views, so its answers "
            "cannot come from cached tokens; set it to off"
        )
    options = FeatureOptions(
        dtype=settings.feature_dtype,
        precision=settings.precision(state.device),
        grid=member.model.config.has_mask_head,  # as the training kept them, so that one cache serves both
        depths=depths,
    )
    caches = {
        name: extract_features(
            split,
            member.model,
            member.processor,
            options,
            folder=None if settings.feature_cache == "auto" else Path(settings.feature_cache) / name,
            num_workers=settings.dataloader_num_workers,
            state=state,
            description=f"Backbone tokens of {name}",
        )
        for name, split in splits.items()
    }
    read = {"metadata": metadata, "grid": member.model.config.mask_evidence}
    return {name: FeatureRows(caches[name], split, **read) for name, split in splits.items()}


def member_depths(
    member: Member, splits: dict[str, Dataset], settings: PredictArguments, state: PartialState
) -> RowDepths | None:
    """Find the depth maps of the rows, where the settings name a folder; None = the member answers without depth.

    Raises:
        ValueError: If a map is bad or there is none, or the member has no depth view.
    """
    require_depth_view(member.model.config, settings.depth_folder, f"model={settings.model!r}")
    return None if settings.depth_folder is None else find_depths(splits, settings.depth_folder, state)


def read_metadata(
    member: Member, splits: dict[str, Dataset], settings: PredictArguments, state: PartialState
) -> MetadataInputs:
    """Prepare the metadata that the member's config names; texts get their vectors once, on the main process.

    Raises:
        ValueError: If the text encoder cannot be used.
    """
    own = settings.feature_cache not in ("off", "auto")
    with state.main_process_first():
        return member_metadata(
            member,
            list(splits.values()),
            settings.text_encoder_id,
            folder=Path(settings.feature_cache) / TEXT_FOLDER if own else None,
            extra_evidence=load_member_evidence(member, splits, settings.extra_evidence),
        )


def member_metadata(
    member: Member,
    rows: Sequence[Dataset],
    text_encoder_id: str,
    folder: Path | None = None,
    extra_evidence: ExtraEvidence | None = None,
) -> MetadataInputs:
    """Make what reads the metadata that a member's config names; the texts of these rows get their vectors.

    Args:
        member: The member.
        rows: All rows that will be read.
        text_encoder_id: Reads the field `text`, where the member does.
        folder: Where the vectors are kept; None = in the datasets cache.
        extra_evidence: What a detector found in the photos, where the member reads it; None = missing.

    Raises:
        ValueError: If the text encoder cannot be used.
    """
    config, vectors = member.model.config, None
    if "text" in config.metadata_fields:
        texts = {text for part in rows for text in part["text"][:]}
        vectors = compute_text_vectors(texts, text_encoder_id, folder=folder, device=str(member.model.device))
    return MetadataInputs(tuple(config.metadata_fields), config.vocabularies, vectors, extra_evidence=extra_evidence)


def load_member_evidence(member: Member, splits: dict[str, Dataset], path: str | None) -> ExtraEvidence | None:
    """Read the file of figures that a member was trained to read; None where it reads none, or there is no file.

    Raises:
        ValueError: If the file cannot be used, holds other figures than the member reads, or the member reads none.
    """
    require_width(path, member.model.config.extra_evidence_size)
    return load_evidence(path, splits)

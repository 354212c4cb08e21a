"""What fold adapters start from: the base with its record, the target rows as model inputs, the folds.

In come the settings; `finetuning.py` trains on what comes out.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import bfloat16, float32
from transformers.utils import cached_file, logging

from natix_roadwork.data.dataset import LoadedRows, load_rows
from natix_roadwork.data.feature_cache import extract_features
from natix_roadwork.data.feature_key import FeatureOptions
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.mask_labels import extract_mask_labels
from natix_roadwork.data.metadata import MetadataInputs
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.data.predictions import BASE_LEARNED_FROM, LEARNED_FROM
from natix_roadwork.model.checkpoint import is_hub_id
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.runs import RESULT_NAME, RunResult, read_result
from natix_roadwork.training.adapter_files import BaseIdentity, identify
from natix_roadwork.training.adapters import AdapterChoice, choose_adapter, set_dropout
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.dark_rows import DarkRows, choose_dark_rows
from natix_roadwork.training.depth_inputs import depth_inputs, require_depth_view
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.fold_targets import (
    FOLDS_NAME,
    OWN_SPLITS,
    TRANSDUCTIVE,
    FoldParts,
    FoldTarget,
    choose_target,
    cut_folds,
    folds_record,
    keep_folds,
)
from natix_roadwork.training.four_bit import quantize_backbone
from natix_roadwork.training.mask_inputs import mask_inputs
from natix_roadwork.training.metadata_inputs import metadata_inputs, require_width
from natix_roadwork.training.pretrain_inputs import train_augmentation
from natix_roadwork.training.pretraining import warnings_about
from natix_roadwork.training.token_inputs import feature_folder
from natix_roadwork.training.yaml_args import known_keys


logger = logging.get_logger(__name__)

FEW_TO_CHOOSE = 10  # rows of a class
BY_ROW = ("mask_folder", "depth_folder", "extra_evidence")  # named by the ids of the rows they were made of
LIKELY_LEARNED_FROM = ("train", "dev")  # of a base that does not say


@dataclass(frozen=True)
class TrainedBase:
    """A trained model, its processor, who it is, and its `result.json` where there is one."""

    model: RoadworkForImageClassification
    processor: RoadworkImageProcessor
    identity: BaseIdentity
    result: RunResult | None

    @property
    def learned_from(self) -> list[str] | None:
        """Splits whose labels trained it or chose its epoch; None = it does not say."""
        found = None if self.result is None else self.result.details.get(LEARNED_FROM)
        return None if found is None else list(found)


@dataclass(frozen=True)
class FinetuneInputs:
    """Everything the folds are trained on.

    Attributes:
        base: The trained model, its dropout set for the fine-tuning.
        loaded: The data set that was loaded.
        target: The rows that are cut into folds.
        rows: The same rows as model inputs.
        parts: The folds.
        choice: The kind of adapter.
        warnings: What a reader of the scores must know.
        dark: Which target rows are dark, where their brightness decides how often they are trained on.
    """

    base: TrainedBase
    loaded: LoadedRows
    target: FoldTarget
    rows: FeatureRows | PhotoRows
    parts: list[FoldParts]
    choice: AdapterChoice
    warnings: list[str]
    dark: DarkRows | None = None


def prepare_folds(settings: FinetuneArguments, args: RoadworkTrainingArguments) -> FinetuneInputs:
    """Load the base and the target rows, cut the folds, choose the adapter.

    Raises:
        ValueError: If base, data and settings do not fit together, or `output_dir` holds other folds.
        ImportError: If QLoRA is asked for without bitsandbytes.
    """
    base = load_base(settings)
    data = data_settings(settings, base)
    loaded = _load(data, base, args)
    target = choose_target(loaded, settings.fold_target, settings.use_lockbox)
    _check_splits(base, loaded, target)
    parts = cut_folds(target, settings.num_folds, settings.selection_share, args.seed)
    with args.main_process_first(desc="measuring brightness"):
        dark = choose_dark_rows(target.rows, settings)
    if dark is not None:
        parts = [dataclasses.replace(part, fit=dark.kept(part.fit)) for part in parts]
    choice = choose_adapter(base.model, settings.adapter_settings)
    if choice.kind == "qlora":
        quantize_backbone(base.model)
    record = folds_record(target, parts, base.identity, loaded.fingerprint, args.seed)
    with args.main_process_first(desc="checking the folds"):  # before the minutes that tokens may take
        keep_folds(Path(args.output_dir) / FOLDS_NAME, record)
    base.model.to(args.device)
    set_dropout(base.model, settings.dropout)
    rows = _model_inputs(base, target, data, args)
    warnings = _warnings(base, loaded, target, parts)
    if choice.kind == "qlora":
        warnings.append(
            "backbone in 4 bits, here and for the base's figures; in float32 both answer a little differently"
        )
    return FinetuneInputs(base, loaded, target, rows, parts, choice, warnings, dark)


def load_base(settings: FinetuneArguments) -> TrainedBase:
    """Load the trained model with its processor and its record, and hash its weights.

    Raises:
        ValueError: If its `result.json` cannot be read.
        OSError: If there is no such model.
    """
    name = settings.base_model
    elsewhere = {} if settings.backbone_id is None else {"backbone_id": settings.backbone_id}
    model = RoadworkForImageClassification.from_pretrained(name, **elsewhere)
    processor = RoadworkImageProcessor.from_pretrained(name)
    record = cached_file(name, RESULT_NAME, _raise_exceptions_for_missing_entries=False)
    shown = name if is_hub_id(name) else name.rstrip("/").rsplit("/", 1)[-1]
    return TrainedBase(model, processor, identify(model, shown), None if record is None else read_result(record))


def data_settings(settings: FinetuneArguments, base: TrainedBase) -> PretrainArguments:
    """Take what decides rows, splits and metadata from the base's record, and the rest from the settings.

    Raises:
        ValueError: If no data set is named, or augmentation and cache do not fit.
    """
    config = {} if base.result is None else base.result.config
    known = {key: value for key, value in config.items() if key in known_keys([PretrainArguments])}
    names = ("augmentation", "augment_per_view", "feature_cache", "feature_draws", "feature_dtype")
    known |= {name: getattr(settings, name) for name in names} | {"split_manifest": None}
    if settings.fold_target not in OWN_SPLITS:
        other = {"dataset_name": settings.fold_target, "dataset_revision": None, "groups_file": None}
        known |= other | dict.fromkeys(BY_ROW)
    elif settings.dataset_name is not None:
        known["dataset_name"] = settings.dataset_name
    own = {name: getattr(settings, name) for name in (*BY_ROW, "bad_masks")}
    known |= {name: value for name, value in own.items() if value is not None}
    if "dataset_name" not in known:
        raise ValueError(
            f"base_model={settings.base_model!r} has no {RESULT_NAME} that names its data set; name it by --dataset_name"
        )
    return PretrainArguments(**known)


def _load(data: PretrainArguments, base: TrainedBase, args: RoadworkTrainingArguments) -> LoadedRows:
    with args.main_process_first(desc="loading rows"):
        return load_rows(
            data.dataset_name,
            seed=_split_seed(data, base, args),
            dev_share=data.dev_share,
            max_megapixels=data.max_megapixels,
            verify_images=data.verify_images,
            revision=data.dataset_revision,
            consistency_filter=data.consistency_filter,
            near_duplicates=data.near_duplicates,
            groups_file=data.groups_file,
        )


def _split_seed(data: PretrainArguments, base: TrainedBase, args: RoadworkTrainingArguments) -> int:
    """Return the seed that drew the base's dev rows."""
    if data.split_seed is not None:
        return data.split_seed
    return args.seed if base.result is None else base.result.seed


def _check_splits(base: TrainedBase, loaded: LoadedRows, target: FoldTarget) -> None:
    """Refuse a dev or test that is not the one the base was trained beside: some of its rows may have trained it.

    A target set of its own must not be the base's data under its name: its train rows would count as unseen.
    """
    if base.result is None:
        return
    if target.name not in OWN_SPLITS:
        if base.result.data.get("fingerprint") == loaded.fingerprint:
            raise ValueError(
                f"fold_target={target.name!r} holds the rows that the base {base.identity.name!r} was trained on; give "
                "dev or test for one of its splits, or another data set"
            )
        return
    expected = base.result.details.get("splits", {}).get("sha256")
    if expected is not None and expected != loaded.manifest.sha256:
        raise ValueError(
            f"fold_target={target.name!r}: the splits of {loaded.dataset_name!r} are not those that the base "
            f"{base.identity.name!r} was trained with, so it may have learned from these very rows; give the data it was "
            "trained on by --dataset_name, or another data set as the target itself by --fold_target"
        )


def _model_inputs(
    base: TrainedBase, target: FoldTarget, data: PretrainArguments, args: RoadworkTrainingArguments
) -> FeatureRows | PhotoRows:
    config, folder = base.model.config, feature_folder(data)
    rows = {target.name: target.rows}
    known = (config.metadata_fields, config.vocabularies, config.loss_weights, data.text_encoder_id)
    require_width(data.extra_evidence, config.extra_evidence_size)
    metadata: MetadataInputs = metadata_inputs(rows, *known, args, folder, data.extra_evidence)
    mask_settings = dataclasses.replace(data, loss_weights=config.loss_weights, mask_size=config.mask_size)
    masks = mask_inputs(rows, mask_settings, args, required=False)
    require_depth_view(config, data.depth_folder, f"the base {base.identity.name!r}")
    depths = depth_inputs(rows, data, args)
    augmentation = train_augmentation(data, args.seed)
    if data.feature_cache == "off":
        views = RoadworkImageProcessor(**base.processor.settings() | {"do_normalize": False})
        return PhotoRows(target.rows, views, metadata, augmentation, masks, depths)
    name = "target" if target.name not in OWN_SPLITS else target.name
    draws, precision = data.feature_draws, bfloat16 if args.bf16 else float32
    shared: dict[str, Any] = {"num_workers": args.dataloader_num_workers, "state": args.distributed_state}
    cache = extract_features(
        target.rows,
        base.model,
        base.processor,
        FeatureOptions(draws, data.feature_dtype, precision, augmentation, config.has_mask_head, depths),
        # without draws the base's own tokens of the split serve
        folder=None if folder is None else Path(folder) / (f"{name}_draws" if draws else name),
        description=f"Backbone tokens of {name}",
        **shared,
    )
    labels = None
    if masks is not None:
        drawn = {"draws": draws, "augmentation": augmentation, "description": f"Mask labels of {name}"}
        labels = extract_mask_labels(target.rows, masks, base.processor, cache.folder, **drawn, **shared)
    return FeatureRows(cache, target.rows, seed=args.seed, metadata=metadata, mask_labels=labels)


def _warnings(base: TrainedBase, loaded: LoadedRows, target: FoldTarget, parts: list[FoldParts]) -> list[str]:
    found = warnings_about(loaded) if "dev" in loaded.splits else []
    fewest = min(np.bincount(target.labels[part.selection], minlength=2).min() for part in parts)
    if fewest < FEW_TO_CHOOSE:
        found.append(
            f"the epoch of some fold is chosen on {fewest} rows of a class, which is mostly chance; raise selection_share, "
            "or bring more rows"
        )
    if target.transductive:
        found.append(
            f"{TRANSDUCTIVE}: the adapters learned from labels of the set they are scored on ({target.name}), in other "
            "folds; a model that did not is no fair comparison"
        )
    if target.name not in OWN_SPLITS:
        found.append("whether the base was trained on photos of the target set is not checked")
    elif base.learned_from is None:
        found.append(
            "the base does not say which splits it learned from; if it chose its epoch on these rows, the out-of-fold "
            "figures are optimistic"
        )
    elif target.name in base.learned_from:
        found.append(
            f"the base chose its epoch on {target.name}, so the out-of-fold figures are optimistic, and so are the base's "
            "own; train it with selection_share above 0, which keeps dev untouched"
        )
    return found


def fold_record(inputs: FinetuneInputs) -> dict[str, Any]:
    """Return what a predictions file says of its member; of another data set, the base has seen no split."""
    taught = inputs.base.learned_from or list(LIKELY_LEARNED_FROM)
    return {
        LEARNED_FROM: taught,
        BASE_LEARNED_FROM: taught if inputs.target.name in OWN_SPLITS else [],
        "base": dataclasses.asdict(inputs.base.identity),
        "fold_target": inputs.target.name if inputs.target.name in OWN_SPLITS else "a target set of its own",
        "label": TRANSDUCTIVE if inputs.target.transductive else "",
        "num_folds": len(inputs.parts),
        "adapter": inputs.choice.kind,
        "data_fingerprint": inputs.loaded.fingerprint,
    }

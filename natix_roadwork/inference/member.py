"""A saved model as a member: its weights, its image processor, and what its training says of the rows.

In comes the name of a folder or Hub repository; out go the model, ready to predict, and the splits it has learned from.
`predict.py` reads them.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.predictions import LEARNED_FROM
from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments
from natix_roadwork.model.backbone import hash_weights
from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.runs import RESULT_NAME, RunResult, read_result
from natix_roadwork.training.adapter_files import WEIGHTS_FILE, BaseIdentity, adapter_folders, load_folders
from natix_roadwork.training.fold_targets import FOLDS_NAME, OWN_SPLITS


ALL_LEARNED = ["train", "dev"]
NOT_KNOWN = [*ALL_LEARNED, "test"]  # of a model without any record
# Fields of the config that say nothing of the answers: where files lay, who saved them, how they are loaded.
BOOKKEEPING = {
    *("_name_or_path", "architectures", "auto_map", "backbone_config", "backbone_id", "backbone_in_checkpoint"),
    *("backbone_revision", "dtype", "transformers_version", "view_chunk"),
}


@dataclass(frozen=True)
class Member:
    """A model that predicts.

    Attributes:
        model: In evaluation mode, float32.
        processor: Cuts the views it was trained on, as uint8.
        sha256: Hash of the weights, those of adapters aside.
        trained: Record of its training; None where there is none beside the model.
        adapted: The same model with the adapters of all folds on it; None without adapters.
        adapters: Hash of each adapter's weights, by name.
    """

    model: RoadworkForImageClassification
    processor: RoadworkImageProcessor
    sha256: str
    trained: RunResult | None = None
    adapted: PeftModel | None = None
    adapters: dict[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> RoadworkForImageClassification | PeftModel:
        """What predicts: the model, with its adapters where it has some."""
        return self.model if self.adapted is None else self.adapted

    def record(self) -> dict[str, Any]:
        """Return what of the member decides its answers, as JSON values."""
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in BOOKKEEPING}
        return {
            "model_sha256": self.sha256,
            "adapters": self.adapters,
            "config": config,
            "processor": self.processor.settings(),
        }


@dataclass(frozen=True)
class Lesson:
    """What a member has learned from.

    Attributes:
        splits: Splits of the rows at hand whose labels trained it or chose its epoch.
        warnings: What is not known for certain.
    """

    splits: list[str]
    warnings: list[str] = field(default_factory=list)


def load_member(name: str, device: torch.device | str = "cpu", adapters: str | None = None) -> Member:
    """Load a saved model with its image processor and the record of its training.

    Args:
        name: Folder, or Hub id.
        device: Where the model runs.
        adapters: Folder of fold adapters to put on it; None = the model as it is.

    Raises:
        ValueError: If there is no such model, it is another kind of model, has no processor, or the two do not fit; if
            the adapters belong to another model, or sit in its backbone.
    """
    try:
        kind = RoadworkConfig.get_config_dict(name)[0].get("model_type")
        if kind != RoadworkConfig.model_type:
            raise ValueError(
                f"model={name!r} is a model of type {kind!r}; give a folder that recipes/pretrain.py has written"
            )
        model = RoadworkForImageClassification.from_pretrained(name, dtype=torch.float32)
        saved = RoadworkImageProcessor.from_pretrained(name)
    except OSError as error:
        raise ValueError(
            f"model={name!r}: no model with its image processor in a folder of that name, and none to be had from the "
            f"Hub ({' '.join(str(error).split())[:200]}); give the output_dir of a finished training"
        ) from error
    if saved.num_views != model.config.photo_views:
        raise ValueError(
            f"model={name!r}: its image processor cuts {saved.num_views} views ({saved.view_layout}), its config says "
            f"num_views={model.config.num_views}, depth_view={model.config.depth_view}; save both from one training"
        )
    processor = RoadworkImageProcessor(**saved.settings() | {"do_normalize": False})
    path = Path(name) / RESULT_NAME
    trained = read_result(path) if path.is_file() else None
    model, sha256 = model.to(device).eval(), hash_weights(model)
    if adapters is None:
        return Member(model, processor, sha256, trained)
    folders = adapter_folders(adapters)
    adapted = load_folders(model, folders, BaseIdentity(name, sha256))
    if any(isinstance(part, BaseTunerLayer) for part in model.backbone.modules()):
        raise ValueError(
            f"adapters={adapters!r}: they change the backbone, so that each needs tokens of its own; merge them by "
            "recipes/soup.py and predict with that model"
        )
    hashes = {name: hashlib.sha256((path / WEIGHTS_FILE).read_bytes()).hexdigest() for name, path in folders.items()}
    return Member(model, processor, sha256, trained, adapted, hashes)


def lesson_of(member: Member, rows: LoadedRows, settings: PredictArguments) -> Lesson:
    """Tell which splits of the rows the member has learned from.

    The training's own word counts only for the rows it saw, split as they were: with other rows, train and dev both count
    as learned from, so that no score passes for one of unseen rows.

    Raises:
        ValueError: If they are the training's data, but split otherwise; the keys that differ are named.
    """
    lesson = recorded_lesson(member.trained, rows, settings)
    if settings.adapters is None:
        return lesson
    taught = _adapter_target(settings.adapters)
    return Lesson([*lesson.splits, *(split for split in taught if split not in lesson.splits)], lesson.warnings)


def _adapter_target(adapters: str) -> list[str]:
    """Splits whose rows the adapters may have learned from; the manifest of their folds tells."""
    path = Path(adapters).resolve().parent / FOLDS_NAME
    target = json.loads(path.read_text(encoding="utf-8"))["fold_target"] if path.is_file() else ""
    return [target] if target in OWN_SPLITS else NOT_KNOWN


def recorded_lesson(trained: RunResult | None, rows: LoadedRows, settings: PredictArguments) -> Lesson:
    """Tell what the record of a model's training says of the rows, as `lesson_of`, adapters aside.

    Raises:
        ValueError: As `lesson_of`.
    """
    if trained is None:
        warning = (
            f"{settings.model} has no {RESULT_NAME} that says what it learned from; {NOT_KNOWN} count as learned from"
        )
        return Lesson(NOT_KNOWN, [warning])
    if trained.data.get("fingerprint") != rows.fingerprint:
        if trained.data.get("name") == rows.dataset_name:
            _refuse_other_splits(trained, settings)
        # What else the record names, such as the test split that the folds of a soup were cut from, counts too.
        splits = list(dict.fromkeys([*ALL_LEARNED, *trained.details.get(LEARNED_FROM, [])]))
        return Lesson(
            splits, [f"the rows are not those {settings.model} was trained on; {splits} count as learned from"]
        )
    if LEARNED_FROM not in trained.details:
        warning = f"the {RESULT_NAME} of {settings.model} does not say what it learned from; {ALL_LEARNED} count as learned from"
        return Lesson(ALL_LEARNED, [warning])
    return Lesson(list(trained.details[LEARNED_FROM]))


def _refuse_other_splits(trained: RunResult, settings: PredictArguments) -> None:
    there = {key: trained.config[key] for key in (*ROW_KEYS, "dataset_revision") if key in trained.config}
    if trained.config.get("split_seed") is not None:  # then that one drew the dev rows
        there["seed"] = trained.config["split_seed"]
    changed = [
        f"{key}={value!r} there, {getattr(settings, key)!r} now"
        for key, value in there.items()
        if value != getattr(settings, key)
    ]
    if changed:
        raise ValueError(
            f"dataset_name={settings.dataset_name!r} is split otherwise than in the training of {settings.model}, so its "
            f"dev rows may be rows it was trained on: {'; '.join(changed)}; give the values of the training"
        )

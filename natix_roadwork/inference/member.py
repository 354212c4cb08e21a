"""A saved model as a member: its weights, its image processor, and what its training says of the rows.

In comes the name of a folder or Hub repository; out go the model, ready to predict, and the splits it has learned from.
`predict.py` reads them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.predictions import LEARNED_FROM
from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments
from natix_roadwork.model.backbone import hash_weights
from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.runs import RESULT_NAME, RunResult, read_result


ALL_LEARNED = ["train", "dev"]
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
        trained: Record of its training; None where there is none beside the model.
    """

    model: RoadworkForImageClassification
    processor: RoadworkImageProcessor
    trained: RunResult | None = None

    def record(self) -> dict[str, Any]:
        """Return what of the member decides its answers, as JSON values."""
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in BOOKKEEPING}
        return {
            "model_sha256": hash_weights(self.model),
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


def load_member(name: str, device: torch.device | str = "cpu") -> Member:
    """Load a saved model with its image processor and the record of its training.

    Args:
        name: Folder, or Hub id.
        device: Where the model runs.

    Raises:
        ValueError: If there is no such model, it is another kind of model, has no processor, or the two do not fit.
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
    if saved.num_views != model.config.num_views:
        raise ValueError(
            f"model={name!r}: its image processor cuts {saved.num_views} views ({saved.view_layout}), its config says "
            f"num_views={model.config.num_views}; save both from one training"
        )
    processor = RoadworkImageProcessor(**saved.settings() | {"do_normalize": False})
    path = Path(name) / RESULT_NAME
    return Member(model.to(device).eval(), processor, read_result(path) if path.is_file() else None)


def lesson_of(member: Member, rows: LoadedRows, settings: PredictArguments) -> Lesson:
    """Tell which splits of the rows the member has learned from.

    The training's own word counts only for the rows it saw, split as they were: with other rows, train and dev both count
    as learned from, so that no score passes for one of unseen rows.

    Raises:
        ValueError: If they are the training's data, but split otherwise; the keys that differ are named.
    """
    trained, unknown = member.trained, f"{ALL_LEARNED} count as learned from"
    if trained is None:
        return Lesson(
            ALL_LEARNED, [f"{settings.model} has no {RESULT_NAME} that says what it learned from; {unknown}"]
        )
    if trained.data.get("fingerprint") != rows.fingerprint:
        if trained.data.get("name") == rows.dataset_name:
            _refuse_other_splits(trained, settings)
        return Lesson(ALL_LEARNED, [f"the rows are not those {settings.model} was trained on; {unknown}"])
    if LEARNED_FROM not in trained.details:
        return Lesson(
            ALL_LEARNED, [f"the {RESULT_NAME} of {settings.model} does not say what it learned from; {unknown}"]
        )
    return Lesson(list(trained.details[LEARNED_FROM]))


def _refuse_other_splits(trained: RunResult, settings: PredictArguments) -> None:
    keys = [key for key in (*ROW_KEYS, "dataset_revision") if key in trained.config]
    changed = [
        f"{key}={trained.config[key]!r} there, {getattr(settings, key)!r} now"
        for key in keys
        if trained.config[key] != getattr(settings, key)
    ]
    if changed:
        raise ValueError(
            f"dataset_name={settings.dataset_name!r} is split otherwise than in the training of {settings.model}, so its "
            f"dev rows may be rows it was trained on: {'; '.join(changed)}; give the values of the training"
        )

"""A saved member and photos to predict, for the tests of inference."""

import json
from pathlib import Path
from typing import Any

from natix_roadwork import RoadworkForImageClassification, RoadworkImageProcessor
from natix_roadwork.data.dataset import load_rows
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.runs import RunRecorder
from tests.recipe_photos import write_photos


def save_member(folder: Path, model: RoadworkForImageClassification, **processor: object) -> Path:
    """Save a model of 32-pixel views with its image processor, as a training does."""
    model.save_pretrained(folder)
    RoadworkImageProcessor(**{"view_size": 32, **processor}).save_pretrained(folder)
    return folder


def record_training(folder: Path, photos: Path, learned_from: list[str] | None = None, **config: object) -> None:
    """Write the `result.json` of a training on the photos beside a model."""
    settings = {"seed": 0, "near_duplicates": False, **config}
    with RunRecorder(settings, seed=settings["seed"]) as recorder:
        rows = load_rows(str(photos), **settings)
        recorder.data = rows.as_dict()
        recorder.details = {} if learned_from is None else {"learned_from": learned_from}
        recorder.write(folder)


def member_and_photos(folder: Path, saved: RoadworkForImageClassification, **settings: object) -> PredictArguments:
    """Settings that predict dev of a few photos in batches of four with a saved model."""
    if not (folder / "photos").is_dir():
        (folder / "photos").mkdir()
        write_photos(folder / "photos")
        save_member(folder / "model", saved)
    values: dict[str, Any] = {
        "model": str(folder / "model"),
        "dataset_name": str(folder / "photos"),
        "output_dir": str(folder / "run"),
        "near_duplicates": False,
        "per_device_eval_batch_size": 4,
        "seed": 0,
        "use_cpu": True,
    }
    return PredictArguments(**values | settings)


def result_of(settings: PredictArguments) -> dict[str, Any]:
    """Read a run's `result.json` as a reader does."""
    return json.loads((Path(settings.output_dir) / "result.json").read_text())

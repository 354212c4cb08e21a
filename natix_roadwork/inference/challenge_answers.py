"""A model folder asked one photo at a time, as a miner asks it: by transformers' image-classification pipeline.

In comes a folder, ours or any that the pipeline loads; out goes the probability of `Roadwork` for each picture, or -1
where a miner would have none. `simulation_run.py` sends validators' views, `hub/check.py` probe photos.
"""

import io
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from natix_roadwork.subnet.reward import NO_ANSWER, TIME_LIMIT


ROADWORK = "Roadwork"  # the label a stock miner looks up, letter by letter


@dataclass(frozen=True)
class Answer:
    """What a miner says of a picture.

    Attributes:
        probability: Probability of roadwork as the model gives it; -1 = no answer.
        seconds: How long it took, decoding included where bytes were given.
        error: Why there is no answer; empty where there is one.
    """

    probability: float
    seconds: float
    error: str = ""


class FolderAnswers:
    """The model of a folder with its own image processor; no code of the folder runs, no pickle is opened.

    Args:
        folder: Folder of weights, config and image processor.
        device: Where the model runs; a stock miner uses the CPU.

    Raises:
        ValueError: If the folder is not there, or transformers cannot load it.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu") -> None:
        """Load model and image processor."""
        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"model={str(folder)!r}: there is no such folder with a config.json; give a saved model")
        try:
            model = AutoModelForImageClassification.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ValueError(
                f"model={str(folder)!r} cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
        self.processor = processor
        self._pipeline = pipeline("image-classification", model=model, image_processor=processor, device=device)

    def __call__(self, picture: Image.Image | bytes) -> Answer:
        """Answer for one picture, or for the bytes of one as they come over the network."""
        started = time.perf_counter()
        try:
            photo = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
            scores = {entry["label"]: entry["score"] for entry in self._pipeline(photo)}
            probability, error = float(scores[ROADWORK]), ""
        except Exception as caught:  # as a miner: whatever goes wrong, its answer stays -1
            probability, error = NO_ANSWER, f"{type(caught).__name__}: {' '.join(str(caught).split())[:200]}"
        seconds = time.perf_counter() - started
        if seconds > TIME_LIMIT and not error:
            probability, error = NO_ANSWER, f"TimeLimit: more than {TIME_LIMIT:g} s"
        return Answer(probability, seconds, error)

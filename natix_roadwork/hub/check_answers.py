"""What a model's folder answers when it is loaded and asked as a stock miner asks: processor, pixels, probabilities, time.

In come a folder whose files have passed and probe photos; out go `Finding`s. Nothing of the folder is executed.
"""

import io
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork.hub.check_files import PROCESSOR, STOCK_PROCESSORS, declared_processor, read_json
from natix_roadwork.hub.findings import Finding
from natix_roadwork.inference.challenge_answers import Answer, FolderAnswers
from natix_roadwork.subnet.reward import NO_ANSWER, TIME_LIMIT


SLOW = TIME_LIMIT / 3  # seconds from which a slower machine may be too slow
MOST_GREY = 2.5  # largest difference of a pixel in grey levels that rounding explains: 1 to 2 between versions
_NAMED = 3  # photos in a finding


def check_answers(folder: Path, photos: dict[str, bytes]) -> list[Finding]:
    """Load a folder and ask it about every probe photo, on the CPU."""
    try:
        answers = FolderAnswers(folder)
    except ValueError as error:
        text = f"transformers {transformers.__version__}: {error}; every answer is -1"
        return [
            Finding("loading", "fail", text, "save model and image processor with save_pretrained, into one folder")
        ]
    sample = Image.open(io.BytesIO(next(iter(photos.values())))).convert("RGB")
    answers(next(iter(photos.values())))  # the first call also sets things up
    found = {name: answers(data) for name, data in photos.items()}
    return [check_pixels(folder, answers, sample), *check_probabilities(found), check_time(found)]


def check_pixels(folder: Path, answers: FolderAnswers, photo: Image.Image) -> Finding:
    """Compare the loaded class and its pixels with what the file says."""
    name, loaded = "image processor loaded", type(answers.processor).__name__
    settings = read_json(folder / PROCESSOR) or {}
    declared = declared_processor(settings)
    same = declared is not None and _family(loaded) == _family(declared)
    if declared is None and _family(loaded) != "ViTImageProcessor":
        return Finding(
            name, "warn", f"{loaded}, by the model's type: the file names no class; pixels are not compared"
        )
    if declared is not None and declared not in STOCK_PROCESSORS:
        status, text = ("pass", "as the file says") if same else ("warn", f"where the file says {declared}")
        return Finding(name, status, f"{loaded}, {text}; pixels are not compared")
    try:
        pixels = answers.processor(images=photo, return_tensors="pt")["pixel_values"][0].double().numpy()
        described, std = described_pixels(settings, photo)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Finding(name, "fail", f"{loaded} makes no pixels of a photo: {' '.join(str(error).split())[:200]}")
    fix = f"a miner sees the pixels of {loaded}; train on those, or save a model whose processor file counts"
    if pixels.shape != described.shape:
        return Finding(
            name, "fail", f"{loaded} gives pixels {pixels.shape}, the file describes {described.shape}", fix
        )
    apart = float(np.abs((pixels - described) * std * 255).max())
    text = f"{loaded}, at most {apart:.1f} grey levels from what the file describes"
    if apart > MOST_GREY:
        return Finding(name, "fail", text, fix)
    if not same and declared is not None:
        return Finding(name, "warn", f"{text}; the file says {declared}", fix)
    return Finding(name, "pass", text)


def described_pixels(settings: dict, photo: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Do with Pillow what a `ViTImageProcessor`'s file says; `(3, H, W)` and the deviation `(3, 1, 1)`."""
    size = settings.get("size", 224)
    width, height = (size, size) if isinstance(size, int) else (size.get("width", 224), size.get("height", 224))
    if settings.get("do_resize", True):
        photo = photo.resize((width, height), Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR)))
    pixels = np.asarray(photo, dtype=np.float64).transpose(2, 0, 1)
    mean, std = (np.broadcast_to(settings.get(key, 0.5), 3)[:, None, None] for key in ("image_mean", "image_std"))
    if settings.get("do_rescale", True):
        pixels = pixels * settings.get("rescale_factor", 1 / 255)
    if not settings.get("do_normalize", True):
        return pixels, np.ones((3, 1, 1))
    return (pixels - mean) / std, std


def check_probabilities(found: dict[str, Answer]) -> list[Finding]:
    """Look for answers that earn nothing: none at all, NaN, outside [0, 1], exactly 0.5, always the same."""
    name, values = "answers", [answer.probability for answer in found.values()]
    none = {photo: answer for photo, answer in found.items() if answer.probability == NO_ANSWER}
    if none:
        photo, answer = next(iter(none.items()))
        return [
            Finding(name, "fail", f"{len(none)} of {len(found)} photos have no answer (-1): {photo}: {answer.error}")
        ]
    wild = _photos(found, lambda value: not 0.0 <= value <= 1.0)
    if wild:
        text = f"{len(wild)} of {len(found)} answers are NaN or outside [0, 1] ({_some(found, wild)}): reward 0"
        return [Finding(name, "fail", f"{text}; a NaN also spoils the window of 100", "look for NaN in the weights")]
    ties = _photos(found, lambda value: value == 0.5)
    fix = "move the cut off the tie: calibration.fold_into_classifier"
    lines = []
    if len(ties) == len(found):
        lines.append(Finding("ties", "fail", "every answer is exactly 0.5, which counts as None", fix))
    elif ties:
        lines.append(
            Finding("ties", "warn", f"{len(ties)} of {len(found)} answers are exactly 0.5 ({_some(found, ties)})", fix)
        )
    else:
        lines.append(Finding("ties", "pass", "no answer is exactly 0.5"))
    text = f"{len(found)} photos, P(Roadwork) from {min(values):.4f} to {max(values):.4f}"
    if len(set(values)) == 1 and len(values) > 1:
        return [
            Finding(name, "warn", f"{text}: the same for every photo", "look whether the classifier was trained"),
            *lines,
        ]
    return [Finding(name, "pass", text), *lines]


def check_time(found: dict[str, Answer]) -> Finding:
    """Compare the time from JPEG bytes to answer with the validator's limit."""
    seconds = [answer.seconds for answer in found.values()]
    text = (
        f"{statistics.median(seconds):.2f} s a photo from its JPEG on {torch.get_num_threads()} CPU threads, {max(seconds):.2f} s "
        f"at most; validators wait {TIME_LIMIT:g} s"
    )
    fix = "distil into a smaller model"
    if max(seconds) > TIME_LIMIT:
        return Finding("time", "fail", f"{text}: -1", fix)
    return Finding("time", "warn" if max(seconds) > SLOW else "pass", text, fix if max(seconds) > SLOW else "")


def _family(name: str) -> str:
    """Return a class's name without the ending of its backend."""
    return name.removesuffix("Fast").removesuffix("Pil")


def _photos(found: dict[str, Answer], wanted: Callable[[float], bool]) -> list[str]:
    return [name for name, answer in found.items() if wanted(answer.probability)]


def _some(found: dict[str, Answer], names: list[str]) -> str:
    return ", ".join(f"{name}: {found[name].probability:g}" for name in names[:_NAMED])

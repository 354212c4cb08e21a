"""Whether what was published is what was trained: loaded back in a clean process and compared.

In come the folders of a publishing and its target; out go the differences, each in a line. `read_back.py` is the process:
empty caches, and the package hidden while the models are loaded.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import constants
from numpy.typing import ArrayLike, NDArray
from PIL import Image

import natix_roadwork
from natix_roadwork.data.scenes import SceneSettings, draw_scene
from natix_roadwork.hub import read_back
from natix_roadwork.hub.publish_arguments import PublishArguments
from natix_roadwork.hub.publish_targets import HubTarget, Target, without_token
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.roadwork_ensemble import RoadworkEnsemble
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.adapter_files import adapter_folders, load_adapters


TOLERANCE = 1e-4  # of a logit, float32, on one machine
NUM_PHOTOS = 3
PHOTO_WIDTH = 640
TIMEOUT_S = 3600  # a repository without its backbone has the backbone fetched anew
# What would let the process see this user's caches, or the package through the environment.
_HIDDEN_VARIABLES = ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HUGGINGFACE_HUB_CACHE", "PYTHONPATH")

Answers = dict[str, NDArray[np.float64]]


def expected_answers(arguments: PublishArguments, photos: list[str]) -> Answers:
    """Answer photos from the folders that are published: logits of each model and adapter, margins of the ensemble."""
    answers = {"model": _logits(arguments.model, photos)}
    if arguments.adapters is not None:
        model = RoadworkForImageClassification.from_pretrained(arguments.model, dtype=torch.float32)
        wearing, inputs = load_adapters(model, arguments.adapters), _inputs(arguments.model, photos)
        for name in adapter_folders(arguments.adapters):
            wearing.set_adapter(name, inference_mode=True)
            with torch.inference_mode():
                answers[f"adapters/{name}"] = wearing(**inputs).logits.double().numpy()
    answers |= {f"members/{name}": _logits(folder, photos) for name, (folder, _) in arguments.sources.items()}
    if arguments.ensemble is not None:
        ensemble = RoadworkEnsemble.from_members(Ensemble.load(arguments.ensemble), arguments.sources)
        logits = ensemble.logits(photos)
        margins = ensemble.ensemble.margins(logits)
        answers["ensemble"] = np.concatenate([margins[:, None], logits.reshape(len(logits), -1)], axis=1)
    return answers


def draw_photos(folder: Path) -> list[str]:
    """Draw a few scenes as files."""
    settings, paths = SceneSettings(num_rows=NUM_PHOTOS * 2, width=PHOTO_WIDTH, seed=7), []
    for number in range(NUM_PHOTOS):
        path = folder / f"photo{number}.png"
        Image.fromarray(draw_scene(number, settings).photo).save(path)
        paths.append(str(path))
    return paths


def differences(arguments: PublishArguments, target: Target, files: Mapping[str, str]) -> list[str]:
    """Load what was published in a clean process and name everything that differs.

    Args:
        arguments: What was published.
        target: Where it lies now.
        files: Hash of each file that was pushed.

    Raises:
        ValueError: If the process dies.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = draw_photos(folder)
        job = {
            "name": target.name,
            "is_repo": isinstance(target, HubTarget),
            "revision": target.revision or "main",
            "photos": photos,
            "files": list(files),
            "adapters": list(adapter_folders(arguments.adapters)) if arguments.adapters is not None else [],
            "members": list(arguments.sources),
            "package_root": str(Path(natix_roadwork.__file__).parents[1]),
        }
        found = run_clean(job, folder)
        return compare(expected_answers(arguments, photos), files, found)


def run_clean(job: Mapping[str, object], folder: Path) -> dict[str, dict]:
    """Run `read_back.py` with empty caches in a folder.

    Raises:
        ValueError: If it dies or takes too long.
    """
    asked, answered = folder / "job.json", folder / "answers.json"
    asked.write_text(json.dumps(job), encoding="utf-8")
    variables = {name: value for name, value in os.environ.items() if name not in _HIDDEN_VARIABLES}
    variables |= {"HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if not job[
        "is_repo"
    ]:  # nothing that was published is cached: a backbone that lies there need not be fetched again
        variables["HF_HUB_CACHE"] = constants.HF_HUB_CACHE
    command = [sys.executable, "-I", str(read_back.__file__), str(asked), str(answered)]
    try:
        process = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"loading {job['name']} back took more than {TIMEOUT_S} s; run the command again") from None
    if process.returncode or not answered.is_file():
        last = without_token(" ".join(process.stderr.split())[-400:])
        raise ValueError(f"the process that loads {job['name']} back died with code {process.returncode}: {last}")
    return json.loads(answered.read_text(encoding="utf-8"))


def compare(expected: Answers, files: Mapping[str, str], found: Mapping[str, Mapping]) -> list[str]:
    """Name what differs between what was trained and what was loaded back, one line each."""
    lines = [f"{name} cannot be loaded: {without_token(error)}" for name, error in found["errors"].items()]
    pushed = {name: sha256 for name, sha256 in files.items() if name in found["files"]}
    lines += [
        f"{name} has other bytes than were pushed" for name, sha256 in pushed.items() if found["files"][name] != sha256
    ]
    for name, wanted in expected.items():
        if name in found["answers"]:
            lines += _compare_logits(name, wanted, found["answers"][name])
        elif not any(name.startswith(failed) for failed in found["errors"]):
            lines.append(f"{name} was not answered")
    return lines


def _compare_logits(name: str, expected: NDArray[np.float64], found: ArrayLike) -> list[str]:
    values = np.asarray(found, dtype=np.float64)
    if values.shape != expected.shape:
        return [f"{name} answers with shape {values.shape}, expected {expected.shape}"]
    gaps = np.abs(values - expected)
    if not (gaps <= TOLERANCE).all():  # NaN is a difference
        photo = int(np.argmax(np.nan_to_num(gaps, nan=np.inf).max(axis=1)))
        pair = (np.round(row[photo], 5).tolist() for row in (values, expected))
        return ["{}: photo {} answers {}, expected {}".format(name, photo, *pair)]
    return []


def _inputs(folder: str, photos: list[str]) -> dict[str, torch.Tensor]:
    return dict(RoadworkImageProcessor.from_pretrained(folder)(photos, return_tensors="pt"))


def _logits(folder: str, photos: list[str]) -> NDArray[np.float64]:
    model = RoadworkForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(**_inputs(folder, photos)).logits.double().numpy()

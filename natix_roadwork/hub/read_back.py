"""Loads what was published as a stranger does, in a process of its own: `python -I read_back.py JOB ANSWERS`.

The job names the repository or folder, its revision, photos, and what to load; the answers hold the logits, the hash of
every file, and what went wrong. Until all of that is done, `import natix_roadwork` fails, so that the code of the model
comes from what was published; only then the ensemble is loaded, with the package.
"""

import hashlib
import importlib.abc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


PACKAGE = "natix_roadwork"
Logits = list[list[float]]


class NoPackage(importlib.abc.MetaPathFinder):
    """Makes the package look as if it were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse the package and its modules.

        Raises:
            ModuleNotFoundError: If the name is one of them.
        """
        if name.split(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Load everything that the job names; an error of one part is told and does not stop the others."""
    found: dict[str, Any] = {"answers": {}, "files": {}, "errors": {}}
    blocked = NoPackage()
    sys.meta_path.insert(0, blocked)
    for name in job["files"]:
        _try(found, name, lambda name=name: found["files"].update({name: file_hash(job, name)}))
    for name, folder in {"model": "", **{f"members/{name}": f"members/{name}" for name in job["members"]}}.items():
        _try(found, name, lambda folder=folder, name=name: found["answers"].update({name: model_logits(job, folder)}))
    if job["adapters"]:
        _try(found, "adapters", lambda: found["answers"].update(adapter_logits(job)))
    sys.meta_path.remove(blocked)
    if job["members"]:
        _try(found, "ensemble", lambda: found["answers"].update({"ensemble": ensemble_logits(job)}))
    return found


def file_hash(job: dict[str, Any], name: str) -> str:
    """Fetch a file, into an empty cache, and hash it."""
    path = Path(job["name"]) / name
    if job["is_repo"]:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(job["name"], name, revision=job["revision"]))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_logits(job: dict[str, Any], folder: str) -> Logits:
    """Logits `(N, 2)` of the model in a folder of the repository."""
    model, inputs = _model_and_inputs(job, folder)
    return _logits(model, inputs)


def adapter_logits(job: dict[str, Any]) -> dict[str, Logits]:
    """Logits of the model with each fold's adapter on it, by name."""
    from peft import PeftModel

    model, inputs = _model_and_inputs(job, "")
    options = {"revision": job["revision"]} if job["is_repo"] else {}
    first, *others = job["adapters"]
    wearing = PeftModel.from_pretrained(
        model, job["name"], adapter_name=first, subfolder=f"adapters/{first}", **options
    )
    for name in others:
        wearing.load_adapter(job["name"], adapter_name=name, subfolder=f"adapters/{name}", **options)
    answers = {}
    for name in job["adapters"]:
        wearing.set_adapter(name)
        answers[f"adapters/{name}"] = _logits(wearing.eval(), inputs)
    return answers


def ensemble_logits(job: dict[str, Any]) -> Logits:
    """Margins and members' logits of the ensemble, one line a photo."""
    sys.path.insert(0, job["package_root"])
    from natix_roadwork.inference.roadwork_ensemble import RoadworkEnsemble

    ensemble = RoadworkEnsemble.from_pretrained(job["name"], revision=job["revision"])
    logits = ensemble.logits(job["photos"])
    margins = ensemble.ensemble.margins(logits)
    return [
        [float(margin), *line] for margin, line in zip(margins, logits.reshape(len(logits), -1).tolist(), strict=True)
    ]


def _model_and_inputs(job: dict[str, Any], folder: str) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    options = {"revision": job["revision"], "subfolder": folder, "trust_remote_code": True}
    processor = AutoImageProcessor.from_pretrained(job["name"], **options)
    model = AutoModelForImageClassification.from_pretrained(job["name"], **options).eval()
    if type(model).__module__.split(".")[0] == PACKAGE:
        raise RuntimeError(f"the model's class is {type(model)}, not the published code")
    return model, processor(job["photos"], return_tensors="pt")


def _logits(model: Any, inputs: Any) -> Logits:  # noqa: ANN401 - classes of published code
    import torch

    with torch.inference_mode():
        return model(**inputs).logits.double().tolist()


def _try(found: dict[str, Any], name: str, load: Callable[[], None]) -> None:
    try:
        load()
    except Exception as error:  # whatever the published code raises is the finding
        found["errors"][name] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


if __name__ == "__main__":
    job_file, answers_file = sys.argv[1:]
    Path(answers_file).write_text(json.dumps(main(json.loads(Path(job_file).read_text()))))

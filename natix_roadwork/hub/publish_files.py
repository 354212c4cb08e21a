"""The files of a publishing, staged in one folder as the repository will hold them.

In come the folders of a training and of what followed it; out goes a folder of safetensors, JSON and the model's code.
Files are chosen by name, so that nothing else of a run leaves the machine. `publish.py` adds record and cards, and
`check_files` looks at all of it once more before it is pushed.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from natix_roadwork.calibration import AffineMap
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.hub.publish_arguments import PublishArguments
from natix_roadwork.hub.publish_paths import find_local_paths, scrub
from natix_roadwork.inference.ensemble import ENSEMBLE_NAME
from natix_roadwork.inference.feature_statistics import RECORD_NAME, TENSORS_NAME, load_statistics
from natix_roadwork.inference.roadwork_ensemble import ADAPTERS_FOLDER, MEMBERS_FOLDER, member_folder
from natix_roadwork.inference.tta_run import STATISTICS_FOLDER
from natix_roadwork.runs import RESULT_NAME
from natix_roadwork.training.adapter_files import BASE_FILE, WEIGHTS_FILE, adapter_folders


CALIBRATION_NAME = "calibration.json"
MODEL_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json", "*.py")
ADAPTER_FILES = (WEIGHTS_FILE, "adapter_config.json", BASE_FILE)
SUFFIXES = {".safetensors", ".json", ".jsonl", ".py", ".md"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
OWN_FOLDERS = (ADAPTERS_FOLDER, MEMBERS_FOLDER, STATISTICS_FOLDER)


def stage(arguments: PublishArguments, folder: Path) -> list[str]:
    """Copy everything that is published, but record and cards, into an empty folder.

    Returns:
        What of the model's own folder stays behind.

    Raises:
        ValueError: If a file is missing or damaged, or is not what it should be.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = Path(arguments.model)
    _copy_model(model, folder)
    if arguments.adapters is not None:
        _copy_adapters(arguments.adapters, folder / ADAPTERS_FOLDER, arguments.repo_id)
    if arguments.ensemble is not None:
        shutil.copyfile(_existing(arguments.ensemble), folder / ENSEMBLE_NAME)
    for name, (source, adapters) in arguments.sources.items():
        target = folder / member_folder(name)
        _copy_model(Path(source), target)
        if adapters is not None:
            _copy_adapters(adapters, target / ADAPTERS_FOLDER, None)
    if arguments.statistics is not None:
        _copy_statistics(Path(arguments.statistics), folder / STATISTICS_FOLDER)
    if arguments.calibration is not None:
        write_json_file(folder / CALIBRATION_NAME, vars(read_calibration(arguments.calibration)))
    return sorted(
        path.name for path in model.iterdir() if path.name != RESULT_NAME and not (folder / path.name).exists()
    )


def read_calibration(path: str) -> AffineMap:
    """Read a calibration: a JSON file of `scale` and `offset`, or the record of recipes/calibrate.py, which has a map.

    Raises:
        ValueError: If the file is neither, or the scale is not above 0.
    """
    try:
        content = json.loads(_existing(path).read_text(encoding="utf-8"))
        return AffineMap(**(content["details"]["map"] if "details" in content else content))
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(
            f'calibration={path!r} must hold {{"scale": ..., "offset": ...}} alone, or be the {RESULT_NAME} of '
            f"recipes/calibrate.py ({error!r})"
        ) from error


def write_json_file(path: Path, content: object) -> None:
    """Write readable JSON in UTF-8, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        path, (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    )


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by its name in the repository."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_files(folder: Path) -> None:
    """Refuse what must not be published: other kinds of files, damaged weights, paths of this machine.

    Raises:
        ValueError: The file is named, and the key where a path stands.
    """
    for name in file_hashes(folder):
        path = folder / name
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{name} would be published: only safetensors, JSON, code and cards are; take it away")
        for place in find_local_paths(_texts(path, name)):
            raise ValueError(
                f"{name} names a path of this machine, {place}; save the model anew, or take the path out of the file"
            )


def refuse_pickles(names: list[str], where: str) -> None:
    """Refuse a place that already holds files which run code when they are loaded.

    Raises:
        ValueError: The files are named.
    """
    found = sorted(name for name in names if Path(name).suffix in PICKLES)
    if found:
        raise ValueError(f"{where} holds {', '.join(found)}, which run code when they are loaded; delete them first")


def _texts(path: Path, name: str) -> Any:  # noqa: ANN401 - any JSON value
    """What of a file may name a path, as a JSON value."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{name} is no whole safetensors file ({error}); save it anew") from error
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is no JSON: {error}") from error
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return text.splitlines() if path.suffix == ".md" else []


def _copy_model(source: Path, target: Path) -> None:
    """Copy a model's config, processor, weights and code."""
    found = [path for pattern in MODEL_FILES for path in sorted(source.glob(pattern)) if path.is_file()]
    names = {path.name for path in found}
    wanted = ("config.json", "preprocessor_config.json", "configuration_roadwork.py")
    missing = [name for name in wanted if name not in names]
    if missing or not any(path.suffix == ".safetensors" for path in found):
        raise ValueError(
            f"{source} lacks {missing or 'weights as safetensors'}: it is no folder that recipes/pretrain.py has written"
        )
    target.mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copyfile(path, target / path.name)


def _copy_adapters(source: str, target: Path, base: str | None) -> None:
    """Copy fold adapters; `base` is the repository in which their base will lie beside them."""
    for name, folder in adapter_folders(source).items():
        (target / name).mkdir(parents=True)
        for file in ADAPTER_FILES:
            shutil.copyfile(_existing(folder / file), target / name / file)
        if base is not None:
            for file, key in (("adapter_config.json", "base_model_name_or_path"), (BASE_FILE, "name")):
                content = json.loads((target / name / file).read_text(encoding="utf-8"))
                write_json_file(target / name / file, content | {key: base})


def _copy_statistics(source: Path, target: Path) -> None:
    """Copy the feature statistics of members, and what recipes/tta.py chose, without paths."""
    if source.is_file():
        source = source.parent
    root = source / STATISTICS_FOLDER if (source / STATISTICS_FOLDER).is_dir() else source
    found = sorted(path.parent for path in root.rglob(RECORD_NAME))
    if not found:
        raise ValueError(f"statistics={str(source)!r} holds no {RECORD_NAME}; give the output_dir of recipes/tta.py")
    for folder in found:
        load_statistics(folder)
        own = target / folder.relative_to(root)
        own.mkdir(parents=True, exist_ok=True)
        for name in (RECORD_NAME, TENSORS_NAME):
            shutil.copyfile(folder / name, own / name)
    choice = root.parent / RESULT_NAME
    if root != source and choice.is_file():
        write_json_file(target / RESULT_NAME, scrub(json.loads(choice.read_text(encoding="utf-8"))))


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist")
    return Path(path)

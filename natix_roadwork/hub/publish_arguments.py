"""Settings of a publishing: what `recipes/publish.py` and `natix-roadwork publish` read from YAML and command line."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


LOG_NAME = "lockbox_log.jsonl"
SUBNET_REPO_ID = re.compile(r"[\w\-]+/[\w\-]+(?:/[\w\-/]*)?")


@dataclass
class PublishArguments:
    """What is published, and where.

    Attributes:
        model: Folder of a trained model, with its image processor and the `result.json` of its training.
        repo_id: Hub repository, `owner/name`; the token is read from HF_TOKEN, the Hub's address from HF_ENDPOINT. Either
            this or `folder`.
        folder: Local folder that becomes what the repository would be.
        adapters: Folder `adapters` of a fold fine-tuning of this model.
        ensemble: `ensemble.json` of recipes/ensemble.py.
        members: Folder of each of the ensemble's members by its name, a mapping in YAML, JSON on the command line.
        member_adapters: Folder `adapters` of those members that are a model with fold adapters, by the member's name.
        statistics: `output_dir` of recipes/tta.py, its folder `statistics`, or a file of one member's statistics.
        calibration: `result.json` of recipes/calibrate.py, or a JSON file with `scale` and `offset`, which map the model's
            margin. The calibrated copy that the recipe leaves is published as `model` itself.
        report: JSON file beside the page of recipes/report.py; its slices go into the card.
        name: Name in the card; None = the last part of `repo_id` or `folder`.
        version: Of the published model, `X.Y.Z`.
        hotkey: SS58 address of the wallet that submits the model to the subnet; without it no `model_card.json` is written.
        private: Whether a new repository is private; the subnet reads public ones only.
        score_lockbox: Whether the test split is scored, once for these weights, and the score published with them.
        dataset_name: Place of the training's data set; None = where the training found it. All its other keys are the
            training's.
        output_dir: Folder of what is staged, of the lockbox' predictions and of the record of the publishing.
        lockbox_log: JSON lines of every scoring of a lockbox; None = `lockbox_log.jsonl` beside the published folder, or
            beside `output_dir` for a repository. Keep one file for all models.
        feature_cache: As in recipes/predict.py.
        per_device_eval_batch_size: As there.
        dataloader_num_workers: As there.
        bf16: As there.
        use_cpu: Score on the CPU although there is a GPU.
    """

    model: str = field(metadata={"help": "Folder of a trained model."})
    repo_id: str | None = field(default=None, metadata={"help": "Hub repository, owner/name."})
    folder: str | None = field(default=None, metadata={"help": "Local folder to publish into."})
    # Parts
    adapters: str | None = field(default=None, metadata={"help": "Folder of the model's fold adapters."})
    ensemble: str | None = field(default=None, metadata={"help": "ensemble.json of recipes/ensemble.py."})
    members: str | None = field(default=None, metadata={"help": "JSON mapping of a member to its folder."})
    member_adapters: str | None = field(default=None, metadata={"help": "JSON mapping of a member to its adapters."})
    statistics: str | None = field(default=None, metadata={"help": "output_dir of recipes/tta.py."})
    calibration: str | None = field(
        default=None, metadata={"help": "result.json of recipes/calibrate.py, or scale and offset as JSON."}
    )
    report: str | None = field(default=None, metadata={"help": "JSON file of recipes/report.py."})
    # Card
    name: str | None = field(default=None, metadata={"help": "Name in the card."})
    version: str = field(default="0.1.0", metadata={"help": "Version, X.Y.Z."})
    hotkey: str | None = field(default=None, metadata={"help": "SS58 address for the subnet's model_card.json."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    # Lockbox
    score_lockbox: bool = field(default=True, metadata={"help": "Score the test split once."})
    dataset_name: str | None = field(default=None, metadata={"help": "Place of the training's data set."})
    lockbox_log: str | None = field(default=None, metadata={"help": "JSON lines of every scoring."})
    feature_cache: str = field(default="off", metadata={"help": "off, auto, or a folder."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Photos that go through the head together."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Processes that decode photos."})
    bf16: bool | None = field(default=None, metadata={"help": "The backbone in bfloat16; None: where a GPU has it."})
    use_cpu: bool = field(default=False, metadata={"help": "Score on the CPU although there is a GPU."})
    # Run
    output_dir: str = field(default="runs/publish", metadata={"help": "Folder of staged files and the record."})

    def __post_init__(self) -> None:
        """Check the values and fill in the name.

        Raises:
            ValueError: If a value cannot be used; the message names the key and its value.
        """
        if (self.repo_id is None) == (self.folder is None):
            raise ValueError(
                f"repo_id={self.repo_id!r} and folder={self.folder!r}: give one, a Hub repository or a local folder"
            )
        if self.repo_id is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo_id):
            raise ValueError(f"repo_id={self.repo_id!r} is no repository of the Hub; give owner/name")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise ValueError(f"version={self.version!r} must be three numbers, X.Y.Z")
        if self.hotkey is not None and not re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{46,48}", self.hotkey):
            raise ValueError(f"hotkey={self.hotkey!r} is no SS58 address: 46 to 48 characters of base 58")
        self.member_folders, self.adapter_folders = (
            _folders(name, getattr(self, name)) for name in ("members", "member_adapters")
        )
        if bool(self.member_folders) != (self.ensemble is not None):
            raise ValueError(
                f"ensemble={self.ensemble!r} and members={self.members!r} belong together: give both, a folder for each "
                "member, or none"
            )
        unknown = sorted(set(self.adapter_folders) - set(self.member_folders))
        if unknown:
            raise ValueError(f"member_adapters: {unknown} are not among the members {sorted(self.member_folders)}")
        if self.name is None:
            self.name = (self.repo_id or str(Path(str(self.folder)).resolve())).rsplit("/", 1)[-1]

    @property
    def log_path(self) -> Path:
        """Where every scoring of a lockbox is noted."""
        if self.lockbox_log is not None:
            return Path(self.lockbox_log)
        return Path(self.folder or self.output_dir).resolve().parent / LOG_NAME

    @property
    def sources(self) -> dict[str, tuple[str, str | None]]:
        """Folders of each member's model and of its adapters, by the member's name."""
        return {name: (folder, self.adapter_folders.get(name)) for name, folder in self.member_folders.items()}


def _folders(key: str, value: str | dict[str, str] | None) -> dict[str, str]:
    """Read a mapping of names to folders, as YAML or a command line gives it."""
    try:
        found = json.loads(value) if isinstance(value, str) else value or {}
    except json.JSONDecodeError as error:
        raise ValueError(f'{key}={value!r} is no JSON such as {{"first": "runs/first"}}: {error}') from None
    if not isinstance(found, dict) or not all(isinstance(folder, str) for folder in found.values()):
        raise ValueError(f"{key}={value!r} must map the names of members to folders")
    return found

"""A weight soup as a model folder: fold adapters of one model, or members that began alike, averaged and saved.

`recipes/soup.py` calls `run_soup`. The record beside the weights says of which data which splits taught any of them, so that
`recipes/predict.py` treats the soup as it does every member.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from natix_roadwork.data.predictions import LEARNED_FROM
from natix_roadwork.inference.member import ALL_LEARNED, NOT_KNOWN, Member, load_member
from natix_roadwork.inference.soups import weight_soup
from natix_roadwork.model.backbone import hash_weights
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, read_result
from natix_roadwork.training.adapter_files import WEIGHTS_FILE, adapter_folders, merged_soup
from natix_roadwork.training.fold_targets import FOLDS_NAME, OWN_SPLITS
from natix_roadwork.training.pretraining import INITIALISED_FROM


SOUP_OF, SPLITS = "soup_of", "splits"


@dataclass
class SoupArguments:
    """What is averaged: the fold adapters of `model`, or the members `models`.

    Attributes:
        model: Folder or Hub id of the model that `adapters` were trained on.
        adapters: Folder `adapters` of a fold fine-tuning; each is merged into the model before.
        models: Folders of members that were trained from the same weights, two or more.
        output_dir: Folder of the soup and its `result.json`.
    """

    model: str | None = field(default=None, metadata={"help": "Model that the fold adapters were trained on."})
    adapters: str | None = field(default=None, metadata={"help": "Folder of fold adapters of that model."})
    models: list[str] = field(default_factory=list, metadata={"help": "Folders of members that began alike."})
    output_dir: str = field(default="runs/soup", metadata={"help": "Folder of the averaged model."})

    def __post_init__(self) -> None:
        """Check the values before any file is read.

        Raises:
            ValueError: If it is not said what is averaged, or one of the models would be overwritten.
        """
        if self.models and (self.model or self.adapters):
            raise ValueError("models is one way, model with adapters another; give one of the two")
        if not self.models and not (self.model and self.adapters):
            raise ValueError(
                f"model={self.model!r} and adapters={self.adapters!r} go together; give both, or several models"
            )
        read = [Path(name).resolve() for name in (*self.models, *filter(None, (self.model, self.adapters)))]
        if Path(self.output_dir).resolve() in read:
            raise ValueError(f"output_dir={self.output_dir!r} is a folder that is read; choose another")
        twice = sorted({str(path) for path in read if read.count(path) > 1})
        if twice:
            raise ValueError(f"models={self.models} names {twice[0]} twice; give each member once")


@dataclass(frozen=True)
class Soup:
    """An averaged model and what is known of it.

    Attributes:
        model: The model.
        processor: Folder or Hub id of the image processor it goes with.
        parts: What was averaged, by name: the hash of its weights.
        began: What the parts started from, by `INITIALISED_FROM`.
        trained: Record of the training it continues; None where there is none.
        data: The data that `learned_from` speaks of, as a run records it.
        learned_from: Splits of this data whose labels taught any part.
        warnings: What a reader must know.
    """

    model: RoadworkForImageClassification
    processor: str
    parts: Mapping[str, str]
    began: str
    trained: RunResult | None
    data: Mapping[str, Any]
    learned_from: Sequence[str]
    warnings: Sequence[str] = ()


def run_soup(arguments: SoupArguments) -> RunResult:
    """Average, save the model with its image processor, and record what it learned from.

    Raises:
        ValueError: If a model or adapter cannot be loaded, or they do not fit together; they are named.
    """
    with RunRecorder(asdict(arguments), 0) as recorder:  # nothing is drawn here
        if arguments.models:
            soup = _members_soup(arguments.models)
        else:
            soup = _adapter_soup(str(arguments.model), str(arguments.adapters))
        _keep_backbone(soup.model)
        soup.model.save_pretrained(arguments.output_dir)
        RoadworkImageProcessor.from_pretrained(soup.processor).save_pretrained(arguments.output_dir)
        trained = soup.trained
        if trained is not None:
            # What reads a model next (predict.py, finetune_folds.py, report.py) asks its record for the training's keys.
            recorder.config, recorder.seed = trained.config | asdict(arguments), trained.seed
        recorder.data = dict(soup.data)
        recorder.details = {
            SOUP_OF: dict(soup.parts),
            "model_sha256": hash_weights(soup.model),
            INITIALISED_FROM: soup.began,
            LEARNED_FROM: sorted(soup.learned_from),
        }
        if trained is not None and SPLITS in trained.details and dict(soup.data) == trained.data:
            recorder.details[SPLITS] = trained.details[SPLITS]
        recorder.warnings += soup.warnings
        recorder.write(arguments.output_dir)
        return recorder.result()


def soup_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a soup: what it is made of, what taught it, and where it lies."""
    details = result.details
    lines = [
        f"average of {len(details[SOUP_OF])}: {', '.join(details[SOUP_OF])}",
        f"learned from {', '.join(details[LEARNED_FROM])} of {result.data.get('name') or 'data without a name'}",
        f"model, image processor, result.json: {output_dir}; recipes/predict.py says what it answers",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _adapter_soup(model: str, adapters: str) -> Soup:
    """Merge each fold's adapter into its base, and average."""
    base = load_member(model)
    hashes = {name: _file_hash(path) for name, path in adapter_folders(adapters).items()}
    learned, warnings = _learned_from(base, model)
    data = {} if base.trained is None else base.trained.data
    folds = Path(adapters).resolve().parent / FOLDS_NAME
    if not folds.is_file():
        raise ValueError(
            f"adapters={adapters!r} lies beside no {FOLDS_NAME}, so nothing says which rows they learned from; give the folder "
            "inside its run's output_dir"
        )
    record = json.loads(folds.read_text(encoding="utf-8"))
    if record["data_fingerprint"] != data.get("fingerprint"):
        data = _target_data(folds.parent, record["data_fingerprint"])
    target = record["fold_target"]
    learned |= {target} if target in OWN_SPLITS else set(NOT_KNOWN)
    soup = merged_soup(base.model, adapters)
    return Soup(soup, model, hashes, base.sha256, base.trained, data, sorted(learned), warnings)


def _members_soup(names: Sequence[str]) -> Soup:
    """Average whole models that began alike, were trained on the same data and cut the same views."""
    members = {name: load_member(name) for name in names}
    began = {name: _began(member) for name, member in members.items()}
    soup = weight_soup({name: member.model for name, member in members.items()}, began)
    first = next(iter(names))
    learned: set[str] = set()
    warnings: list[str] = []
    for name, member in members.items():
        _require_alike(first, members[first], name, member)
        splits, unknown = _learned_from(member, name)
        learned |= splits
        warnings += unknown
    trained = members[first].trained
    hashes = {name: member.sha256 for name, member in members.items()}
    return Soup(soup, first, hashes, began[first], trained, trained.data if trained else {}, sorted(learned), warnings)


def _began(member: Member) -> str:
    """What a member's training started from; empty where its record does not say."""
    return "" if member.trained is None else member.trained.details.get(INITIALISED_FROM) or ""


def _learned_from(member: Member, name: str) -> tuple[set[str], list[str]]:
    """Splits that taught a member, and a warning where its record does not say."""
    if member.trained is not None and LEARNED_FROM in member.trained.details:
        return set(member.trained.details[LEARNED_FROM]), []
    unknown = NOT_KNOWN if member.trained is None else ALL_LEARNED
    return set(unknown), [
        f"{name} has no {RESULT_NAME} that says what it learned from; {unknown} count as learned from"
    ]


def _require_alike(first: str, expected: Member, name: str, member: Member) -> None:
    if member.processor.settings() != expected.processor.settings():
        raise ValueError(f"members {first!r} and {name!r} have image processors that cut other views")
    fingerprints = [side.trained.data.get("fingerprint") if side.trained else None for side in (expected, member)]
    if fingerprints[0] != fingerprints[1]:
        raise ValueError(
            f"members {first!r} and {name!r} were trained on other data, or the same split otherwise, so that no split is "
            "unseen by both; train them on the same splits"
        )


def _target_data(folder: Path, fingerprint: str) -> dict[str, Any]:
    """The data that a fold fine-tuning adapted to, where it is not that of the base."""
    path = folder / RESULT_NAME
    found = read_result(path).data if path.is_file() else {}
    return found if found.get("fingerprint") == fingerprint else {"name": None, "fingerprint": fingerprint}


def _keep_backbone(model: RoadworkForImageClassification) -> None:
    """Let a backbone that adapters have changed be saved with the soup, instead of fetched again as it was."""
    if model.backbone_hash() != model.config.backbone_sha256:
        model.config.backbone_id = model.config.backbone_revision = model.config.backbone_sha256 = None


def _file_hash(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()

"""The members of an ensemble as data: which recipes, with which settings, and which of them are trained already.

In comes `recipes/ensemble/members.yaml` with a command line; out go members, each with the command line of its own run of
`recipes/pretrain.py`. `training/member_runs.py` runs them, `training/member_report.py` tells what came out.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natix_roadwork.data.feature_key import differences
from natix_roadwork.data.feature_shards import write_json
from natix_roadwork.data.split_manifest import MANIFEST_NAME
from natix_roadwork.runs import RESULT_NAME, read_result
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.pretraining import resolved_config
from natix_roadwork.training.yaml_args import (
    RecipeError,
    RecipeParser,
    as_arguments,
    known_keys,
    nearest_key,
    parse_recipe,
    read_mapping,
    read_recipe,
)


MEMBER_NAME = "member.json"
MEMBERS_KEY, RECIPE_KEY = "members", "recipe"
# What a member's settings may differ in and still be the same training: places, and how it is shown.
PLACES = frozenset(
    {
        "output_dir",
        "existing_run",
        "feature_cache",
        "split_manifest",
        "disable_tqdm",
        "use_cpu",
        "report_to",
        "run_name",
    }
    | {"dataloader_num_workers", "dataloader_pin_memory", "local_rank", "hub_token"}
)
# What decides the backbone's tokens. A setting that is forgotten here is found by the cache itself, which then refuses.
TOKEN_SETTINGS = (
    *("dataset_name", "dataset_revision", "dev_share", "near_duplicates", "groups_file", "verify_images"),
    *("consistency_filter", "max_megapixels", "view_layout", "squares", "global_fit", "view_size", "decode_mode"),
    *("resize_backend", "backbone_id", "backbone_revision", "feature_pooling", "evidence_grid", "feature_draws"),
    *("feature_dtype", "bf16"),
)
_PRETRAIN = (PretrainArguments, RoadworkTrainingArguments)
_NAME = re.compile(r"[\w][\w.-]*")


@dataclass
class MembersArguments:
    """What `recipes/pretrain_members.py` itself reads; every other key is one of `recipes/pretrain.py`, for all members.

    Attributes:
        config: The YAML file with the members.
        output_dir: Each member's folder lies in it, under its name, with `members.json` beside them.
        launch_config: Config of `accelerate launch`, for one member.
        devices: GPU numbers, one member at a time on each; empty = one member at a time on what `launch_config` names.
        workers: Members at a time without `devices`, on a CPU.
    """

    config: str = field(metadata={"help": "YAML file with the members."})
    output_dir: str = field(default="runs/members", metadata={"help": "Holds a folder for each member."})
    launch_config: str = field(
        default="recipes/accelerate/one_gpu.yaml", metadata={"help": "Config of accelerate launch for one member."}
    )
    devices: list[str] = field(default_factory=list, metadata={"help": "GPU numbers, a member at a time on each."})
    workers: int = field(default=1, metadata={"help": "Members at a time without devices."})

    def __post_init__(self) -> None:
        """Check what no other part checks.

        Raises:
            ValueError: If a value cannot be used; the message names the key.
        """
        if self.workers < 1:
            raise ValueError(f"workers={self.workers} must be at least 1, the members trained at a time")
        if self.devices and self.workers > 1:
            raise ValueError(f"devices={self.devices} trains one member on each; leave workers={self.workers} out")
        if len(set(self.devices)) < len(self.devices):
            raise ValueError(f"devices={self.devices} names one twice; give each device once")
        if not Path(self.launch_config).is_file():
            raise ValueError(f"launch_config={self.launch_config!r} is no file; recipes/accelerate/ holds some")


@dataclass(frozen=True)
class Member:
    """One model of an ensemble, to be trained or trained already.

    Attributes:
        name: Its name, and that of its folder.
        recipe: The YAML file it starts from.
        folder: Where its run lies.
        arguments: The command line of `recipes/pretrain.py`.
        settings: Every setting of its run, as JSON values.
        token_key: Equal for members that read the same backbone tokens; None = none are kept.
    """

    name: str
    recipe: str
    folder: Path
    arguments: list[str]
    settings: dict[str, Any]
    token_key: str | None


def parse_members(argv: Sequence[str]) -> tuple[MembersArguments, list[Member]]:
    """Read the file of members and the command line, and settle every member's settings before anything is trained.

    A member's settings come from, the last winning: its recipe, the file's keys for all, its own keys, the command line.

    Args:
        argv: Command line without the program's name.

    Raises:
        ValueError: If a recipe file is missing, a name stands twice, a key is unknown (the nearest is named), or a
            setting cannot be used; the member is named.
    """
    config = RecipeParser([MembersArguments]).parse_known_args(list(argv))[0].config
    content = read_mapping(Path(config))
    entries = content.pop(MEMBERS_KEY, None)
    if not isinstance(entries, dict) or not entries:
        raise RecipeError(f"{config}: {MEMBERS_KEY!r} must map names to recipe files, got {entries!r}")
    own, shared = known_keys([MembersArguments]) - {"config"}, known_keys(_PRETRAIN)
    _check_keys(config, content, own | shared)
    own_words = [word for key in content.keys() & own for word in as_arguments(key, content[key])]
    arguments, rest = RecipeParser([MembersArguments]).parse_args_into_dataclasses(
        [*own_words, *argv], return_remaining_strings=True, look_for_args_file=False
    )
    named = [word.removeprefix("--").split("=")[0].replace("-", "_") for word in rest if word.startswith("--")]
    _check_keys("command line", named, own | shared)
    for_all = _words({key: value for key, value in content.items() if key not in own})
    return arguments, [_member(arguments, str(name), entry, for_all, rest) for name, entry in entries.items()]


def is_finished(member: Member) -> bool:
    """Whether the member's folder holds the result of a run with its settings.

    Raises:
        ValueError: If the folder holds a run, finished or not, of other settings; those that differ are named.
    """
    if member.settings["existing_run"] != "resume":
        return False
    result, begun = member.folder / RESULT_NAME, member.folder / MEMBER_NAME
    if result.is_file():
        recorded = read_result(result).config
    elif begun.is_file():
        recorded = json.loads(begun.read_text(encoding="utf-8"))["settings"]
    else:
        return False
    changes = differences(*({key: side[key] for key in side.keys() - PLACES} for side in (recorded, member.settings)))
    words = [*member.arguments, *(f"--{key}" for key in read_recipe(member.recipe))]
    if not any(word.startswith("--bf16") for word in words):  # then the machine decides
        changes = [change for change in changes if not change.startswith("bf16:")]
    if changes:
        raise ValueError(
            f"member {member.name!r}: {member.folder} holds a run of other settings ({'; '.join(changes)}); go back to "
            "those settings, choose another output_dir, or delete that folder"
        )
    return result.is_file()


def note_settings(member: Member) -> None:
    """Write down with which settings a member's run begins, so that it is continued with the same ones only."""
    member.folder.mkdir(parents=True, exist_ok=True)
    write_json(member.folder / MEMBER_NAME, {"recipe": member.recipe, "settings": member.settings})


def _member(arguments: MembersArguments, name: str, entry: object, for_all: list[str], rest: list[str]) -> Member:
    where = f"{arguments.config}: member {name!r}"
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{where}: a name is a folder's: letters, digits, _, - and dots")
    values = {RECIPE_KEY: entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict) or not isinstance(values.get(RECIPE_KEY), str):
        raise RecipeError(f"{where}: expected a recipe file or {{recipe: FILE, key: value}}, got {entry!r}")
    values = dict(values)
    recipe = values.pop(RECIPE_KEY)
    _check_keys(where, values, known_keys(_PRETRAIN) - {"output_dir"})
    if not Path(recipe).is_file():
        raise RecipeError(f"{where}: no recipe file at {recipe!r}")
    folder = Path(arguments.output_dir) / name
    first = ["--existing_run=resume", f"--split_manifest={folder.parent / MANIFEST_NAME}", "--disable_tqdm=true"]
    words = ["--config", recipe, *first, *for_all, *_words(values), *rest, f"--output_dir={folder}"]
    try:
        settings = _resolved(words)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error
    if settings["dry_run"]:
        raise RecipeError(f"{where}: dry_run trains nothing; try a member with recipes/pretrain.py --dry_run true")
    key = _token_key(settings)
    if settings["feature_cache"] not in ("off", "auto"):  # a folder holds tokens of one kind
        words.append(f"--feature_cache={Path(settings['feature_cache']) / key}")
    return Member(name, recipe, folder, words, settings, None if settings["feature_cache"] == "off" else key)


def _resolved(words: Sequence[str]) -> dict[str, Any]:
    """Every setting of a run with this command line, as `result.json` would hold it."""
    return json.loads(json.dumps(resolved_config(*parse_recipe(words, _PRETRAIN))))


def _token_key(settings: dict[str, Any]) -> str:
    """Hash what decides the tokens; draws of augmented views depend on the run's seed too."""
    chosen = {name: settings[name] for name in TOKEN_SETTINGS}
    chosen["split_seed"] = settings["seed"] if settings["split_seed"] is None else settings["split_seed"]
    if settings["feature_draws"]:
        chosen |= {name: settings[name] for name in ("augmentation", "augment_per_view", "seed")}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]


def _words(values: dict[str, Any]) -> list[str]:
    """Words of a command line; null gives a key its field's own default back."""
    return [
        word
        for key, value in values.items()
        for word in ([f"--{key}=null"] if value is None else as_arguments(key, value))
    ]


def _check_keys(where: str, keys: Iterable[object], known: set[str]) -> None:
    for key in keys:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{nearest_key(str(key), known)}")

"""Recipe settings: one YAML file plus command-line overrides in, dataclass instances out.

The file becomes ``--key value`` pairs and the command line is appended, so that both go through one typed parser
and the last value wins. A ``defaults.yaml`` beside a variant is read first (one level, never deeper).
"""

import dataclasses
import difflib
import json
import re
from argparse import ArgumentError
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser


DEFAULTS_FILE = "defaults.yaml"


class RecipeError(ValueError):
    """A recipe file or command line that cannot be used; the message names the file, the key and what to do."""


class _RecipeLoader(yaml.SafeLoader):
    """YAML in which only ``true`` and ``false`` are booleans and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Read a mapping as `SafeLoader` does, but refuse a key that stands twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise RecipeError(f"key {key!r} stands twice, the second time{key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep)


_BOOL_TAG = "tag:yaml.org,2002:bool"
_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL_TAG]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver(_BOOL_TAG, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


class RecipeParser(HfArgumentParser):
    """`HfArgumentParser` without abbreviations, with empty lists, raising instead of leaving the process."""

    def __init__(self, dataclass_types: Iterable[type]) -> None:
        super().__init__(dataclass_types, allow_abbrev=False)
        for action in self._actions:
            if action.nargs == "+":
                action.nargs = "*"

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise RecipeError(message)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read one recipe file with the ``defaults.yaml`` beside it, the file's own values winning.

    Args:
        path: The variant, for example ``recipes/pretrain/quickstart.yaml``.

    Returns:
        Flat settings; a value of None means the field's own default.

    Raises:
        RecipeError: If the file is missing, is not a flat mapping or repeats a key.
    """
    path = Path(path)
    defaults = path.with_name(DEFAULTS_FILE)
    settings = read_mapping(defaults) if defaults.exists() and defaults != path else {}
    return settings | read_mapping(path)


def known_keys(dataclass_types: Iterable[type]) -> set[str]:
    """Return every field name that a recipe for these dataclasses may set."""
    return {field.name for cls in dataclass_types for field in dataclasses.fields(cls) if field.init}


def parse_recipe(argv: Sequence[str], dataclass_types: Sequence[type]) -> tuple[Any, ...]:
    """Parse ``--config FILE [--key value ...]`` into one instance per dataclass.

    ``--key null`` on the command line gives a key the field's own default back.

    Args:
        argv: Command line without the program's name.
        dataclass_types: Dataclasses whose fields are the allowed keys.

    Returns:
        The instances in the order of `dataclass_types`.

    Raises:
        RecipeError: If a key is unknown (the nearest known key is named), or a value has the wrong type.
    """
    config, overrides = _split_config(list(argv))
    keys = known_keys(dataclass_types)
    pairs: list[str] = []
    if config is not None:
        settings = read_recipe(config)
        for key in settings:
            if key not in keys:
                raise RecipeError(f"{config}: unknown key {key!r}{nearest_key(key, keys)}")
        overrides, restored = _take_nulls(overrides)
        for key in settings.keys() - restored:
            pairs += as_arguments(key, settings[key])
    parser = RecipeParser(dataclass_types)
    try:
        *instances, unknown = parser.parse_args_into_dataclasses(
            [*pairs, *overrides], return_remaining_strings=True, look_for_args_file=False
        )
    except (RecipeError, ArgumentError) as error:
        raise RecipeError(f"{config or 'command line'}: {error}") from None
    if unknown:
        name = unknown[0].removeprefix("--").split("=")[0].replace("-", "_")
        raise RecipeError(f"command line: unknown key {unknown[0]!r}{nearest_key(name, keys)}")
    return tuple(instances)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read one YAML file that maps keys to values, without the defaults beside it.

    Raises:
        RecipeError: If it is missing, is no mapping, or repeats a key at any depth.
    """
    if not path.is_file():
        raise RecipeError(f"config: no recipe file at {str(path)!r}")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, RecipeError) as error:
        raise RecipeError(f"{path}: {error}") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise RecipeError(f"{path}: expected a mapping of keys to values, got {type(settings).__name__}")
    return settings


def _split_config(argv: list[str]) -> tuple[str | None, list[str]]:
    for index, argument in enumerate(argv):
        if argument == "--config":
            if index + 1 == len(argv):
                raise RecipeError("--config needs the path of a recipe file")
            return argv[index + 1], argv[:index] + argv[index + 2 :]
        if argument.startswith("--config="):
            return argument.removeprefix("--config="), argv[:index] + argv[index + 1 :]
    return None, argv


def _take_nulls(overrides: list[str]) -> tuple[list[str], set[str]]:
    """Take ``--key null`` out of a command line; returns the rest and the keys."""
    rest: list[str] = []
    restored: set[str] = set()
    for argument in overrides:
        if argument == "null" and rest and rest[-1].startswith("--"):
            restored.add(rest.pop().removeprefix("--").replace("-", "_"))
        elif argument.startswith("--") and argument.endswith("=null"):
            restored.add(argument.removeprefix("--").removesuffix("=null").replace("-", "_"))
        else:
            rest.append(argument)
    return rest, restored


def nearest_key(key: str, keys: Iterable[str]) -> str:
    """Say, as the end of an error message, which known key has the most similar name."""
    close = difflib.get_close_matches(key, sorted(keys), n=1, cutoff=0.5)
    return f"; the nearest key is {close[0]!r}" if close else "; no key has a similar name"


def as_arguments(key: str, value: Any) -> list[str]:  # noqa: ANN401 - whatever YAML holds
    """Turn a key of a recipe into words of a command line; none for null, the field's own default."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [f"--{key}={json.dumps(value)}"]
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    return [f"--{key}={value}"]

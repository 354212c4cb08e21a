"""Paths of this machine in what is published: found in any text, taken out of records.

`publish_files.py` scrubs the records of runs, whose settings name folders, and refuses every other file that has one.
"""

import re
from pathlib import Path
from typing import Any


# An absolute path of two parts, a string that is nothing but a path, a home folder, a drive, a file's address. An address
# of the web is none: its slashes follow a colon or each other.
_PATH = re.compile(
    r"""(?:(?<=[\s"'=:,;(\[{<])|^)/(?!/)[\w.@+~-]+(?:/[\w.@+~-]*)+"""
    r"""|^/[\w.@+~-]+$|(?:(?<=[\s"'=])|^)~/[\w./@+~-]*|\b[A-Za-z]:\\[^\s"']*|\bfile:///[^\s"']*"""
)
HIDDEN = "<local>"


def find_local_paths(value: Any, key: str = "") -> list[str]:  # noqa: ANN401 - any JSON value
    """Name every place of a JSON value where a path of this machine stands, as `key: path`; keys are dotted."""
    if isinstance(value, dict):
        found = [f"{key or 'the top level'}: {path}" for name in value for path in _paths(str(name))]
        return found + [
            place for name, entry in value.items() for place in find_local_paths(entry, f"{key}.{name}".lstrip("."))
        ]
    if isinstance(value, list):
        return [place for number, entry in enumerate(value) for place in find_local_paths(entry, f"{key}[{number}]")]
    return [f"{key}: {path}" for path in _paths(value)] if isinstance(value, str) else []


def scrub(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Take paths of this machine out of a JSON value: relative below the working folder, else the last part alone."""
    if isinstance(value, dict):
        return {_scrub_text(str(name)): scrub(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [scrub(entry) for entry in value]
    return _scrub_text(value) if isinstance(value, str) else value


def _own_folders() -> list[str]:
    """The working folder and the home folder, the longer one first; a root folder would be in every path."""
    found = {str(folder) for folder in (Path.cwd(), Path.home()) if len(folder.parts) > 1}
    return sorted(found, key=len, reverse=True)


def _paths(text: str) -> list[str]:
    found = [match.group() for match in _PATH.finditer(text)]
    return found or [folder for folder in _own_folders() if folder in text]


def _scrub_text(text: str) -> str:
    text = text.replace(f"{Path.cwd()}/", "")
    text = _PATH.sub(_last_part, text)
    for folder in _own_folders():
        text = text.replace(folder, HIDDEN)
    return text


def _last_part(path: re.Match[str]) -> str:
    return f"{HIDDEN}/{path.group().replace(chr(92), '/').rstrip('/').rsplit('/', 1)[-1]}"

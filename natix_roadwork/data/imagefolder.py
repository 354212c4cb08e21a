"""Read an imagefolder: photos beside a `metadata.jsonl`, compared with each other both ways.

In comes a folder; out go the raw rows, one for each metadata line with a photo, and a problem for every line and photo
that could not become one. `load_dataset("imagefolder")` is not used: it drops unlisted photos in silence.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from natix_roadwork.data.natix_columns import parse_label
from natix_roadwork.data.row_report import RowProblem, row_problem
from natix_roadwork.data.sources import METADATA_FILE, PHOTO_SUFFIXES


@dataclass(frozen=True)
class FolderScan:
    """What one imagefolder holds.

    Attributes:
        records: Metadata by file name, for each photo that is there and listed, in the order of the lines.
        problems: One dropped row for each line or photo left over.
        keys: Every key met in the metadata.
        num_read: Lines and unlisted photos met; the records and the problems together.
        signature: Hash over the metadata and the name, size and time of change of each photo.
    """

    records: dict[str, dict[str, Any]]
    problems: list[RowProblem]
    keys: list[str]
    num_read: int
    signature: str


def scan_imagefolder(folder: Path, split: str) -> FolderScan:
    """Read the metadata of a folder and compare it with the photos that lie there.

    Args:
        folder: Folder with a `metadata.jsonl`; photos may lie in sub-folders.
        split: Start of each row id, `split/file_name`.
    """
    lines, problems = _read_lines(folder, split)
    num_lines = len(lines) + len(problems)
    records, repeated = _unique_records(lines, split)
    listed = {name: record for name, record in records.items() if (folder / name).is_file()}
    missing = [name for name in records if name not in listed]
    masks = {str(record.get("mask") or "") for record in records.values()}
    named = {name for name, _ in lines}
    unlisted = sorted(name for name in photos_in(folder) if name not in named and name not in masks)
    problems += repeated
    problems += [_dropped(split, name, "the metadata names a photo that is not there") for name in missing]
    problems += [_dropped(split, name, f"the photo is not listed in {METADATA_FILE}") for name in unlisted]
    keys = sorted({key for _, record in lines for key in record})
    return FolderScan(listed, problems, keys, num_lines + len(unlisted), _signature(folder, listed))


def imagefolder_rows(folder: str, split: str, signature: str) -> Iterator[dict[str, Any]]:
    """Yield the raw rows of a folder for `Dataset.from_generator`.

    Args:
        folder: Absolute path of the folder.
        split: Start of each row id.
        signature: `FolderScan.signature`; as an argument of the generator it decides whether a cached copy is valid.

    Raises:
        ValueError: If the folder has changed since the signature was taken.
    """
    scan = scan_imagefolder(Path(folder), split)
    if scan.signature != signature:
        raise ValueError(f"{folder} changed while it was being read; load it again")
    for name, record in scan.records.items():
        path = os.path.join(folder, name)
        yield {
            "image": {"bytes": None, "path": path},
            "row_id": f"{split}/{name}",
            "record": json.dumps(record, sort_keys=True),
        }


def photos_in(folder: Path) -> Iterator[str]:
    """Yield every photo of a folder and its sub-folders, hidden ones aside, as a relative path with `/`."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(root).relative_to(folder)
        for name in names:
            if name.lower().endswith(PHOTO_SUFFIXES) and not name.startswith("."):
                yield (inside / name).as_posix()


def _read_lines(folder: Path, split: str) -> tuple[list[tuple[str, dict[str, Any]]], list[RowProblem]]:
    lines: list[tuple[str, dict[str, Any]]] = []
    problems: list[RowProblem] = []
    for number, line in enumerate((folder / METADATA_FILE).read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            lines.append(_read_line(line))
        except ValueError as error:
            where = f"{split}/{METADATA_FILE}:{number}"
            text = line.strip().decode("utf-8", "backslashreplace")
            problems.append(row_problem(where, "file_name", text, str(error), dropped=True))
    return lines, problems


def _read_line(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        text = line.decode("utf-8-sig")
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the line is not JSON in UTF-8: {error}") from None
    name = record.get("file_name") if isinstance(record, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise ValueError("the line is not a JSON object with a file_name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("the file_name leaves the folder; write it relative to the folder, without '..'")
    return str(path), record


def _unique_records(
    lines: list[tuple[str, dict[str, Any]]], split: str
) -> tuple[dict[str, dict[str, Any]], list[RowProblem]]:
    """Keep one line a photo: the first, unless the lines give the photo different labels."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for name, record in lines:
        by_name.setdefault(name, []).append(record)
    records: dict[str, dict[str, Any]] = {}
    problems: list[RowProblem] = []
    for name, found in by_name.items():
        if len(found) == 1 or len({_label_key(record) for record in found}) == 1:
            records[name] = found[0]
            problems += [_dropped(split, name, "the photo is listed again; its first line is kept")] * (len(found) - 1)
        else:
            problems += [_dropped(split, name, "the photo is listed with different labels")] * len(found)
    return records, problems


def _label_key(record: dict[str, Any]) -> object:
    try:
        return parse_label(record.get("label"))
    except ValueError:
        return repr(record.get("label"))


def _dropped(split: str, name: str, reason: str) -> RowProblem:
    return row_problem(f"{split}/{name}", "file_name", name, reason, dropped=True)


def _signature(folder: Path, records: dict[str, dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(records):
        status = os.stat(folder / name)
        digest.update(json.dumps([name, status.st_size, status.st_mtime_ns, records[name]], sort_keys=True).encode())
    return digest.hexdigest()

"""COCO annotation files: which photos they list, and which of our classes their categories are.

In come files as ROADWork ships them; out go the photos by file name, each with its annotations, and what a category counts
as. `human_provider.py` turns them into masks.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from natix_roadwork.model.configuration_roadwork import MASK_CLASSES


NO_EVIDENCE = "none"
# ROADWork's nineteen categories by their names in its files, and the short form TTC. Drums, posts and panels that lead
# traffic count as cones; police and the road itself are no evidence of roadwork.
CATEGORY_KINDS = {
    "cone": "cone",
    "drum": "cone",
    "tubular marker": "cone",
    "vertical panel": "cone",
    "barricade": "barrier",
    "barrier": "barrier",
    "fence": "barrier",
    "temporary traffic control sign": "sign",
    "ttc sign": "sign",
    "temporary traffic control message board": "sign",
    "ttc message board": "sign",
    "arrow board": "sign",
    "worker": "worker",
    "work vehicle": "vehicle",
    "work equipment": "equipment",
    "other roadwork objects": "equipment",
    "police officer": NO_EVIDENCE,
    "police vehicle": NO_EVIDENCE,
    "road": NO_EVIDENCE,
    "sidewalk": NO_EVIDENCE,
    "bike lane": NO_EVIDENCE,
}


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo that a file lists.

    Attributes:
        name: As the file names it, with folders if it has them.
        file: The file's name.
        width: As the file says.
        height: Likewise.
        annotations: Of this photo, in the file's order.
        categories: Category name by id, of the file.
    """

    name: str
    file: str
    width: int
    height: int
    categories: Mapping[Any, str]
    annotations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and file name."""
        return PurePosixPath(self.name.replace("\\", "/")).parts


@dataclass(frozen=True)
class Annotations:
    """Everything the files hold.

    Attributes:
        photos: Listed photos by the last part of their name.
        kinds: Category to its class, `none`, or None where nobody knows it.
        classes: Classes for which there is a category; the others nobody looked for.
        unknown: Categories nobody knows, and how many annotations they have.
        strays: Annotations of photos that their file does not list.
        files: `name` and `sha256` of each file.
    """

    photos: dict[str, list[AnnotatedPhoto]]
    kinds: dict[str, str | None]
    classes: tuple[str, ...]
    unknown: dict[str, int]
    strays: int
    files: list[dict[str, str]]


def read_annotations(paths: Sequence[str], aliases: Mapping[str, str] | None = None) -> Annotations:
    """Read COCO annotation files.

    Args:
        paths: The files.
        aliases: Category to class or `none`; goes before `CATEGORY_KINDS`.

    Raises:
        ValueError: If a file is missing or no such file, its classes are not those of the others, or an alias names no
            class.
    """
    table = CATEGORY_KINDS | _checked(aliases or {})
    photos: dict[str, list[AnnotatedPhoto]] = {}
    kinds: dict[str, str | None] = {}
    unknown: Counter[str] = Counter()
    files, strays, classes = [], 0, {}
    for path in map(Path, paths):
        content, digest = _read(path)
        files.append({"name": path.name, "sha256": digest})
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        kinds |= {name: category_kind(name, table) for name in categories.values()}
        classes[path.name] = tuple(
            kind for kind in MASK_CLASSES if kind in {kinds[name] for name in categories.values()}
        )
        strays += _add_photos(path.name, content, categories, photos)
        used = Counter(categories.get(entry["category_id"]) for entry in content["annotations"])
        unknown.update({name: used[name] for name in categories.values() if kinds[name] is None})
    if len(set(classes.values())) > 1:
        raise ValueError(
            f"annotations: the files have categories of different classes ({classes}); run each by itself"
        )
    return Annotations(photos, dict(sorted(kinds.items())), classes[files[0]["name"]], dict(unknown), strays, files)


def category_kind(name: str, table: Mapping[str, str] = CATEGORY_KINDS) -> str | None:
    """Return the class of a category, `none`, or None where the table does not know it.

    Upper case and double blanks are no matter; `Temporary Traffic Control Sign: left arrow` is one of the signs.
    """
    plain = " ".join(name.lower().split())
    return table.get(plain, table.get(plain.split(":")[0].strip()))


def _checked(aliases: Mapping[str, str]) -> dict[str, str]:
    for name, kind in aliases.items():
        if kind not in (*MASK_CLASSES, NO_EVIDENCE):
            known = ", ".join((*MASK_CLASSES, NO_EVIDENCE))
            raise ValueError(f"class_aliases: {name!r} is mapped to {kind!r}, which is none of {known}")
    return {" ".join(name.lower().split()): kind for name, kind in aliases.items()}


def _read(path: Path) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Read a file and check its form; annotations are checked when they are drawn."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"annotations: {str(path)!r} cannot be read: {error.strerror or error}") from error
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"annotations: {str(path)!r} is no JSON: {error}") from error
    needed = {
        "images": {"id", "file_name", "width", "height"},
        "annotations": {"image_id", "category_id"},
        "categories": {"id", "name"},
    }
    for key, names in needed.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"annotations: {str(path)!r} has no list {key!r}; a COCO file has {', '.join(needed)}")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(name), int | float | str) for name in names
            ):
                raise ValueError(
                    f"annotations: {str(path)!r}: {key}[{number}] needs {', '.join(sorted(names))}, each a number or a text"
                )
        ids = [entry["id"] for entry in entries if "id" in names]
        if len(set(ids)) < len(ids):
            raise ValueError(f"annotations: {str(path)!r} lists several {key} under one id; give each its own")
    return content, hashlib.sha256(data).hexdigest()


def _add_photos(
    file: str,
    content: Mapping[str, list[dict[str, Any]]],
    categories: Mapping[Any, str],
    photos: dict[str, list[AnnotatedPhoto]],
) -> int:
    """Add the photos of a file with their annotations; returns how many annotations have no photo."""
    by_id = {
        entry["id"]: AnnotatedPhoto(str(entry["file_name"]), file, entry["width"], entry["height"], categories)
        for entry in content["images"]
    }
    strays = 0
    for annotation in content["annotations"]:
        if annotation["image_id"] in by_id:
            by_id[annotation["image_id"]].annotations.append(annotation)
        else:
            strays += 1
    for photo in by_id.values():
        photos.setdefault(photo.parts[-1], []).append(photo)
    return strays

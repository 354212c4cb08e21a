"""Photos in files and folders, found in a stable order and read a batch ahead of the model.

In come paths as a person names them; out go the photos' paths, what is no photo, and batches of photos that are read while
the model works on the batch before. `photo_answers.py` puts both together.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar


Read = TypeVar("Read")

# Endings of the formats that `model.photo` opens; a file that is named by itself is tried whatever its ending.
ENDINGS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".dib"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx"),
    }
)
MOST_NAMES = 10


@dataclass(frozen=True)
class FoundFiles:
    """What lies at some paths.

    Attributes:
        photos: Files to read: those that were named, and those in the folders whose ending is a photo's.
        others: The other files of the folders.
        unreadable: Folders that could not be listed, and why.
    """

    photos: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ReadPhoto(Generic[Read]):
    """A photo that was read, or why it could not be.

    Attributes:
        path: As it was found.
        content: What the reader made of it; None where there is an error.
        error: Why it could not be read; None where it could.
    """

    path: str
    content: Read | None = None
    error: str | None = None


def find_photos(places: Sequence[str | os.PathLike[str]]) -> FoundFiles:
    """Find the photos at some places, folders with all their sub-folders.

    The order depends on names alone: that of the places, and in a folder its files, then its sub-folders, each by the
    bytes of their names. A link to a folder is not followed (it could lead in a circle), and counts as no photo.

    Args:
        places: Files and folders.

    Raises:
        ValueError: If a place does not exist, or there is no photo at all.
    """
    found = FoundFiles()
    for place in map(os.fspath, places):
        if os.path.isdir(place):
            _search(place, found)
        elif os.path.exists(place):
            found.photos.append(place)
        else:
            raise ValueError(f"{place!r} does not exist; name photos, or folders with photos")
    if not found.photos and not found.unreadable:
        among = f" among {len(found.others)} files" if found.others else ""
        raise ValueError(
            f"no photo in {', '.join(map(repr, map(os.fspath, places)))}{among}; photos are files that end in "
            f"{', '.join(sorted(ENDINGS))}"
        )
    return found


def describe_others(others: Sequence[str]) -> str:
    """Count the files that are no photos by their endings, and name the first ten."""
    counts = Counter(Path(path).suffix.lower() or "no ending" for path in others)
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))
    names = ", ".join(printable(path) for path in others[:MOST_NAMES]) + (", ..." if len(others) > MOST_NAMES else "")
    return f"no photos by their names: {len(others)} ({kinds}): {names}"


def read_ahead(
    paths: Sequence[str], read: Callable[[str], Read], batch_size: int, workers: int = 1
) -> Iterator[list[ReadPhoto[Read]]]:
    """Read photos in threads, a batch ahead of the caller, and yield batch after batch in the order of the paths.

    Two batches are in memory, the one at hand and the next, where the caller lets go of a batch before it asks for another.
    Threads, since decoding and resizing run outside Python's lock, and nothing has to pass through shared memory, which
    containers keep small.

    Args:
        paths: Photos.
        read: Opens one; a `ValueError` of it becomes the photo's error.
        batch_size: Photos of a batch, at least 1; the last may be smaller.
        workers: Threads, at least 1.

    Raises:
        ValueError: If a number is below 1.
    """
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name}={value!r} must be at least 1")
    return _read_ahead(paths, read, batch_size, workers)


def printable(path: str) -> str:
    """Write a path so that a terminal shows it and obeys nothing in it."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _search(folder: str, found: FoundFiles) -> None:
    """Add what lies in a folder; sub-folders wait in a queue of their own, so that depth costs no recursion."""
    waiting = deque([folder])
    while waiting:
        here = waiting.popleft()
        try:
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            found.unreadable.append((here, f"folder {here!r} cannot be listed: {error.strerror or error}"))
            continue
        folders = [entry.path for entry in listed if entry.is_dir(follow_symlinks=False)]
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                continue
            # A dangling link is a photo that cannot be read; a pipe is none, and would never end.
            is_file = entry.is_file() or (entry.is_symlink() and not entry.is_dir())
            is_photo = is_file and Path(entry.name).suffix.lower() in ENDINGS
            (found.photos if is_photo else found.others).append(entry.path)
        waiting.extendleft(reversed(folders))


def _read_ahead(
    paths: Sequence[str], read: Callable[[str], Read], batch_size: int, workers: int
) -> Iterator[list[ReadPhoto[Read]]]:
    def open_photo(path: str) -> ReadPhoto[Read]:
        try:
            return ReadPhoto(path, read(path))
        except ValueError as error:
            return ReadPhoto(path, error=" ".join(str(error).split()))

    pool = ThreadPoolExecutor(workers, thread_name_prefix="photo")
    try:
        waiting: deque[list[Future[ReadPhoto[Read]]]] = deque()
        for start in range(0, len(paths), batch_size):
            waiting.append([pool.submit(open_photo, path) for path in paths[start : start + batch_size]])
            if len(waiting) == 2:
                yield [photo.result() for photo in waiting.popleft()]
        while waiting:
            yield [photo.result() for photo in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)

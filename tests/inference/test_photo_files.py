"""Which files are photos, in which order they come, and that reading them ahead stays within its bounds."""

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

from natix_roadwork.inference.photo_files import describe_others, find_photos, printable, read_ahead


class Decoded:
    """Stands for a decoded photo; an int cannot be followed."""

    def __init__(self, path: str) -> None:
        self.path = path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names_in(folder: Path, paths: list[str]) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def test_folders_are_searched_in_the_order_of_names(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/10.jpg", "b/a/1.webp", "c.jpeg", "B.tif", "a/z.jpg", "notes.txt", "b/.hidden")
    found = find_photos([tmp_path])
    assert names_in(tmp_path, found.photos) == ["B.tif", "c.jpeg", "a/z.jpg", "b/10.jpg", "b/2.PNG", "b/a/1.webp"]
    assert names_in(tmp_path, found.others) == ["notes.txt", "b/.hidden"]
    assert describe_others(found.others).startswith("no photos by their names: 2 (1 .txt, 1 no ending): ")


def test_places_keep_their_order_and_a_named_file_is_tried_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "photo", "b/2.jpg")
    found = find_photos([tmp_path / "b", tmp_path / "photo", tmp_path / "a"])
    assert names_in(tmp_path, found.photos) == ["b/2.jpg", "photo", "a/1.jpg"]


def test_links_lead_in_no_circle_and_a_dangling_one_is_not_lost(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "circle.jpg").symlink_to(tmp_path)
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "a" / "linked.jpg").symlink_to(tmp_path / "a" / "1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    found = find_photos([tmp_path])
    assert names_in(tmp_path, found.photos) == ["a/1.jpg", "a/gone.jpg", "a/linked.jpg"]
    assert names_in(tmp_path, found.others) == ["a/circle.jpg", "a/pipe.jpg"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    real = os.scandir

    def refuse(path: str) -> os.scandir:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_photos([tmp_path])
    assert names_in(tmp_path, found.photos) == ["b/2.jpg"]
    ((path, error),) = found.unreadable
    assert Path(path).name == "a" and "cannot be listed: Permission denied" in error


def test_what_is_not_there_or_holds_no_photo_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(ValueError, match=r"missing.jpg' does not exist"):
        find_photos([tmp_path / "missing.jpg"])
    with pytest.raises(ValueError, match=r"no photo in .* among 1 files; photos are files that end in"):
        find_photos([tmp_path])


def test_photos_are_read_in_order_and_an_error_takes_the_place_of_its_photo() -> None:
    def read(path: str) -> Decoded:
        if path == "4":
            raise ValueError("is\nbroken")
        return Decoded(path)

    paths = [str(number) for number in range(11)]
    batches = list(read_ahead(paths, read, batch_size=4, workers=3))
    photos = [photo for batch in batches for photo in batch]
    assert [len(batch) for batch in batches] == [4, 4, 3] and [photo.path for photo in photos] == paths
    assert photos[4].content is None and photos[4].error == "is broken"
    assert [photo.content.path for photo in photos if photo.content] == [path for path in paths if path != "4"]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_than_two_batches_are_in_memory_and_the_next_is_read_meanwhile(workers: int) -> None:
    alive, most, lock = weakref.WeakSet(), [0], threading.Lock()
    second = threading.Event()

    def read(path: str) -> Decoded:
        decoded = Decoded(path)
        with lock:
            alive.add(decoded)
            most[0] = max(most[0], len(alive))
        if path == "5":
            second.set()
        return decoded

    for batch in read_ahead([str(number) for number in range(60)], read, 5, workers):
        assert second.wait(10)  # a photo of the second batch is read while the first is at hand
        del batch
        gc.collect()
    assert 5 < most[0] <= 10


def test_reading_stops_with_the_caller() -> None:
    opened: list[str] = []
    batches = read_ahead([str(number) for number in range(1000)], lambda path: opened.append(path), 2)
    next(batches)
    batches.close()
    assert len(opened) <= 4


@pytest.mark.parametrize("key", ["batch_size", "workers"])
def test_numbers_below_one_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}=0 must be at least 1"):
        read_ahead([], len, **{"batch_size": 1, "workers": 1, key: 0})


def test_a_terminal_obeys_nothing_in_a_name() -> None:
    assert printable("straße/1.jpg") == "straße/1.jpg"
    assert printable("a\x1b[2J\nb.jpg") == "a\\x1b[2J\\nb.jpg"
    assert printable(os.fsdecode(b"a\xff.jpg")) == "a\\xff.jpg"

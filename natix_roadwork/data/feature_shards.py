"""Files of a feature cache: whole or absent, each with a checksum of its own.

In come the tensors of some rows; out goes a safetensors file that is read back by mapping it into memory. `extract_features`
in `feature_cache.py` decides which rows lie in which file.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor


CHECKSUM = "sha256"
TEMPORARY = ".*.tmp"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class DamagedShardError(ValueError):
    """A file of the cache that is missing, truncated or corrupt; the message names it and says what to do."""


def write_shard(path: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """Write tensors so that the file appears complete or not at all.

    Args:
        path: The file.
        tensors: What it holds, on the CPU.
        key: Key of the cache; it goes into the checksum, so that a file of another cache is never taken for ours.

    Raises:
        OSError: If the disk is full; the message says how much was needed.
    """
    # One entry only: safetensors writes several in no fixed order, and the same rows must give the same bytes.
    write_whole(path, save(dict(tensors), {CHECKSUM: _checksum(tensors, key)}))


def read_shard(path: Path) -> dict[str, Tensor]:
    """Map a file's tensors into memory; nothing is read before it is used, and no file stays open.

    Raises:
        DamagedShardError: If the file is missing or truncated.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def shard_facts(path: Path) -> dict[str, Any]:
    """Return a file's `name`, `bytes` and `sha256` from its header.

    Raises:
        DamagedShardError: If the file is missing or its header cannot be read.
    """
    try:
        size = path.stat().st_size
        with safe_open(path, "pt") as file:
            checksum = (file.metadata() or {}).get(CHECKSUM)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error
    return {"name": path.name, "bytes": size, CHECKSUM: checksum}


def verify_shard(path: Path, key: str) -> None:
    """Read a whole file and compare it with its checksum.

    Raises:
        DamagedShardError: If the file is missing, truncated, corrupt, or of another cache.
    """
    expected = shard_facts(path)[CHECKSUM]
    if _checksum(read_shard(path), key) != expected:
        raise _damaged(path, "its content does not fit its checksum")


def write_json(path: Path, content: object, exclusive: bool = False) -> None:
    """Write readable JSON as `write_whole` does."""
    write_whole(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode(), exclusive)


def write_whole(path: Path, data: bytes, exclusive: bool = False) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it.

    The temporary file is locked while it is written, so that `remove_leftovers` of another process tells it from one that
    a killed process left.

    Args:
        path: The file.
        data: Its content.
        exclusive: Whether a file that is there stays, instead of being replaced.

    Raises:
        FileExistsError: If it is there and `exclusive`.
        OSError: If it cannot be written; a full disk is named with the bytes that were needed.
    """
    try:
        with _locked_temporary(path) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if exclusive:
                    os.link(file.name, path)
                else:
                    os.replace(file.name, path)
            finally:
                Path(file.name).unlink(missing_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL:
            free = shutil.disk_usage(path.parent).free
            text = (
                f"the disk is full: {path} needs {_size(len(data))}, {_size(free)} are free; make room and start again"
            )
            raise OSError(error.errno, f"{text}, what is complete is kept") from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must outlive a power cut
    finally:
        os.close(folder)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary files of killed processes and return their names; files being written stay."""
    removed = []
    for path in sorted(folder.glob(TEMPORARY)):
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue
        removed.append(path.name)
    return removed


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        OSError: If fewer than `needed` bytes are free; both are named.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        text = f"the features need {_size(needed)} in {folder}, {_size(free)} are free; make room or choose another folder"
        raise OSError(errno.ENOSPC, f"{text}, a smaller evidence_grid, fewer feature_draws or feature_dtype int8")


def _locked_temporary(path: Path) -> BinaryIO:
    while True:
        file = open(path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp"), "xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(file.name):  # else another process took it for a leftover before it was locked
            return file
        file.close()


def _checksum(tensors: Mapping[str, Tensor], key: str) -> str:
    digest = hashlib.sha256(key.encode())
    for name in sorted(tensors):
        array = tensors[name].numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view("uint8").data)
    return digest.hexdigest()


def _damaged(path: Path, reason: object) -> DamagedShardError:
    missing = isinstance(reason, FileNotFoundError) or not path.exists()
    state = "is missing" if missing else f"is corrupt or truncated ({reason})"
    todo = "extract the features again" if missing else "delete this file and extract the features again"
    return DamagedShardError(f"{path} {state}; {todo}, only what is missing is computed")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**28 else f"{num_bytes / 2**20:.2f} MiB"

import fcntl
from pathlib import Path

import pytest
import torch

from natix_roadwork.data.feature_shards import (
    DamagedShardError,
    read_shard,
    remove_leftovers,
    shard_facts,
    verify_shard,
    write_json,
    write_shard,
)


TENSORS = {"tokens": torch.arange(24.0).reshape(2, 12).half(), "view_mask": torch.ones(2, 3, dtype=torch.bool)}


def test_shard_comes_back_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shard(tmp_path / name, TENSORS, "key")
        verify_shard(tmp_path / name, "key")
    found = read_shard(tmp_path / "one")
    assert all(torch.equal(found[name], values) for name, values in TENSORS.items())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert shard_facts(tmp_path / "one")["bytes"] == (tmp_path / "one").stat().st_size


def test_checksum_covers_the_content_and_the_key(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard", TENSORS, "key")
    with pytest.raises(DamagedShardError, match="does not fit its checksum"):
        verify_shard(tmp_path / "shard", "another key")
    data = (tmp_path / "shard").read_bytes()
    for place in range(len(data) - 54, len(data)):
        changed = bytearray(data)
        changed[place] ^= 64
        (tmp_path / "shard").write_bytes(changed)
        with pytest.raises(DamagedShardError):
            verify_shard(tmp_path / "shard", "key")


@pytest.mark.parametrize("length", [0, 5, 40, -1])
def test_truncated_shard_is_named(tmp_path: Path, length: int) -> None:
    write_shard(tmp_path / "shard", TENSORS, "key")
    (tmp_path / "shard").write_bytes((tmp_path / "shard").read_bytes()[:length])
    with pytest.raises(DamagedShardError, match=r"shard is corrupt or truncated .*; delete this file"):
        shard_facts(tmp_path / "shard")


def test_leftovers_go_and_files_being_written_stay(tmp_path: Path) -> None:
    (tmp_path / ".old.tmp").write_bytes(b"left by a killed process")
    with open(tmp_path / ".new.tmp", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_leftovers(tmp_path) == [".old.tmp"]
    assert [path.name for path in tmp_path.iterdir()] == [".new.tmp"]


def test_of_two_that_create_a_file_one_does(tmp_path: Path) -> None:
    write_json(tmp_path / "settings.json", {"grid": 4}, exclusive=True)
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "settings.json", {"grid": 7}, exclusive=True)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    assert '"grid": 4' in (tmp_path / "settings.json").read_text()

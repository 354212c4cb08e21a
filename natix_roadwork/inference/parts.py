"""Parts of a prediction that is under way: whole or absent, so that a killed run continues where it was.

In come the answers for some rows after the other; out go files in a hidden folder beside the member's own, which
`predict_rows.py` writes and reads and `predict.py` removes at the end. The folder holds::

    settings.json                      what the answers depend on, readable; its hash goes into every checksum
    dev-00-00000.safetensors ...       logits (R, 2) and embeddings (R, H) of a range of rows: split, transform, number
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natix_roadwork.data.feature_key import differences, feature_key
from natix_roadwork.data.feature_shards import (
    DamagedShardError,
    read_shard,
    remove_leftovers,
    verify_shard,
    write_json,
    write_shard,
)


SETTINGS_NAME = "settings.json"
MOST_PARTS = 256


def part_ranges(num_rows: int, batch_size: int) -> list[range]:
    """Divide rows into parts of whole batches, one each where that makes no more than 256 parts.

    Small parts let many processes share few rows; the number of parts bounds that of the files.
    """
    size = batch_size * -(-num_rows // (MOST_PARTS * batch_size))
    return [range(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


class Parts:
    """The parts of one member's prediction.

    Args:
        folder: Where they lie, on a disk that all processes share.
        record: Everything the answers depend on, as JSON values.

    `rows_written` counts the rows of the parts that this object has written.
    """

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        """Keep both."""
        self.folder, self.record = folder, json.loads(json.dumps(record))
        self.key = feature_key(self.record)
        self.rows_written = 0

    def enter(self) -> None:
        """Make the folder, or check that an earlier run's parts are of the same prediction; by the main process.

        Raises:
            ValueError: If they are of another; what differs is named.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        if not (self.folder / SETTINGS_NAME).is_file():
            write_json(self.folder / SETTINGS_NAME, self.record)
        there = json.loads((self.folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        check_same(there, self.record, str(self.folder))

    def path(self, block: str, number: int) -> Path:
        """Name the file of a part."""
        return self.folder / f"{block}-{number:05d}.safetensors"

    def is_there(self, block: str, number: int) -> bool:
        """Whether a part is complete.

        Raises:
            ValueError: If its content does not fit its checksum.
        """
        path = self.path(block, number)
        if path.is_file():
            try:
                verify_shard(path, self.key)
            except DamagedShardError as error:
                raise ValueError(f"{path} is damaged; delete it and start again with --existing_run resume") from error
        return path.is_file()

    def write(self, block: str, number: int, logits: Tensor, embeddings: Tensor) -> None:
        """Write a part: logits `(R, 2)` and embeddings `(R, H)`, float32 on the CPU."""
        write_shard(self.path(block, number), {"logits": logits, "embeddings": embeddings}, self.key)
        self.rows_written += len(logits)

    def read(self, block: str, numbers: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read parts one after the other: logits `(N, 2)` and embeddings `(N, H)`.

        Raises:
            ValueError: If a part is gone.
        """
        try:
            parts = [read_shard(self.path(block, number)) for number in numbers]
        except DamagedShardError as error:
            raise ValueError(
                f"a part of {block} in {self.folder} is gone or damaged, perhaps by another run in that folder; start "
                "again with --existing_run resume"
            ) from error
        logits, embeddings = (torch.cat([part[name] for part in parts]).numpy() for name in ("logits", "embeddings"))
        return logits, embeddings

    def remove(self) -> None:
        """Remove the folder, if it is there."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_same(there: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Refuse to mix the answers of two predictions.

    Args:
        there: Record of what was found.
        now: Record of this run.
        where: Names what was found.

    Raises:
        ValueError: If the records differ; each difference is named.
    """
    if there != now:
        raise ValueError(
            f"existing_run=resume: {where} holds answers of another prediction ({'; '.join(differences(there, now))}); "
            "go back to those settings, choose another output_dir, or give --existing_run overwrite"
        )

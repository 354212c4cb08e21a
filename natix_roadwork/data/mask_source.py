"""Which row has which mask: looked for and read once before a run, so that no epoch meets a bad file.

In come rows with a `mask` column and perhaps a folder of masks that `recipes/pseudo_masks.py` wrote; out go the good masks by
row id, which `photo_batches.py` and `mask_labels.py` read, and a count of everything else.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.utils import logging

from natix_roadwork.data.masks import MaskError, PhotoMask, mask_path, read_mask, record_path
from natix_roadwork.data.side_files import end_of_file


logger = logging.get_logger(__name__)

SHOWN = 5  # bad masks that a message names; the log has all


@dataclass(frozen=True)
class BadMask:
    """A mask that cannot be used: of which row, why in a word, and the whole sentence."""

    row_id: str
    reason: str
    message: str


@dataclass(frozen=True)
class RowMasks:
    """The good masks of some rows.

    Attributes:
        paths: Mask file by row id; a row that is not there has no mask.
        mask_size: Cells m a side of the labels made from them.
        num_rows: Rows that were looked at.
        bad: Masks that count as unknown.
    """

    paths: Mapping[str, str]
    mask_size: int
    num_rows: int = 0
    bad: Sequence[BadMask] = field(default_factory=tuple)

    def read(self, row_id: str, size: tuple[int, int]) -> PhotoMask | None:
        """Read the mask of a row; None = it has none.

        Args:
            row_id: The row.
            size: Width and height of its upright photo.

        Raises:
            ValueError: If the file has changed since it was checked; the row and the file are named.
        """
        path = self.paths.get(row_id)
        try:
            return None if path is None else _read(row_id, path, size)
        except MaskError as error:  # a data loader's worker cannot send one that takes two arguments
            raise ValueError(str(error)) from error

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """Count rows for a run's record."""
        reasons = dict(Counter(one.reason for one in self.bad).most_common())
        return {"rows": self.num_rows, "with_mask": len(self.paths), "bad": reasons}

    def summary(self) -> str:
        """Count the rows with and without a mask, and the bad masks by their reasons."""
        without = self.num_rows - len(self.paths) - len(self.bad)
        counts = [f"{len(self.paths)} rows with a mask", f"{without} without"]
        counts += [f"{count} {reason}" for reason, count in Counter(one.reason for one in self.bad).most_common()]
        return ", ".join(counts)

    def fingerprint(self, rows: Dataset) -> str:
        """Hash the ids of rows with what decides their masks: size and last bytes of each file, and its whole record.

        A PNG ends with checksums of all of its pixels, so any change is noticed without reading every file.
        """
        digest = hashlib.sha256()
        for row_id in rows["row_id"][:]:
            digest.update(f"{row_id}\n".encode())
            if (path := self.paths.get(row_id)) is not None:
                record = record_path(path)
                size, tail = end_of_file(path, "mask")
                digest.update(f"{size} ".encode() + tail)
                digest.update(record.read_bytes() if record.is_file() else b"no record")
        return digest.hexdigest()


def find_masks(
    splits: Mapping[str, Dataset],
    mask_size: int,
    mask_folder: str | None = None,
    bad_masks: Literal["refuse", "ignore"] = "refuse",
    *,
    required: bool = True,
    state: PartialState | None = None,
) -> RowMasks:
    """Find the mask of every row and read each once; processes share the work.

    A row's own `mask` column comes first, then `mask_folder`, where a row without a file has no mask.

    Args:
        splits: Rows of `data.dataset.load_rows`.
        mask_size: Cells m a side of the labels.
        mask_folder: Folder of masks named by row id (`masks.mask_path`); None = only the column counts.
        bad_masks: What a mask that is missing, damaged, of another size or of an unknown class does: `refuse` ends the
            run with a list, `ignore` names it in the log, and it counts as unknown.
        required: Whether rows without any mask are an error; else the log says so.
        state: The processes that share the work; None = this one alone.

    Raises:
        ValueError: If the folder is missing, no row has a mask, or one is bad and that is refused.
    """
    if mask_folder is not None and not Path(mask_folder).is_dir():
        raise ValueError(f"mask_folder={mask_folder!r} is no folder; recipes/pseudo_masks.py writes one")
    named = [item for rows in splits.values() for item in _named(rows, mask_folder)]
    rank, world = (0, 1) if state is None else (state.process_index, state.num_processes)
    own = named[rank::world]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # decoding leaves the interpreter free
        checked = threads.map(_check, own)
        bad = [one for one in tqdm(checked, "Checking masks", len(own), unit=" masks", disable=rank != 0) if one]
    bad = sorted(gather_object(bad) if world > 1 else bad, key=lambda one: one.row_id)
    left_out = {one.row_id for one in bad}
    paths = {row_id: path for row_id, path, _ in named if row_id not in left_out}
    masks = RowMasks(paths, mask_size, sum(map(len, splits.values())), tuple(bad))
    _report(masks, bad_masks, show=rank == 0)
    if not paths:
        missing = f"loss_weights has a mask term, but no row has a usable mask (mask_folder={mask_folder!r}): {masks.summary()}"
        if required:
            raise ValueError(
                f"{missing}; make masks with recipes/pseudo_masks.py and name their folder by --mask_folder, or leave the "
                "term out"
            )
        logger.warning(f"{missing}; the term learns nothing from them")
    return masks


def _report(masks: RowMasks, bad_masks: str, show: bool) -> None:
    if show:
        logger.info(f"masks: {masks.summary()}")
    if masks.bad and bad_masks == "refuse":
        lines = [one.message for one in masks.bad[:SHOWN]]
        lines += [f"and {len(masks.bad) - SHOWN} more"] * (len(masks.bad) > SHOWN)
        raise ValueError(
            f"masks: {masks.summary()}. Repair them, or let bad ones count as unknown by --bad_masks ignore. "
            + "; ".join(lines)
        )
    for one in masks.bad if show else ():
        logger.warning(f"{one.message}; it counts as unknown")


def _named(rows: Dataset, mask_folder: str | None) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Yield row id, mask file and photo size of each row that names a mask, or has one in the folder."""
    columns = (rows[name][:] for name in ("row_id", "mask", "width", "height"))
    for row_id, own, width, height in zip(*columns, strict=True):
        path = own or ("" if mask_folder is None else str(mask_path(mask_folder, row_id)))
        if own or (path and Path(path).is_file()):
            yield row_id, path, (width, height)


def _check(item: tuple[str, str, tuple[int, int]]) -> BadMask | None:
    try:
        _read(*item)
    except MaskError as error:
        return BadMask(item[0], error.reason, str(error))
    return None


def _read(row_id: str, path: str, size: tuple[int, int]) -> PhotoMask:
    try:
        return read_mask(path, size)
    except MaskError as error:
        raise MaskError(error.reason, f"row {row_id!r}: {error}") from error

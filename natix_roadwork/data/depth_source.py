"""Which row has which depth map: looked for and read once before a run, so that no epoch meets a bad file.

In come rows and a folder that `recipes/depth_maps.py` wrote; out go the maps by row id, which `photo_batches.py` and
`token_passes.py` append to a photo's views.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from numpy.typing import NDArray
from transformers.utils import logging

from natix_roadwork.data.depth import DepthError, depth_path, read_depth
from natix_roadwork.data.depth_views import depth_view
from natix_roadwork.data.draws import Augmentation
from natix_roadwork.data.side_files import end_of_file
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor


logger = logging.get_logger(__name__)

SHOWN = 5  # rows that a message names


@dataclass(frozen=True)
class RowDepths:
    """The depth maps of some rows.

    Attributes:
        paths: File by row id; a row that is not there has no map, and its depth view is masked.
        without: Ids of the rows without a map.
    """

    paths: Mapping[str, str]
    without: tuple[str, ...] = ()

    def view(
        self,
        row: Mapping[str, Any],
        processor: RoadworkImageProcessor,
        augmentation: Augmentation | None = None,
        address: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8] | None:
        """Render the depth view `(S, S, 3)` of a row; None = it has no map.

        Args:
            row: `row_id`, and `width` and `height` of its upright photo.
            processor: Cuts the views.
            augmentation: Moves the global view, where there is an address.
            address: Epoch and position of the example; None = the view as it is.

        Raises:
            ValueError: If the file has changed since it was checked; the row and the file are named.
        """
        path = self.paths.get(row["row_id"])
        if path is None:
            return None
        size = (row["width"], row["height"])
        try:
            depth = read_depth(path, size)
        except DepthError as error:  # a data loader's worker cannot send one that takes two arguments
            raise ValueError(f"row {row['row_id']!r}: {error}") from error
        if augmentation is None or address is None:
            return depth_view(processor, depth)
        return augmentation.depth_view(processor, depth, size, *address)

    def as_dict(self) -> dict[str, int]:
        """Count rows for a run's record."""
        return {"rows": len(self.paths) + len(self.without), "with_depth": len(self.paths)}

    def summary(self) -> str:
        """Count the rows with and without a map, and name some of the latter."""
        named = f", such as {', '.join(map(repr, self.without[:SHOWN]))}" if self.without else ""
        return f"{len(self.paths)} rows with a depth map, {len(self.without)} without{named}"

    def fingerprint(self, rows: Dataset) -> str:
        """Hash the ids of rows with size and last bytes of each file; a PNG ends with checksums of all of its pixels."""
        digest = hashlib.sha256()
        for row_id in rows["row_id"][:]:
            digest.update(f"{row_id}\n".encode())
            if (path := self.paths.get(row_id)) is not None:
                size, tail = end_of_file(path, "depth map")
                digest.update(f"{size} ".encode() + tail)
        return digest.hexdigest()


def with_depth(views: NDArray[np.uint8], depth: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Append a depth view to the views `(V, S, S, 3)` of a photo; a black one, to be masked, where there is none."""
    last = np.zeros_like(views[:1]) if depth is None else depth[None]
    return np.concatenate((views, last))


def find_depths(splits: Mapping[str, Dataset], depth_folder: str, state: PartialState | None = None) -> RowDepths:
    """Find the depth map of every row and read each once; processes share the work.

    Args:
        splits: Rows of `data.dataset.load_rows`.
        depth_folder: Folder of `recipes/depth_maps.py`; a row without a file there has no map.
        state: The processes that share the work; None = this one alone.

    Raises:
        ValueError: If the folder is missing, no row has a map, or a map is damaged or of another photo: they are counted by
            reason and named.
    """
    if not Path(depth_folder).is_dir():
        raise ValueError(f"depth_folder={depth_folder!r} is no folder; recipes/depth_maps.py writes one")
    found, without = {}, []
    for rows in splits.values():
        for row_id, width, height in zip(*(rows[name][:] for name in ("row_id", "width", "height")), strict=True):
            path = depth_path(depth_folder, row_id)
            if path.is_file():
                found[row_id] = (str(path), (width, height))
            else:
                without.append(row_id)
    if not found:
        raise ValueError(
            f"depth_folder={depth_folder!r} has no depth map of any of the {len(without)} rows, such as {without[:1]}; make "
            "them of this data set with recipes/depth_maps.py"
        )
    rank, world = (0, 1) if state is None else (state.process_index, state.num_processes)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # decoding leaves the interpreter free
        bad = [one for one in threads.map(_check, list(found.items())[rank::world]) if one is not None]
    bad = sorted(gather_object(bad) if world > 1 else bad)
    if bad:
        counts = dict(Counter(reason for _, reason, _ in bad).most_common())
        more = [f"and {len(bad) - SHOWN} more"] * (len(bad) > SHOWN)
        raise ValueError(
            f"depth_folder={depth_folder!r}: bad depth maps {counts}; delete them and make them again. "
            + "; ".join([message for *_, message in bad[:SHOWN]] + more)
        )
    depths = RowDepths({row_id: path for row_id, (path, _) in found.items()}, tuple(without))
    (logger.warning if without else logger.info)(f"depth: {depths.summary()}")
    return depths


def _check(item: tuple[str, tuple[str, tuple[int, int]]]) -> tuple[str, str, str] | None:
    row_id, (path, size) = item
    try:
        read_depth(path, size)
    except DepthError as error:
        return row_id, error.reason, f"row {row_id!r}: {error}"
    return None

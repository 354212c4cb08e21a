"""The depth map run: one depth model over the photos of a data set, one grey PNG each.

`recipes/depth_maps.py` calls `make_depth_maps` and prints `depth_table`. The folder is that of `photo_run.py`; a row has
`train/0.png_depth.png` (`data/depth.py`).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data.depth import DepthError, depth_path, map_size, write_depth
from natix_roadwork.labeling.depth_map_arguments import DepthMapArguments
from natix_roadwork.labeling.depth_model import PERCENTILES, DepthModel, grey
from natix_roadwork.labeling.photo_run import describe_speed, load_photo_rows, run_photos, run_warnings
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult


FORMAT_VERSION = 1


class DepthWriter:
    """Writes the depth map of a photo (a `photo_marking.PhotoWriter`).

    Args:
        model: Predicts it.
        folder: Folder of depth maps.
        longer_side: Of a map, in pixels.
    """

    product = "depth map"

    def __init__(self, model: DepthModel, folder: str, longer_side: int) -> None:
        """Keep them."""
        self.model, self.folder, self.longer_side = model, folder, longer_side
        self.source = Path(model.source["model"]).name

    def settings(self) -> dict[str, Any]:
        """Return everything that decides a photo's map, as JSON values."""
        shape = {"longer_side": self.longer_side, "percentiles": PERCENTILES}
        return {"format": FORMAT_VERSION, "depth_model": self.model.settings(), **shape}

    def paths(self, row_id: str) -> tuple[Path, ...]:
        """Return a row's one file."""
        return (depth_path(self.folder, row_id),)

    def write(self, row: Mapping[str, Any], photo: NDArray[np.uint8]) -> None:
        """Write the map of one photo.

        Raises:
            DepthError: If it has none.
        """
        size = map_size(photo.shape[1], photo.shape[0], self.longer_side)
        try:
            depth = grey(self.model.nearness(photo, size))
        except DepthError as error:
            raise DepthError(error.reason, f"row {row['row_id']!r}: {error}") from error
        write_depth(self.folder, row["row_id"], depth)


def make_depth_maps(settings: DepthMapArguments) -> RunResult:
    """Make the depth map of every photo that has none yet, and write maps, `failures.jsonl` and `result.json`.

    Args:
        settings: Model, photos and where the maps go.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError: If the model cannot be loaded, the data or a setting cannot be used, or the folder holds maps of other
            settings, which are named.
    """
    with RunRecorder(dataclasses.asdict(settings), settings.seed) as recorder:
        state = settings.state()
        rows, splits = load_photo_rows(settings, DepthWriter.product, state)
        model = DepthModel.from_pretrained(
            settings.model, settings.model_revision, settings.predicts, settings.dtype, state.device
        )
        writer = DepthWriter(model, settings.output_dir, settings.longer_side)
        run = run_photos(writer, rows, splits, settings, state)
        recorder.data = rows.as_dict()
        if state.is_main_process:
            failed = Counter(failure["split"] for failure in run.failures)
            recorder.details = {
                "depth_model": writer.settings()["depth_model"],
                "rows": {name: {"photos": len(split), "failed": failed[name]} for name, split in splits.items()},
                "failures": dict(Counter(failure["reason"] for failure in run.failures)),
                **run.speed(),
            }
            recorder.warnings += run_warnings(run, writer.product, rows, splits)
            recorder.write(settings.output_dir)
        state.wait_for_everyone()
        return recorder.result()


def depth_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a run in a few lines: photos with and without a map by split, speed."""
    lines = [f"{'split':7}{'photos':>8}{'maps':>8}{'failed':>8}"]
    for split, counts in result.details["rows"].items():
        photos, failed = counts["photos"], counts["failed"]
        lines.append(f"{split:7}{photos:>8}{photos - failed:>8}{failed:>8}")
    lines += [describe_speed(result.details), f"every figure: {Path(output_dir) / RESULT_NAME}"]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])

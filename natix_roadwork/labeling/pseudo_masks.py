"""The pseudo-mask run: one provider over the photos of a data set, a PNG and a record each.

`recipes/pseudo_masks.py` calls `mark_photos` and prints `pseudo_mask_report.mask_table`. The folder is that of
`photo_run.py`; a row has `train/0.png_seg_mask.json` and `train/0.png_seg_mask.png` (`data/masks.py`), the PNG last.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natix_roadwork.labeling.mask_writing import MaskWriter
from natix_roadwork.labeling.photo_run import load_photo_rows, run_photos, run_warnings
from natix_roadwork.labeling.providers import load_provider
from natix_roadwork.labeling.pseudo_mask_arguments import PseudoMaskArguments
from natix_roadwork.labeling.pseudo_mask_report import summarise
from natix_roadwork.runs import RunRecorder, RunResult


def mark_photos(settings: PseudoMaskArguments) -> RunResult:
    """Mark every photo that has no mask yet, and write masks, `failures.jsonl` and `result.json`.

    Args:
        settings: Provider, photos and where the masks go.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError: If the provider cannot start, the data or a setting cannot be used, or the folder holds masks of other
            settings, which are named.
    """
    with RunRecorder(dataclasses.asdict(settings), settings.seed) as recorder:
        state = settings.state()
        rows, splits = load_photo_rows(settings, MaskWriter.product, state)
        writer = MaskWriter(load_provider(settings, state.device, rows), settings)
        run = run_photos(writer, rows, splits, settings, state)
        recorder.data = rows.as_dict()
        if state.is_main_process:
            folder = Path(settings.output_dir)
            decided = writer.settings()["provider"]
            recorder.details = summarise(folder, splits, run.failures, decided, rows.lockbox) | run.speed()
            recorder.warnings += run_warnings(run, writer.product, rows, splits) + _warnings(recorder.details)
            recorder.write(folder)
        state.wait_for_everyone()
        return recorder.result()


def _warnings(details: Mapping[str, Any]) -> list[str]:
    found = []
    if details["unknown_classes"]:
        found.append(f"classes nobody looked for: {', '.join(details['unknown_classes'])}; their masks are unknown")
    return found + [f"{note}: {count}" for note, count in details["notes"].items()]

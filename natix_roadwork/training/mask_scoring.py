"""A trained model's masks against those of rows that it did not learn from.

In come the model and rows with mask labels; out go the figures of `data/mask_scores.py`, for `result.json`.
"""

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from natix_roadwork.data.draws import DrawRows
from natix_roadwork.data.mask_scores import Figures, MaskCounts, count_photo, mask_figures, objects_seen
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification


BATCH = 16


@dataclass(frozen=True)
class MaskScores:
    """Figures of a split.

    Attributes:
        figures: Name to value and interval, see `mask_scores.mask_figures`.
        seen: Class to the number of photos behind them.
        grid: Rows and columns of the patch grid.
    """

    figures: Figures
    seen: dict[str, dict[str, int]]
    grid: tuple[int, int]


def score_masks(model: RoadworkForImageClassification, rows: DrawRows, groups: ArrayLike, seed: int) -> MaskScores:
    """Decode the masks of all rows and compare them with their labels.

    Args:
        model: With a mask head, on its device.
        rows: With `mask_labels`, and pixels or the patch grid.
        groups: `(N,)` group of each row; the intervals resample whole groups.
        seed: Of the resamples.
    """
    model.eval()
    counts: list[MaskCounts] = []
    grid = (0, 0)
    for start in range(0, len(rows), BATCH):
        batch = rows.read(list(range(start, min(start + BATCH, len(rows)))))
        logits, grid = _decode(model, batch)
        labels = batch["mask_labels"].numpy()
        counts += [count_photo(found, wanted, grid) for found, wanted in zip(logits.numpy(), labels, strict=True)]
    return MaskScores(mask_figures(counts, groups, seed), objects_seen(counts), grid)


@torch.no_grad()
def _decode(model: RoadworkForImageClassification, batch: dict[str, Tensor]) -> tuple[Tensor, tuple[int, int]]:
    """Logits `(B, C, m, m)` of a batch, and the shape of the patch grid that they come from."""
    if "global_grid" in batch:
        grid = batch["global_grid"].to(model.device)
    else:
        grid = model.extract_tokens_and_grid(batch["pixel_values"][:, :1].to(model.device))[1]
    return model.decode_masks(grid).float().cpu(), (grid.shape[1], grid.shape[2])

"""MixUp and CutMix of whole examples, for photos that are bags of views.

In come a batch as the model takes it and a generator; out goes a batch with soft labels. Half of the rows stay as they
are, so that the model goes on seeing metadata: a mixed row is in no place and no weather, so its metadata are missing.

The consistency term stays right without a switch of its own: MixUp gives all views of a row the same share of the partner,
CutMix leaves the wide views, which that term compares, to one photo.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


MIXED_SHARE = 0.5
VIEW_INPUTS = ("pixel_values", "view_features")
MISSING = {
    "gps": float("nan"),
    "weather_ids": -1,
    "daytime_ids": -1,
    "scene_ids": -1,
    "text_embeddings": float("nan"),
    "weather_labels": -100,
    "extra_evidence": float("nan"),
}
Batch = Mapping[str, Tensor]


def mix_batch(
    batch: Batch,
    draw: np.random.Generator,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    wide_views: Sequence[int] = (0,),
) -> dict[str, Tensor]:
    """Mix about half of the rows of a batch with other rows of it.

    Args:
        batch: Inputs of the model with `labels`, rows first.
        draw: Every choice comes from it.
        mixup_alpha: MixUp with shares from Beta(alpha, alpha); 0 = off.
        cutmix_alpha: CutMix with such a share of views; 0 = off. With both on, each has half of the batches.
        wide_views: Views that CutMix leaves alone, `config.wide_views`.

    Raises:
        ValueError: If the batch holds an input that cannot be mixed, or CutMix finds only wide views.
    """
    if not (mixup_alpha or cutmix_alpha):
        return dict(batch)
    rows = len(batch["labels"])
    cuts = bool(cutmix_alpha) and (not mixup_alpha or draw.random() < 0.5)
    alpha = cutmix_alpha if cuts else mixup_alpha
    others = np.where(draw.random(rows) < MIXED_SHARE, draw.permutation(rows), np.arange(rows))
    shares = draw.beta(alpha, alpha, rows)
    device = batch["labels"].device
    partners = torch.from_numpy(others).to(device)
    if not cuts:
        return mixup(batch, partners, torch.from_numpy(np.maximum(shares, 1 - shares)).float().to(device))
    num_views = _views(batch).shape[1]
    tiles = np.setdiff1d(np.arange(num_views), wide_views)
    if not len(tiles):
        raise ValueError(
            f"cutmix_alpha={cutmix_alpha} needs views besides the wide ones, of {num_views} there are none"
        )
    taken = np.zeros((rows, num_views), dtype=bool)
    taken[:, tiles] = draw.random((rows, len(tiles))) < shares[:, None]
    return cutmix(batch, partners, torch.from_numpy(taken).to(device))


def mixup(batch: Batch, partners: Tensor, shares: Tensor) -> dict[str, Tensor]:
    """Blend each row with its partner: tokens or pixels of each view, and labels.

    Zhang et al., https://arxiv.org/abs/1710.09412; on frozen tokens this is manifold MixUp and costs no backbone pass.

    Args:
        batch: Inputs of the model with `labels` `(B,)` or `(B, 2)`.
        partners: `(B,)` row that each row is blended with; a row that is its own partner stays as it is.
        shares: `(B,)` weight of the row itself.

    Returns:
        The batch with labels `(B, 2)`; a row's own `view_mask` holds.

    Raises:
        ValueError: If the batch holds an input that cannot be mixed.
    """
    mixed = _start(batch, partners)
    name = _view_input(batch)
    views, weight = batch[name], shares.view(-1, *[1] * (batch[name].dim() - 1))
    other = views[partners]
    # w a + (1 - w) b, written so that equal values stay equal to the bit
    blend = other.float() + weight * (views.float() - other.float())
    mixed[name] = blend.round().to(views.dtype) if views.dtype == torch.uint8 else blend.to(views.dtype)
    mixed["labels"] = mixed["labels"][partners] + shares[:, None] * (mixed["labels"] - mixed["labels"][partners])
    return mixed


def cutmix(batch: Batch, partners: Tensor, taken: Tensor) -> dict[str, Tensor]:
    """Replace some views of each row by the same views of its partner.

    After Yun et al., https://arxiv.org/abs/1905.04899, with a view as the piece that is cut. A label says whether there
    is roadwork anywhere, so it is the larger of both and not a matter of area; where the partner's evidence lies in a view
    that was not taken, that label is wrong.

    Args:
        batch: Inputs of the model with `labels` `(B,)` or `(B, 2)`.
        partners: `(B,)` row that views are taken from; a row that is its own partner stays as it is.
        taken: `(B, V)` whether a view is taken; a row without any stays as it is.

    Returns:
        The batch with labels `(B, 2)`.

    Raises:
        ValueError: If the batch holds an input that cannot be mixed.
    """
    partners = torch.where(taken.any(dim=1), partners, torch.arange(len(partners), device=partners.device))
    mixed = _start(batch, partners)
    name = _view_input(batch)
    mixed[name] = torch.where(
        taken.view(*taken.shape, *[1] * (batch[name].dim() - 2)), batch[name][partners], batch[name]
    )
    if "view_mask" in batch:
        mixed["view_mask"] = torch.where(taken, batch["view_mask"][partners], batch["view_mask"])
    positive = torch.maximum(mixed["labels"][:, 1], mixed["labels"][partners, 1])
    mixed["labels"] = torch.stack((1 - positive, positive), dim=1)
    return mixed


def _start(batch: Batch, partners: Tensor) -> dict[str, Tensor]:
    """Copy a batch with soft labels, and without the metadata of rows that have a partner."""
    known = {*VIEW_INPUTS, *MISSING, "view_mask", "labels"}
    if unknown := sorted(batch.keys() - known):
        raise ValueError(f"{unknown} cannot be mixed; set mixup_alpha and cutmix_alpha to 0, or leave the input out")
    mixed = dict(batch)
    labels = batch["labels"]
    mixed["labels"] = labels.float() if labels.dim() == 2 else F.one_hot(labels.long(), 2).float()
    alone = partners == torch.arange(len(partners), device=partners.device)
    for name in batch.keys() & MISSING.keys():
        values = batch[name]
        mixed[name] = torch.where(alone.view(-1, *[1] * (values.dim() - 1)), values, values.new_tensor(MISSING[name]))
    return mixed


def _view_input(batch: Batch) -> str:
    names = [name for name in VIEW_INPUTS if name in batch]
    if len(names) != 1:
        raise ValueError(f"a batch to be mixed must hold one of {VIEW_INPUTS}, this one holds {names or 'none'}")
    return names[0]


def _views(batch: Batch) -> Tensor:
    return batch[_view_input(batch)]

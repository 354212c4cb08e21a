"""Dice and cross-entropy of masks: closed forms for empty, full, partial and unknown channels."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from natix_roadwork.model.losses import dice_loss, mask_loss


CELLS = 16 * 16
SURE = 30.0


def flat(logit: float) -> Tensor:
    return torch.full((1, 1, 16, 16), logit)


def test_a_mask_that_is_met_costs_nothing() -> None:
    half = torch.zeros(1, 1, 16, 16)
    half[..., :8] = 1
    for target in (torch.zeros_like(half), torch.ones_like(half), half):
        torch.testing.assert_close(dice_loss((2 * target - 1) * SURE, target), torch.zeros(1, 1))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_partial_share_that_is_met_costs_nothing(share: float) -> None:
    target = torch.full((1, 1, 16, 16), share)
    torch.testing.assert_close(dice_loss(flat(math.log(share / (1 - share))), target), torch.zeros(1, 1))


@pytest.mark.parametrize("probability", [0.01, 0.3, 0.8])
def test_dice_closed_forms(probability: float) -> None:
    logits, p = flat(math.log(probability / (1 - probability))), probability
    empty, full = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    partial = torch.full((1, 1, 16, 16), 0.25)
    of_empty = 1 - 1 / (CELLS * p**2 + 1)
    of_full = 1 - (2 * CELLS * p + 1) / (CELLS * p**2 + CELLS + 1)
    of_partial = 1 - (2 * CELLS * p / 4 + 1) / (CELLS * p**2 + CELLS / 16 + 1)
    for target, expected in ((empty, of_empty), (full, of_full), (partial, of_partial)):
        assert dice_loss(logits, target).item() == pytest.approx(expected, rel=1e-4)


def test_an_empty_mask_costs_its_cross_entropy_alone() -> None:
    loss, count = mask_loss(flat(-2.0), torch.zeros(1, 1, 16, 16))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-5)
    assert count.item() == 1


def test_rows_weigh_alike_and_unknown_masks_not_at_all() -> None:
    logits = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = (torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.2).float()
    labels[0, 1, 3, 5] = torch.nan  # one cell makes a channel unknown
    labels[2] = torch.nan
    loss, count = mask_loss(logits, labels)
    entropy = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none").mean(dim=(2, 3))
    dice = dice_loss(logits, labels.nan_to_num())
    rows = [entropy[0, 0] + dice[0, 0], (entropy[1] + dice[1]).mean()]
    torch.testing.assert_close(loss, torch.stack(rows).mean())
    assert count.item() == 2


@pytest.mark.parametrize("logit", [-200.0, -30.0, 0.0, 30.0, 200.0])
@pytest.mark.parametrize("kind", ["empty", "full", "partial", "unknown", "one unknown"])
def test_gradients_are_finite(logit: float, kind: str) -> None:
    logits = torch.full((2, 6, 8, 8), logit, requires_grad=True)
    labels = {"empty": torch.zeros, "full": torch.ones}.get(kind, torch.zeros)(2, 6, 8, 8)
    if kind == "partial":
        labels = torch.rand(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    elif kind == "unknown":
        labels[:] = torch.nan
    elif kind == "one unknown":
        labels[1, 2:] = torch.nan
    loss, count = mask_loss(logits, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    if kind == "unknown":
        assert count.item() == 0 and loss.item() == 0 and not logits.grad.any()


def test_an_unknown_mask_has_no_gradient() -> None:
    logits = torch.zeros(1, 6, 8, 8, requires_grad=True)
    labels = torch.ones(1, 6, 8, 8)
    labels[0, 4] = torch.nan
    mask_loss(logits, labels)[0].backward()
    assert not logits.grad[0, 4].any() and logits.grad[0, 3].all()

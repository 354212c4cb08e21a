from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainerControl

from natix_roadwork.training.callbacks import (
    EMA_FILE,
    EMACallback,
    PatienceCallback,
    ViewSelection,
    copy_into,
    trainable,
    warn_of_collapse,
)


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def constant(layer: nn.Linear, value: float) -> None:
    copy_into(layer, {name: torch.full_like(weight, value) for name, weight in trainable(layer).items()})


def test_average_follows_its_closed_form(layer: nn.Linear) -> None:
    ema = EMACallback(0.5)
    constant(layer, 1.0)
    ema.start(layer)
    expected = 1.0
    for update in range(1, 30):
        constant(layer, float(update))
        ema.update(layer, update)
        beta = min(0.5, (1 + update) / (10 + update))
        expected = beta * expected + (1 - beta) * update
    torch.testing.assert_close(ema.average["weight"], torch.full((2, 3), expected))


@pytest.mark.parametrize(("update", "beta"), [(1, 2 / 11), (8, 0.5), (10**6, 0.99)])
def test_decay_warms_up(update: int, beta: float) -> None:
    assert EMACallback(0.99).beta(update) == pytest.approx(beta)


def test_average_leaves_frozen_weights_out(layer: nn.Linear) -> None:
    layer.bias.requires_grad_(False)
    ema = EMACallback(0.9)
    ema.start(layer)
    assert set(ema.average) == {"weight"}


def test_raw_weights_return_bit_for_bit(layer: nn.Linear) -> None:
    raw, ema = layer.weight.detach().clone(), EMACallback(0.9)
    ema.start(layer)
    ema.average["weight"] += 1
    with pytest.raises(RuntimeError), ema.applied(layer), ema.applied(layer):
        assert torch.equal(layer.weight, ema.average["weight"])
        raise RuntimeError
    assert torch.equal(layer.weight, raw)


def test_average_is_saved_and_read(layer: nn.Linear, tmp_path: Path) -> None:
    ema, again = EMACallback(0.9), EMACallback(0.9)
    ema.start(layer)
    ema.save(tmp_path)
    again.load(tmp_path, layer)
    assert all(torch.equal(again.average[name], tensor) for name, tensor in ema.average.items())
    with pytest.raises(ValueError, match="other weights than the model"):
        again.load(tmp_path, nn.Sequential(layer))


def test_missing_average_is_named(layer: nn.Linear, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=EMA_FILE):
        EMACallback(0.9).load(tmp_path, layer)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay="):
        EMACallback(decay)


@pytest.mark.parametrize(("first_counted", "stops_at"), [(0, 3), (50, 4)])
def test_patience_is_counted_after_warm_up(first_counted: int, stops_at: int) -> None:
    patience, control = PatienceCallback(2), TrainerControl()
    args = SimpleNamespace(
        metric_for_best_model="mcc", greater_is_better=True, get_warmup_steps=lambda steps: first_counted
    )
    for evaluation in range(1, 10):
        state = SimpleNamespace(
            global_step=20 * evaluation, max_steps=1000, best_metric=0.9 if evaluation > 1 else None
        )
        patience.on_evaluate(args, state, control, {"eval_mcc": 0.5})
        if control.should_training_stop:
            break
    assert evaluation == stops_at


def selection_of(*indices: list[int]) -> dict[str, float]:
    selection = ViewSelection(4)
    for batch in indices:
        selection.update(torch.tensor([batch]))
    return selection.summary(selection.kept)


def test_shares_of_kept_views() -> None:
    figures = selection_of([0, 1], [0, 2], [0, 1], [0, 3])
    assert [figures[f"view_kept_0{view}"] for view in range(4)] == [1.0, 0.5, 0.25, 0.25]
    assert figures["view_collapse"] == 0.0


def test_entropy_is_one_for_equal_shares() -> None:
    assert selection_of([0, 1], [2, 3])["view_entropy"] == pytest.approx(1.0)
    assert selection_of([0], [0])["view_entropy"] == 0.0


def test_same_views_for_every_photo_are_a_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("natix_roadwork.training.callbacks.logger.warning", said.append)
    warn_of_collapse(selection_of([0, 1], [0, 2]))
    assert not said
    warn_of_collapse(selection_of([0, 2], [0, 2]))
    assert "[0, 2]" in said[0]

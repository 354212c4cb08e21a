import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from natix_roadwork import RoadworkForImageClassification
from natix_roadwork.calibration import (
    TEMPERATURES,
    AffineMap,
    anchor_none,
    estimate_prior,
    fit_platt,
    fit_temperature,
    fold_into_classifier,
    log_loss,
    refined_loss,
    shift_prior,
)
from natix_roadwork.metrics import binary_metrics


def sigmoid(margins: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * margins))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Margins that are calibrated: labels drawn with the probabilities they state."""
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 20_000)
    return margins, (rng.random(20_000) < 1 / (1 + np.exp(-margins))).astype(int)


def classes(rows: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins calibrated at the share: two normal classes two deviations apart, so the log-odds are linear."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < share).astype(int)
    values = rng.normal(2.0 * labels - 1.0, 1.0)
    return 2.0 * values + np.log(share / (1 - share)), labels


@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0])
def test_the_temperature_undoes_a_factor(drawn: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    margins, labels = drawn
    assert fit_temperature(factor * margins, labels) == pytest.approx(factor, rel=0.05)


def test_the_temperature_is_the_smallest_loss(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    margins, labels = 3 * drawn[0][:300], drawn[1][:300]
    losses = [log_loss(margins / temperature, labels) for temperature in np.geomspace(*TEMPERATURES, 2000)]
    assert refined_loss(margins, labels) <= min(losses) + 1e-9


def test_refined_loss_does_not_see_confidence_but_sees_order(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    margins, labels = drawn
    assert refined_loss(4 * margins, labels) == pytest.approx(refined_loss(margins, labels), abs=1e-6)
    assert log_loss(4 * margins, labels) > log_loss(margins, labels) + 0.1
    noisy = margins + np.random.default_rng(1).normal(0, 2, len(margins))
    assert refined_loss(noisy, labels) > refined_loss(margins, labels) + 0.03


def test_separated_rows_end_at_the_bound_and_a_wider_margin_is_better() -> None:
    labels = np.array([0, 0, 1, 1])
    margins = np.array([-0.1, -0.2, 0.1, 0.3])
    assert fit_temperature(margins, labels) == pytest.approx(TEMPERATURES[0])
    assert 0 < refined_loss(2 * margins, labels) < refined_loss(margins, labels)


def test_margins_that_say_the_opposite_end_at_the_other_bound() -> None:
    assert fit_temperature([3.0, 2.0, -1.0], [0, 0, 1]) == pytest.approx(TEMPERATURES[1])


def test_log_loss_is_exact_at_large_margins() -> None:
    assert log_loss([800.0, -800.0], [0, 1]) == pytest.approx(800.0)
    assert log_loss([0.0], [1]) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("margins", "labels", "message"),
    [
        ([], [], "at least one row"),
        ([1.0, 2.0], [1], r"shape \(2,\), labels \(1,\)"),
        ([1.0, np.nan], [1, 0], "row 1 has margin nan"),
        ([1.0, 2.0], [1, 2], "row 1 has margin 2.0 and label 2"),
    ],
)
def test_bad_rows_are_named(margins: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(margins, labels)


def test_weights_count_as_repeated_rows(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    margins, labels = 3 * drawn[0][:200], drawn[1][:200]
    counts = np.arange(200) % 3
    repeated = fit_temperature(np.repeat(margins, counts), np.repeat(labels, counts))
    assert fit_temperature(margins, labels, counts) == pytest.approx(repeated, rel=1e-4)


def test_platt_undoes_a_line(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    margins, labels = drawn
    found = fit_platt(4 * margins + 3, labels)
    assert (found.scale, found.offset) == (pytest.approx(0.25, rel=0.05), pytest.approx(-0.75, abs=0.06))
    assert binary_metrics(labels, sigmoid(found(4 * margins + 3)))["ece"] < 0.01


@pytest.mark.parametrize(
    ("margins", "labels"),
    [
        ([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1]),
        ([1e6, 2e6, -1e6, -2e6], [1, 1, 0, 0]),
        ([3.0, 2.0, -1.0], [0, 0, 1]),
        ([5.0, 5.0, 5.0, 5.0], [0, 1, 1, 1]),
        ([1e-9, -1e-9], [1, 0]),
    ],
    ids=["separable", "large", "opposite", "constant", "tiny"],
)
def test_platt_is_finite_at_the_edges(margins: list[float], labels: list[int]) -> None:
    found = fit_platt(margins, labels)
    assert 1 / TEMPERATURES[1] - 1e-9 <= found.scale <= 1 / TEMPERATURES[0] + 1e-9
    assert np.isfinite(found(margins)).all()


def test_platt_of_equal_margins_says_the_prior() -> None:
    assert sigmoid(fit_platt(np.full(4000, 5.0), np.arange(4000) % 5 > 0)(5.0)) == pytest.approx(0.8, abs=0.001)


@pytest.mark.parametrize(
    ("margins", "labels", "message"),
    [([1.0, 2.0], [1, 1], "labels of all 2 rows are 1; Platt's line needs"), ([], [], "at least one row")],
)
def test_platt_names_what_is_missing(margins: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_platt(margins, labels)


def test_maps_are_composed_in_order() -> None:
    first, second = AffineMap(2.0, 1.0), AffineMap(0.5, -3.0)
    np.testing.assert_allclose(first.then(second)([1.0, -4.0]), second(first([1.0, -4.0])))
    for values in ({"scale": 0.0}, {"scale": -1.0}, {"offset": np.nan}, {"scale": np.inf}):
        with pytest.raises(ValueError, match="must be finite, the scale positive"):
            AffineMap(**values)


def test_a_planted_prior_shift_is_undone() -> None:
    margins, _ = classes(20_000, 0.8)
    shifted = margins - np.log(4)  # what the same rows would have at 50/50
    np.testing.assert_allclose(shift_prior(0.8, 0.5)(margins), shifted)
    at_half, labels = classes(20_000, 0.5, seed=1)
    as_if_trained_at_80 = at_half + np.log(4)
    before = binary_metrics(labels, sigmoid(as_if_trained_at_80))
    after = binary_metrics(labels, sigmoid(shift_prior(0.8, 0.5)(as_if_trained_at_80)))
    assert after["ece"] < 0.015 < 0.05 < before["ece"]
    assert after["mcc"] > before["mcc"] + 0.02


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_an_unknown_prior_is_recovered(share: float) -> None:
    margins, _ = classes(5000, share, seed=3)
    as_if_trained_at_80 = margins + np.log(4) - np.log(share / (1 - share))
    assert estimate_prior(as_if_trained_at_80, 0.8) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("margins", "expected"),
    [([0.0, 0.0, 0.0], 0.5), ([900.0] * 4, 0.875), ([-900.0] * 4, 0.125), ([3.0], 0.5), ([1.0, -1.0], 0.5)],
)
def test_an_estimated_prior_stays_inside(margins: list[float], expected: float) -> None:
    assert estimate_prior(margins, 0.5) == pytest.approx(expected)


def test_estimated_prior_is_where_em_ends() -> None:
    margins, _ = classes(300, 0.3, seed=5)
    share = 0.8
    for _ in range(3000):
        share = float(sigmoid(shift_prior(0.3, share)(margins)).mean())
    assert estimate_prior(margins, 0.3) == pytest.approx(share, abs=1e-6)


def test_bad_priors_are_named() -> None:
    with pytest.raises(ValueError, match=r"target=1\.0 is not a share"):
        shift_prior(0.5, 1.0)
    with pytest.raises(ValueError, match=r"source=0\.0 is not a share"):
        estimate_prior([1.0], 0.0)
    with pytest.raises(ValueError, match="at least one row"):
        estimate_prior([], 0.5)


def _margins(logits: torch.Tensor) -> np.ndarray:
    return np.diff(logits.detach().double().numpy(), axis=-1)[..., 0]


def test_the_map_is_folded_into_the_model(tiny_model: RoadworkForImageClassification) -> None:
    views = torch.randn(5, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = tiny_model(views)
        fold_into_classifier(tiny_model, 1.7, -0.4)
        after = tiny_model(views)
    np.testing.assert_allclose(_margins(after.logits), 1.7 * _margins(before.logits) - 0.4, atol=1e-5)
    np.testing.assert_allclose(_margins(after.view_logits), 1.7 * _margins(before.view_logits) - 0.4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_the_map_is_folded_into_a_linear_layer(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 2, bias=bias)
    values = torch.randn(4, 6)
    before = _margins(layer(values))
    fold_into_classifier(layer, 0.3, 2.0)
    np.testing.assert_allclose(_margins(layer(values)), 0.3 * before + 2.0, atol=1e-6)


def test_the_map_is_folded_into_a_stock_model() -> None:
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32, num_labels=2
    )
    model = ViTForImageClassification(config).eval()
    changed = copy.deepcopy(model)
    fold_into_classifier(changed, 2.0, 1.0)
    photo = torch.randn(3, 3, 32, 32)
    np.testing.assert_allclose(_margins(changed(photo).logits), 2 * _margins(model(photo).logits) + 1, atol=1e-5)


def test_a_model_without_one_last_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has 0 linear layers of two outputs"):
        fold_into_classifier(nn.Linear(4, 3), 1.0, 0.0)
    with pytest.raises(ValueError, match="Sequential has 2 linear layers"):
        fold_into_classifier(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)), 1.0, 0.0)
    with pytest.raises(ValueError, match=r"scale=-1\.0"):
        fold_into_classifier(nn.Linear(4, 2), -1.0, 0.0)


@pytest.mark.parametrize("bias", [True, False])
def test_anchored_logits_keep_the_softmax_and_give_it_by_one_sigmoid(bias: bool) -> None:
    layer, features = nn.Linear(4, 2, bias=bias), torch.randn(6, 4)
    before = layer(features).softmax(-1)
    anchor_none(layer)
    after = layer(features)
    torch.testing.assert_close(after.softmax(-1), before)
    torch.testing.assert_close(after[:, 1].sigmoid(), before[:, 1])
    assert not after[:, 0].any()

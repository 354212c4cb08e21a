import numpy as np
import pytest

from natix_roadwork.calibration import TEMPERATURES, fit_temperature, log_loss, refined_loss


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Margins that are calibrated: labels drawn with the probabilities they state."""
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 20_000)
    return margins, (rng.random(20_000) < 1 / (1 + np.exp(-margins))).astype(int)


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

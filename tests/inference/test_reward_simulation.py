"""The expected reward of a pool of answers: against plain simulation, with two intervals that mean different things."""

import numpy as np
import pytest

from natix_roadwork.inference.reward_simulation import (
    ChallengePool,
    SimulationSettings,
    answer_counts,
    class_metrics,
    expected_reward,
)
from natix_roadwork.subnet.reward import simulate_rewards


FAST = SimulationSettings(num_challenges=300, num_sequences=300, num_samples=60)


def _pool(
    rows: int = 400, accuracy: float = 0.9, levels: int = 1, seed: int = 0, share: float = 0.0, group_size: int = 2
) -> ChallengePool:
    """Labels in pairs of rows, of which an exact share is answered right at each level."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(rows // 2) % 2, 2)
    answers = np.empty((rows, levels))
    for level in range(levels):
        for label in (0, 1):
            found = rng.permutation(np.flatnonzero(labels == label))
            right = np.arange(len(found)) < round(accuracy * len(found))
            answers[found, level] = np.where(right, label, 1 - label) * 0.8 + 0.1
    groups = np.array([f"g{row // group_size}" for row in range(rows)])
    return ChallengePool(labels, groups, answers, np.zeros(rows, dtype=bool), share)


def _independent(accuracy: float) -> float:
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 2, (2000, 300))
    answers = np.where(rng.random(labels.shape) < accuracy, labels, 1 - labels)
    return simulate_rewards(answers, labels)[:, 100:].mean()


@pytest.mark.parametrize("accuracy", [0.75, 0.9, 0.98])
def test_reward_of_a_pool_is_that_of_its_accuracy(accuracy: float) -> None:
    found = expected_reward(_pool(accuracy=accuracy), FAST)
    for name in ("mean_reward", "ema_score"):
        assert found[name]["value"] == pytest.approx(_independent(accuracy), abs=0.015)
        for interval in (found[name], found[f"{name}_one_miner"]):
            assert interval["low"] < interval["value"] < interval["high"]


def test_rows_and_luck_are_two_uncertainties() -> None:
    """More rows shrink the interval over rows, longer sequences the one over sequences; neither touches the other."""
    width = {}
    for rows, challenges in ((100, 300), (1600, 300), (100, 1500)):
        settings = SimulationSettings(challenges, 300, 60)
        found = expected_reward(_pool(rows), settings)
        width[rows, challenges] = [
            found[name]["high"] - found[name]["low"] for name in ("mean_reward", "mean_reward_one_miner")
        ]
    (of_rows, of_luck), (many_rows, same_luck), (same_rows, less_luck) = width.values()
    assert many_rows < 0.5 * of_rows and same_luck == pytest.approx(of_luck, rel=0.25)
    assert less_luck < 0.6 * of_luck and same_rows == pytest.approx(of_rows, rel=0.4)


def test_interval_over_rows_draws_whole_groups() -> None:
    """With fifty rows a group the errors come in lumps, so that other rows would differ more."""
    rng = np.random.default_rng(0)
    rows = 400
    labels = np.arange(rows) % 2
    wrong = np.repeat(rng.permutation(8) < 1, 50)
    answers = np.where(wrong, 1 - labels, labels)[:, None] * 0.8 + 0.1
    widths = []
    for groups in (np.repeat(np.arange(8), 50).astype(str), np.arange(rows).astype(str)):
        found = expected_reward(ChallengePool(labels, groups, answers, np.zeros(rows, dtype=bool)), FAST)
        widths.append(found["mean_reward"]["high"] - found["mean_reward"]["low"])
    assert widths[0] > 2 * widths[1]


def test_same_seed_same_figures() -> None:
    assert expected_reward(_pool(), FAST) == expected_reward(_pool(), FAST)


def test_levels_are_drawn_alike() -> None:
    pool = _pool(levels=2)
    answers = np.stack([pool.labels.astype(float), 1.0 - pool.labels], axis=1)
    half = ChallengePool(pool.labels, pool.groups, answers, pool.synthetic)
    assert expected_reward(half, FAST)["mean_reward"]["value"] == pytest.approx(_independent(0.5), abs=0.01)
    assert expected_reward(half.level(0), FAST)["mean_reward"]["value"] == 1.0
    assert expected_reward(half.level(1), FAST)["mean_reward"]["value"] == 0.0


@pytest.mark.parametrize("share", [0.5, 1 / 3])
def test_generated_pictures_are_a_share_of_the_challenges(share: float) -> None:
    """Photos all right, generated ones all wrong: the accuracy is the share of photos."""
    pool = _pool(rows=40, accuracy=1.0)
    synthetic = np.arange(40) >= 30
    answers = np.where(synthetic, 1 - pool.labels, pool.labels)[:, None].astype(float)
    mixed = ChallengePool(pool.labels, pool.groups, answers, synthetic, share)
    assert expected_reward(mixed, FAST)["mean_reward"]["value"] == pytest.approx(_independent(1 - share), abs=0.015)
    assert class_metrics(mixed, synthetic=False)["mcc"]["value"] == 1.0
    assert class_metrics(mixed, synthetic=True)["mcc"]["value"] == -1.0


def test_missing_answers_cost_reward_and_are_counted_but_not_scored() -> None:
    pool = _pool(accuracy=1.0)
    answers = pool.answers.copy()
    answers[::10] = -1
    answers[5] = 1.5
    answers[7] = 0.5
    holes = ChallengePool(pool.labels, pool.groups, answers, pool.synthetic)
    counts = answer_counts(holes)
    assert (counts["answers"], counts["no_answer"], counts["no_probability"]) == (400, 40, 1)
    assert counts["ties_at_half"] == 1
    without = ChallengePool(pool.labels, pool.groups, np.where(answers == 1.5, 0.9, answers), pool.synthetic)
    assert expected_reward(without, FAST)["mean_reward"]["value"] == pytest.approx(0.9, abs=0.02)
    assert class_metrics(without, synthetic=False)["accuracy"]["value"] > 0.99
    nothing = ChallengePool(pool.labels, pool.groups, np.full((400, 1), -1.0), pool.synthetic)
    assert expected_reward(nothing, FAST)["mean_reward"]["value"] == 0.0
    assert class_metrics(nothing, synthetic=False)["mcc"] == {"value": None, "low": None, "high": None}


def test_one_group_has_no_interval_over_rows() -> None:
    pool = _pool(rows=40)
    alone = ChallengePool(pool.labels, np.full(40, "g"), pool.answers, pool.synthetic)
    found = expected_reward(alone, FAST)
    assert found["mean_reward"]["low"] is None and found["mean_reward_one_miner"]["low"] is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(400, dtype=int)}, "400 photos to draw challenges from, 0 with roadwork"),
        ({"synthetic_share": 0.5}, "0 generated pictures to draw challenges from"),
        ({"answers": np.zeros(400)}, r"answers has shape \(400,\)"),
    ],
)
def test_a_pool_that_cannot_be_drawn_from_is_named(change: dict, message: str) -> None:
    pool = _pool()
    values = {name: getattr(pool, name) for name in ("labels", "groups", "answers", "synthetic", "synthetic_share")}
    with pytest.raises(ValueError, match=message):
        ChallengePool(**values | change)


@pytest.mark.parametrize(
    ("counts", "message"), [({"num_challenges": 100}, "num_challenges=100"), ({"num_samples": 1}, "num_samples=1")]
)
def test_too_few_are_named(counts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulationSettings(**counts)

"""The simulated reward: golden values, the rules one by one, and a naive reference that follows them with sklearn."""

import time

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef

from natix_roadwork.subnet.reward import ema_scores, simulate_rewards


# Mean rewards of independent answers of one accuracy as documented, each from three sequences of 100 challenges.
DOCUMENTED = {0.90: 0.58, 0.937: 0.72, 0.96: 0.85, 0.98: 0.93, 0.99: 0.97}


def _naive(probabilities: np.ndarray, labels: np.ndarray) -> list[float]:
    rewards = []
    for number, answer in enumerate(probabilities):
        start = max(0, number - 99)
        window = [(p, y) for p, y in zip(probabilities[start : number + 1], labels[start : number + 1], strict=True)]
        if answer == -1 or not 0 <= answer <= 1 or any(p != -1 and np.round(p) not in (0, 1) for p, _ in window):
            rewards.append(0.0)
            continue
        last = [(np.round(p), y) for p, y in window[-10:] if p != -1]
        decided, truth = zip(*[(np.round(p), y) for p, y in window if p != -1], strict=True)
        both = len(set(truth)) > 1 and len(set(decided)) > 1
        mcc = max(0.0, matthews_corrcoef(truth, decided)) if both else 0.0
        accuracy = accuracy_score([y for _, y in last], [p for p, _ in last])
        rewards.append((0.5 * mcc + 0.5 * accuracy) ** 3)
    return rewards


def _answers(labels: np.ndarray, accuracy: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(labels.shape) < accuracy, labels, 1 - labels) * 0.8 + 0.1


def test_golden_value_of_a_validators_log() -> None:
    labels = np.arange(100) % 2
    answers = labels * 0.98 + 0.01
    answers[20] = 0.9  # one false alarm, outside the last ten
    assert simulate_rewards(answers, labels)[-1] == pytest.approx(0.9705872644155896, abs=1e-14)


def test_first_right_answer_gives_an_eighth() -> None:
    assert simulate_rewards([0.9], [1]).tolist() == [0.125]
    assert simulate_rewards([0.9], [0]).tolist() == [0.0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("accuracy", [0.3, 0.7, 0.97])
def test_equals_the_naive_reference(seed: int, accuracy: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 400)
    answers = _answers(labels, accuracy, rng)
    answers[rng.random(400) < 0.1] = -1
    answers[rng.random(400) < 0.05] = 0.5
    answers[rng.choice(200, 3)] = [1.2, -0.3, np.nan]
    answers[50:65] = -1  # no answer in the whole window of ten
    assert simulate_rewards(answers, labels) == pytest.approx(_naive(answers, labels), abs=1e-12)


def test_one_class_asked_or_answered_leaves_accuracy_alone() -> None:
    assert simulate_rewards(np.full(30, 0.9), np.ones(30)).tolist() == [0.125] * 30
    labels = np.arange(30) % 2
    assert simulate_rewards(np.full(30, 0.9), labels)[9:] == pytest.approx(0.25**3)


def test_negative_mcc_counts_as_zero() -> None:
    labels = np.arange(100) % 2
    answers = np.concatenate([1.0 - labels[:90], labels[90:]])
    assert simulate_rewards(answers, labels)[-1] == 0.125


def test_exactly_half_is_none() -> None:
    assert simulate_rewards([0.5, 0.5], [0, 1]) == pytest.approx([0.125, 0.25**3])
    assert simulate_rewards([np.nextafter(0.5, 1)], [1]).tolist() == [0.125]


def test_no_answer_pays_nothing_and_is_dropped_after_the_windows_are_cut() -> None:
    labels = np.arange(200) % 2
    answers = labels.astype(float)
    answers[100] = 1 - answers[100]
    answers[101:110] = -1
    rewards = simulate_rewards(answers, labels)
    assert (rewards[101:110] == 0).all()
    # Cut first, the last ten hold the right answer 110 alone; with -1 dropped first they would reach back to 100.
    assert rewards[110] == pytest.approx((0.5 * _mcc(answers, labels, 110) + 0.5) ** 3)


def _mcc(answers: np.ndarray, labels: np.ndarray, number: int) -> float:
    part = slice(number - 99, number + 1)
    kept = answers[part] != -1
    return matthews_corrcoef(labels[part][kept], np.round(answers[part][kept]))


@pytest.mark.parametrize("answer", [1.2, -0.2, 1.0000001])
def test_an_answer_out_of_range_pays_nothing_but_counts(answer: float) -> None:
    labels = np.arange(40) % 2
    answers = labels.astype(float)
    number = 30 + (answer > 0)
    answers[number] = answer
    rewards = simulate_rewards(answers, labels)
    assert rewards[number] == 0 and rewards[number + 1 :].tolist() == [1.0] * (39 - number)


@pytest.mark.parametrize("answer", [np.nan, np.inf, 1.7])
def test_what_is_no_class_pays_nothing_until_it_leaves_the_window(answer: float) -> None:
    labels = np.arange(300) % 2
    answers = labels.astype(float)
    answers[120] = answer
    rewards = simulate_rewards(answers, labels)
    assert (rewards[120:220] == 0).all() and (rewards[2:120] == 1).all() and (rewards[220:] == 1).all()


def test_score_is_a_moving_average_of_the_rewards() -> None:
    rewards = np.random.default_rng(0).random(50)
    score, expected = 0.0, []
    for reward in rewards:
        score = 0.05 * reward + 0.95 * score
        expected.append(score)
    assert ema_scores(rewards) == pytest.approx(expected)
    assert ema_scores(np.stack([rewards, rewards * 0]))[1].tolist() == [0.0] * 50


def test_several_miners_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (5, 150))
    answers = _answers(labels, 0.9, rng)
    together = simulate_rewards(answers, labels)
    assert (together == np.stack([simulate_rewards(*pair) for pair in zip(answers, labels, strict=True)])).all()


@pytest.mark.parametrize(("accuracy", "documented"), DOCUMENTED.items())
def test_mean_reward_of_an_accuracy(accuracy: float, documented: float) -> None:
    """The documented figure is a plausible mean of three sequences, and ours is what a binomial count expects."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (3000, 200))
    rewards = simulate_rewards(_answers(labels, accuracy, rng), labels)[:, 100:].mean(axis=1)
    of_three = rewards.reshape(1000, 3).mean(axis=1)
    assert abs(documented - rewards.mean()) < max(0.02, 2 * of_three.std())
    expected = (0.5 * (2 * accuracy - 1) + 0.5 * accuracy) ** 3  # a window that holds exactly its expectation
    assert rewards.mean() == pytest.approx(expected, abs=0.02)


def test_a_tenth_without_an_answer() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (200, 400))
    answers = np.where(rng.random(labels.shape) < 0.1, -1.0, labels)
    # The documented 0.92 is of three sequences too; exactly, a tenth of the rewards are 0 and the others 1.
    assert simulate_rewards(answers, labels)[:, 100:].mean() == pytest.approx(0.9, abs=0.01)


def test_a_million_challenges_take_a_second() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 1_000_000)
    answers = _answers(labels, 0.95, rng)
    started = time.process_time()
    simulate_rewards(answers, labels)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.5], [1]), r"probabilities has shape \(2,\), labels \(1,\)"),
        (([0.5, 0.5], [1, 2]), r"labels\[1\]=2 is neither 0 nor 1"),
        ((0.5, 1), "one value a challenge"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_rewards(*arguments)
    with pytest.raises(ValueError, match="alpha=0"):
        ema_scores([1.0], alpha=0)

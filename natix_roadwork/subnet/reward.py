"""What a validator of NATIX's subnet 72 pays a miner, challenge by challenge.

In: a miner's answers and the true labels in the order of the challenges. Out: the reward of each, and the score, which
is their moving average. `inference/reward_simulation.py` draws the challenges.

The rules are those of `natix/validator/reward.py` and `miner_performance_tracker.py` of January and May 2026 in
https://github.com/natixnetwork/streetvision-subnet: the mean of MCC over the last 100 challenges and accuracy over the
last 10, cubed. Windows are counted by running sums, so that a million challenges take a fraction of a second.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import lfilter

from natix_roadwork.metrics import mcc_of_counts


MCC_WINDOW = 100
ACCURACY_WINDOW = 10
EXPONENT = 3.0
EMA_ALPHA = 0.05
NO_ANSWER = -1.0  # what a miner sends by default: an exception, or nothing within the time limit
TIME_LIMIT = 9.0  # seconds a validator waits

FloatArray = NDArray[np.float64]


def simulate_rewards(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Compute the reward of each challenge, in order, for a miner that starts without a history.

    A probability is rounded half to even, so that exactly 0.5 counts as None. Windows are cut first; answers of -1 in
    them are dropped after. MCC counts as 0 where it is negative, and while one class only was asked for or answered.
    The reward is 0 for an answer of -1 and for one outside [0, 1]. An answer that rounds to neither 0 nor 1, such as NaN,
    makes the validator's metrics fail: every reward is 0 until it has left the window of 100. (The code computes the two
    windows apart and would pay the half for accuracy, at most 0.125, once it has left the last 10; that is left out.)

    Args:
        probabilities: `(N,)`, or `(S, N)` for S miners, answers in order; -1 = no answer.
        labels: Labels of the same shape, 0 None, 1 Roadwork.

    Returns:
        Rewards in [0, 1] of the same shape.

    Raises:
        ValueError: If the shapes differ or a label is neither 0 nor 1.
    """
    answers, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if answers.shape != truth.shape or answers.ndim == 0:
        raise ValueError(
            f"probabilities has shape {answers.shape}, labels {truth.shape}; both need one value a challenge"
        )
    wrong = np.argwhere(~np.isin(truth, (0, 1)))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        raise ValueError(f"labels{list(place)}={truth[place]} is neither 0 nor 1 ({len(wrong)} such challenges)")
    decided = np.round(answers)
    answered = answers != NO_ANSWER
    positive, said = truth == 1, decided == 1
    known = answered & ((decided == 0) | said)
    cells = (known & positive & said, known & ~positive & said, known & ~positive & ~said, known & positive & ~said)
    mcc = mcc_of_counts(*(_in_window(cell, MCC_WINDOW) for cell in cells)).clip(min=0.0)
    right = _in_window(cells[0] | cells[2], ACCURACY_WINDOW)
    counted = _in_window(known, ACCURACY_WINDOW)
    accuracy = np.divide(right, counted, out=np.zeros_like(right), where=counted > 0)
    paid = (answers >= 0.0) & (answers <= 1.0) & (_in_window(answered & ~known, MCC_WINDOW) == 0)
    return np.where(paid, (0.5 * mcc + 0.5 * accuracy) ** EXPONENT, 0.0)


def ema_scores(rewards: ArrayLike, alpha: float = EMA_ALPHA) -> FloatArray:
    """Compute a validator's score of a miner after each challenge: the moving average of its rewards, from 0 on.

    Args:
        rewards: `(N,)` or `(S, N)` rewards in order.
        alpha: Weight of the newest reward, in (0, 1].

    Raises:
        ValueError: If alpha is out of range.
    """
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha={alpha!r} is not in (0, 1]")
    return lfilter([alpha], [1.0, alpha - 1.0], np.asarray(rewards, dtype=np.float64), axis=-1)


def _in_window(events: NDArray[np.bool_], window: int) -> FloatArray:
    """Count events among the last `window` challenges, this one included; `(..., N)` -> `(..., N)`."""
    sums = np.cumsum(events, axis=-1, dtype=np.int64)
    sums[..., window:] -= sums[..., :-window].copy()
    return sums.astype(np.float64)

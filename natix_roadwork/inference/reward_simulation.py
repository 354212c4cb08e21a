"""The reward to be expected on NATIX's subnet, from a model's answers to the challenges that could be drawn.

In comes a `ChallengePool`: rows with labels, groups, and an answer for each augmentation level. Out go the mean reward
and the score with two intervals each, which say different things: what one miner may see of the same rows, and what
other rows like these would give. `simulation_run.py` fills pools from predictions or from a model folder.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.metrics import draw_weights, group_codes, metrics_with_intervals
from natix_roadwork.subnet.reward import MCC_WINDOW, NO_ANSWER, ema_scores, simulate_rewards


CLASS_METRICS = ("mcc", "accuracy", "mcc_balanced")
REWARDS = ("mean_reward", "ema_score")
ONE_MINER = "_one_miner"  # end of the names of intervals over sequences
SEQUENCES_A_SAMPLE = 10  # sequences that estimate the expected reward of one bootstrap sample
UNCERTAINTY = {
    "low and high": "bootstrap over the groups of rows: other rows like these; one sample averages ten sequences",
    f"low and high of *{ONE_MINER}": "over simulated sequences of challenges from the same rows: luck of the draw",
}

FloatArray = NDArray[np.float64]
Interval = dict[str, float | None]


@dataclass(frozen=True)
class ChallengePool:
    """The challenges that can be drawn, with the answers to them.

    Attributes:
        labels: `(N,)` 0 None, 1 Roadwork.
        groups: `(N,)` group of each row; rows of one group are drawn together by the bootstrap.
        answers: `(N, L)` probability of roadwork at each of L equally likely levels; -1 = no answer.
        synthetic: `(N,)` whether the picture was generated.
        synthetic_share: Share of the challenges with a generated picture; 0 without such rows.

    Raises:
        ValueError: If shapes do not fit, or photos or generated pictures lack a class.
    """

    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    answers: FloatArray
    synthetic: NDArray[np.bool_]
    synthetic_share: float = 0.0

    def __post_init__(self) -> None:
        """Check shapes and classes."""
        rows = len(self.labels)
        if self.answers.ndim != 2 or {len(self.groups), len(self.answers), len(self.synthetic)} != {rows}:
            raise ValueError(
                f"answers has shape {self.answers.shape}, with {rows} labels, {len(self.groups)} groups and "
                f"{len(self.synthetic)} marks of generated pictures; give one line a row"
            )
        for what, chosen in (("photos", ~self.synthetic), ("generated pictures", self.synthetic)):
            counts = np.bincount(self.labels[chosen], minlength=2).tolist()
            if 0 in counts and (what == "photos" or self.synthetic_share):
                raise ValueError(
                    f"{sum(counts)} {what} to draw challenges from, {counts[1]} with roadwork; labels are drawn half and "
                    "half, so both classes are needed"
                )

    def level(self, number: int) -> "ChallengePool":
        """Return the pool of one augmentation level alone."""
        return ChallengePool(self.labels, self.groups, self.answers[:, [number]], self.synthetic, self.synthetic_share)


@dataclass(frozen=True)
class SimulationSettings:
    """How much is simulated.

    Attributes:
        num_challenges: Challenges of one sequence; the first 100, whose window is still filling, are not scored.
        num_sequences: Sequences drawn from the rows as they are.
        num_samples: Bootstrap samples of the rows.
        seed: Seed of all draws.

    Raises:
        ValueError: If there are too few of something.
    """

    num_challenges: int = 500
    num_sequences: int = 1000
    num_samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.num_challenges <= MCC_WINDOW:
            raise ValueError(
                f"num_challenges={self.num_challenges}; the first {MCC_WINDOW} fill the window and are not scored, so give more"
            )
        if self.num_sequences < 2 or self.num_samples < 2:
            raise ValueError(
                f"num_sequences={self.num_sequences}, num_samples={self.num_samples}; intervals need 2 or more of each"
            )


def expected_reward(pool: ChallengePool, settings: SimulationSettings) -> dict[str, Interval]:
    """Simulate sequences of challenges: labels half and half, rows with replacement, levels alike.

    Args:
        pool: What can be drawn.
        settings: How much is simulated.

    Returns:
        `{name: {"value", "low", "high"}}`, 95 % intervals. `mean_reward` and `ema_score` (the score after the last
        challenge) have intervals over rows; `mean_reward_one_miner` and `ema_score_one_miner` hold the same values with
        intervals over sequences. Over rows there is none with a single group.
    """
    rng = np.random.default_rng(settings.seed)
    sequences = _simulate(pool, np.ones(len(pool.labels)), settings.num_sequences, settings.num_challenges, rng)
    codes = group_codes(pool.groups, len(pool.labels))
    samples: list[tuple[float, ...]] = []
    if codes.max() > 0:
        for weights in (row for chunk in draw_weights(codes, settings.num_samples, settings.seed) for row in chunk):
            if _can_draw(pool, weights):
                drawn = _simulate(pool, weights, SEQUENCES_A_SAMPLE, settings.num_challenges, rng)
                samples.append(tuple(float(values.mean()) for values in drawn))
    found = {}
    for number, name in enumerate(REWARDS):
        value = float(sequences[number].mean())
        found[name] = {"value": value, **_bounds([sample[number] for sample in samples])}
        found[name + ONE_MINER] = {"value": value, **_bounds(sequences[number].tolist())}
    return found


def class_metrics(pool: ChallengePool, synthetic: bool, num_samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Compute MCC, accuracy and MCC at 50/50 of the photos, or of the generated pictures, at all levels together.

    Answers of -1, and those that are no probability, are left out, as the validator drops them; `answer_counts` counts them.

    Returns:
        `{metric: {"value", "low", "high"}}` with 95 % intervals by group; every value None where nothing was answered.
    """
    chosen = pool.synthetic == synthetic
    answers = pool.answers[chosen]
    levels = answers.shape[1]
    valid = ((answers >= 0) & (answers <= 1)).ravel()
    if not valid.any():
        return {name: {"value": None, "low": None, "high": None} for name in CLASS_METRICS}
    labels, groups = (np.repeat(values[chosen], levels)[valid] for values in (pool.labels, pool.groups))
    found = metrics_with_intervals(labels, answers.ravel()[valid], groups, num_samples=num_samples, seed=seed)
    return {name: found[name] for name in CLASS_METRICS}


def answer_counts(pool: ChallengePool) -> dict[str, int]:
    """Count rows, groups and answers: all, none (-1), and those that are no probability."""
    answers = pool.answers
    none = answers == NO_ANSWER
    return {
        "photos": int((~pool.synthetic).sum()),
        "generated": int(pool.synthetic.sum()),
        "roadwork": int(pool.labels.sum()),
        "groups": len(np.unique(pool.groups)),
        "answers": answers.size,
        "no_answer": int(none.sum()),
        "no_probability": int((~none & ~((answers >= 0) & (answers <= 1))).sum()),
        "ties_at_half": int((answers == 0.5).sum()),
    }


def _simulate(
    pool: ChallengePool, weights: FloatArray, num_sequences: int, num_challenges: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the mean reward of the scored challenges and the last score of each sequence; `(S,)` each."""
    shape = (num_sequences, num_challenges)
    labels = rng.integers(0, 2, shape)
    generated = rng.random(shape) < pool.synthetic_share
    rows = np.empty(shape, dtype=np.int64)
    for label in (0, 1):
        for synthetic in (False, True):
            wanted = (labels == label) & (generated == synthetic)
            if wanted.any():
                rows[wanted] = _draw(pool, weights, label, synthetic, int(wanted.sum()), rng)
    levels = rng.integers(0, pool.answers.shape[1], shape)
    rewards = simulate_rewards(pool.answers[rows, levels], labels)
    return rewards[:, MCC_WINDOW:].mean(axis=1), ema_scores(rewards)[:, -1]


def _draw(
    pool: ChallengePool, weights: FloatArray, label: int, synthetic: bool, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw rows of a label and kind with replacement, each as likely as its weight."""
    found = np.flatnonzero((pool.labels == label) & (pool.synthetic == synthetic) & (weights > 0))
    sums = np.cumsum(weights[found])
    return found[np.searchsorted(sums, rng.random(count) * sums[-1], side="right")]


def _can_draw(pool: ChallengePool, weights: FloatArray) -> bool:
    """Tell whether a bootstrap sample holds both classes of what is drawn from."""
    kinds = (False, True) if pool.synthetic_share else (False,)
    return all(
        ((pool.labels == label) & (pool.synthetic == kind) & (weights > 0)).any() for label in (0, 1) for kind in kinds
    )


def _bounds(samples: list[float]) -> Interval:
    if not samples:
        return {"low": None, "high": None}
    low, high = np.quantile(samples, [0.025, 0.975]).tolist()
    return {"low": low, "high": high}

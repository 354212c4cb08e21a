"""A harness for scores that claim to be honest: on labels that nothing can be learned from they must lie around 0.

Give `null_scores` a function from seed to scores, and `dishonest` what it returns. A score passes if

- its 95 % interval contains 0 in at least 90 % of the runs (with fewer than ten runs, one may miss), and
- its mean over the runs lies within 2.5 standard errors of that mean. With 20 runs that is .56 of the standard error of a
  single score (its deviation over runs), so a bias of one standard error of a score does not pass. One standard error of
  the mean would be too narrow a bar: a perfectly honest score misses it in a third of all sets of seeds.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from natix_roadwork.data.folds import logistic_out_of_fold
from natix_roadwork.data.predictions import Predictions
from tests.inference.member_rows import fold_numbers, group_labels, prediction


SMALLEST_COVERAGE = 0.9
LARGEST_T = 2.5

Scores = Mapping[str, Mapping[str, float]]


def shuffled_members(seed: int, num_members: int = 4, rows: int = 400, share: float = 0.5) -> list[Predictions]:
    """Members fitted out of fold, in five folds of whole groups, on six random features each; labels are random by group."""
    rng = np.random.default_rng(seed)
    labels = group_labels(rows, share, rng)
    numbers = fold_numbers(labels, 5, seed)
    folds = [(np.flatnonzero(numbers != fold), np.flatnonzero(numbers == fold)) for fold in range(5)]
    made = []
    for number in range(num_members):
        probabilities = logistic_out_of_fold(rng.normal(size=(rows, 6)), labels, folds, c=0.1)
        made.append(prediction(f"m{number}", np.log(probabilities / (1 - probabilities)), labels, numbers))
    return made


def null_scores(score: Callable[[int], Scores], seeds: Iterable[int]) -> dict[str, np.ndarray]:
    """Run `score` (seed -> name -> {"value", "low", "high"}) and return `(R, 3)` by name."""
    runs = [score(seed) for seed in seeds]
    return {name: np.array([[run[name][key] for key in ("value", "low", "high")] for run in runs]) for name in runs[0]}


def dishonest(scores: Mapping[str, np.ndarray]) -> list[str]:
    """Name each score that fails, with its figures."""
    failures = []
    for name, values in scores.items():
        mean, deviation = values[:, 0].mean(), values[:, 0].std(ddof=1)
        t = mean / (deviation / np.sqrt(len(values)))
        coverage = ((values[:, 1] <= 0) & (values[:, 2] >= 0)).mean()
        if abs(t) > LARGEST_T or round(len(values) * (1 - coverage)) > max(1, len(values) * (1 - SMALLEST_COVERAGE)):
            failures.append(
                f"{name}: mean {mean:+.3f}, {t:+.1f} standard errors of it, deviation {deviation:.3f}; {coverage:.0%} of "
                f"{len(values)} intervals contain 0"
            )
    return failures

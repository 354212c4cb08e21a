"""Where labels say nothing, choosing a TTA mode gains nothing: the nested score is that of a coin."""

import numpy as np
import pytest

from natix_roadwork.inference.tta_acceptance import compare_modes, select_out_of_fold
from natix_roadwork.inference.tta_variants import Variants, side_by_side
from natix_roadwork.metrics import metrics_with_intervals
from tests.tta_members import drawn_statistics, lines_of


ROWS, GROUPS, TRANSFORMS, WIDTH = 180, 60, 16, 6


def shuffled(seed: int) -> Variants:
    """Answers that follow the features, and labels shuffled by group."""
    draw = np.random.default_rng(seed)
    groups = np.arange(ROWS) * GROUPS // ROWS
    labels = draw.permutation(np.arange(GROUPS) % 2)[groups]
    features = 2 + draw.standard_normal((ROWS, 1, WIDTH)) + 0.5 * draw.standard_normal((ROWS, TRANSFORMS, WIDTH))
    margins = features[..., 0] - 2 + 0.5 * draw.standard_normal((ROWS, TRANSFORMS))
    return side_by_side([lines_of("one", margins, labels, groups, features)], {"one": drawn_statistics()})


def selected_scores(seeds: range) -> tuple[np.ndarray, float]:
    """MCC of the choice in each run, and the share of 95 % intervals that contain 0."""
    found = []
    for seed in seeds:
        variants = shuffled(seed)
        likely = select_out_of_fold(variants, num_folds=3, seed=seed, num_samples=200).probabilities
        found.append(metrics_with_intervals(variants.labels, likely, groups=variants.groups, seed=seed)["mcc"])
    return np.array([mcc["value"] for mcc in found]), np.mean([mcc["low"] <= 0 <= mcc["high"] for mcc in found])


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def test_choosing_a_mode_on_shuffled_labels_claims_nothing() -> None:
    scores, covered = selected_scores(range(20))
    assert covered >= 0.9
    assert abs(scores.mean()) <= standard_error(scores)


@pytest.mark.slow
def test_many_choices_on_shuffled_labels_claim_nothing() -> None:
    scores, covered = selected_scores(range(20, 220))
    assert covered >= 0.9
    assert abs(scores.mean()) <= 2.5 * standard_error(scores)


def test_the_best_mode_picked_on_the_rows_that_score_it_would_claim_a_gain() -> None:
    claims = np.array(
        [
            max(score.over_none.value for score in compare_modes(shuffled(seed), 3, seed, num_samples=2).values())
            for seed in range(20)
        ]
    )
    assert claims.mean() > 3 * standard_error(claims)

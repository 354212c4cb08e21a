"""Where labels say nothing, choosing a TTA mode gains nothing: the nested score is that of a coin."""

import numpy as np

from natix_roadwork.inference.tta_acceptance import compare_modes, select_out_of_fold
from natix_roadwork.inference.tta_variants import side_by_side
from natix_roadwork.metrics import metrics_with_intervals
from tests.tta_members import drawn_statistics, lines_of


RUNS, ROWS, GROUPS, TRANSFORMS, WIDTH = 20, 160, 40, 16, 6


def test_choosing_a_mode_on_shuffled_labels_claims_nothing() -> None:
    statistics, scores, covered, best_claims = {"one": drawn_statistics()}, [], 0, []
    for seed in range(RUNS):
        draw = np.random.default_rng(seed)
        groups = np.arange(ROWS) * GROUPS // ROWS
        labels = draw.permutation(np.arange(GROUPS) % 2)[groups]  # shuffled by group
        features = 2 + draw.standard_normal((ROWS, 1, WIDTH)) + 0.5 * draw.standard_normal((ROWS, TRANSFORMS, WIDTH))
        margins = features[..., 0] - 2 + 0.5 * draw.standard_normal((ROWS, TRANSFORMS))
        variants = side_by_side([lines_of("one", margins, labels, groups, features)], statistics)
        likely = select_out_of_fold(variants, num_folds=4, seed=seed, num_samples=200).probabilities
        mcc = metrics_with_intervals(labels, likely, groups=groups, seed=seed)["mcc"]
        scores.append(mcc["value"])
        covered += mcc["low"] <= 0 <= mcc["high"]
        claims = compare_modes(variants, num_folds=4, seed=seed, num_samples=50)
        best_claims.append(max(score.over_none.value for score in claims.values()))
    assert covered >= 0.9 * RUNS
    assert abs(np.mean(scores)) <= np.std(scores, ddof=1) / np.sqrt(RUNS)
    # The best mode picked on the rows it is scored on would claim a gain.
    assert np.mean(best_claims) > 2 * np.std(best_claims, ddof=1) / np.sqrt(RUNS)

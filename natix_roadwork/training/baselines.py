"""Simple classifiers on the same frozen tokens, to be shown beside every trained head.

In come the tokens of each split (`Features`), out come probabilities of roadwork by baseline and split; the recipes put
their metrics into `result.json`. Everything is fitted on train. Hyper-parameters come from grouped cross-validation
inside train; only the attention pool looks at dev, to choose its epoch. Both classes weigh the same in every fit, so the
cut at 0.5 is sensible at any prior; the probabilities therefore belong to a 50/50 prior (the majority baseline aside).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from natix_roadwork.training.attention_pool import fit_attention_pool, predict_attention_pool
from natix_roadwork.training.token_features import Features


__all__ = ["BASELINES", "Features", "score_baselines"]

BASELINES = ("majority", "knn", "logreg_global", "logreg_mean_max", "attention_pool")
C_GRID = tuple(10.0**exponent for exponent in range(-6, 2))
DEFAULT_C = 1e-3
NEIGHBOR_GRID = (1, 3, 5, 9, 15, 25, 45)
DEFAULT_NEIGHBORS = 5
INNER_FOLDS = 5

FloatArray = NDArray[np.float64]
Vectors = Callable[[Features], NDArray[np.float32]]


def score_baselines(
    train: Features,
    dev: Features,
    splits: dict[str, Features],
    seed: int = 0,
    names: Sequence[str] = BASELINES,
) -> dict[str, dict[str, FloatArray]]:
    """Fit every baseline on `train` and score it on each split.

    `majority` answers the share of roadwork in train. `knn` lets the nearest rows by cosine of the standardised global
    view vote, each class with the same total weight. `logreg_global` is a logistic regression on the pooled tokens of
    the global view, `logreg_mean_max` one on their mean and maximum over the valid views. `attention_pool` is
    `AttentionPool` over all tokens of all valid views.

    Args:
        train: Rows to fit on, with both classes.
        dev: Rows that choose the attention pool's epoch.
        splits: Rows to score, by split name; train and dev are scored only if they are named here.
        seed: Seed of the inner folds and of the attention pool.
        names: Which of `BASELINES` are fitted; each is the same whatever the others are.

    Returns:
        `{baseline: {split: (N,) probabilities of roadwork}}` in the order of `names`.

    Raises:
        ValueError: If train holds one class only, or a split's tokens have another shape than train's.
    """
    if len(np.unique(train.labels)) < 2:
        raise ValueError(f"train labels are all {train.labels[0]}; baselines need rows of both classes")
    for name, split in {"dev": dev, **splits}.items():
        shapes = [(f.view_features.shape[1:], f.num_pooled_tokens) for f in (split, train)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"split {name!r} has (views, tokens, dimensions), pooled {shapes[0]}, train has {shapes[1]}"
            )
    fits: dict[str, Callable[[], Callable[[Features], FloatArray]]] = {
        "majority": lambda: lambda split: np.full(len(split), train.labels.mean()),
        "knn": lambda: _fit_neighbors(train, seed),
        "logreg_global": lambda: _fit_logistic(train, _global_vectors, seed),
        "logreg_mean_max": lambda: _fit_logistic(train, _mean_max_vectors, seed),
        "attention_pool": lambda: _fit_pool(train, dev, seed),
    }
    scorers = {name: fits[name]() for name in names}
    return {name: {key: score(split) for key, split in splits.items()} for name, score in scorers.items()}


def _fit_pool(train: Features, dev: Features, seed: int) -> Callable[[Features], FloatArray]:
    pool = fit_attention_pool(train, dev, seed=seed)
    return lambda split: predict_attention_pool(pool, split)


def _fit_neighbors(train: Features, seed: int) -> Callable[[Features], FloatArray]:
    """Choose k by out-of-fold AUC (the larger k if equal) and return the scorer."""
    vectors, labels = _global_vectors(train), train.labels
    folds = list(_inner_folds(train, seed))
    fewest = min([len(fit) for fit, _ in folds], default=len(train))
    sizes = [k for k in NEIGHBOR_GRID if k <= fewest]
    best = min(DEFAULT_NEIGHBORS, sizes[-1])
    truth = np.concatenate([labels[rest] for _, rest in folds]) if folds else np.empty(0)
    if len(np.unique(truth)) == 2:
        votes = np.concatenate([_vote(vectors[fit], labels[fit], vectors[rest], sizes) for fit, rest in folds])
        scores = [roc_auc_score(truth, column) for column in votes.T]
        best = max(zip(scores, sizes, strict=True))[1]
    return lambda split: _vote(vectors, labels, _global_vectors(split), [best])[:, 0]


def _vote(vectors: NDArray, labels: NDArray, queries: NDArray, sizes: list[int]) -> FloatArray:
    """Return `(Q, K)` the class-balanced share of roadwork among the k nearest rows, for each k in `sizes`."""
    scaler = StandardScaler().fit(vectors)
    search = NearestNeighbors(n_neighbors=max(sizes), metric="cosine").fit(scaler.transform(vectors))
    nearest = search.kneighbors(scaler.transform(queries), return_distance=False)  # (Q, max k)
    weights = compute_sample_weight("balanced", labels)[nearest]
    positive = np.cumsum(weights * labels[nearest], axis=1)
    share = positive / np.cumsum(weights, axis=1)
    return share[:, np.asarray(sizes) - 1]


def _fit_logistic(train: Features, vectors_of: Vectors, seed: int) -> Callable[[Features], FloatArray]:
    """Choose C by class-balanced out-of-fold log loss (the smaller C if equal) and return the scorer."""
    # In single precision the solver's line search can fail on a few rows.
    vectors, labels = vectors_of(train).astype(np.float64), train.labels
    held_out: list[NDArray] = []
    scores: list[FloatArray] = []
    for fit, rest in _inner_folds(train, seed):
        rotate = _rotation(*vectors.shape).fit(vectors[fit])
        inputs, queries = rotate.transform(vectors[fit]), rotate.transform(vectors[rest])
        fold = [_logistic(c).fit(inputs, labels[fit]).predict_proba(queries)[:, 1] for c in C_GRID]
        held_out.append(labels[rest])
        scores.append(np.stack(fold, axis=1))
    best = DEFAULT_C
    truth = np.concatenate(held_out) if held_out else np.empty(0)
    if len(np.unique(truth)) == 2:
        weights = compute_sample_weight("balanced", truth)
        losses = [log_loss(truth, column, sample_weight=weights) for column in np.concatenate(scores).T]
        best = C_GRID[int(np.argmin(losses))]
    model = make_pipeline(_rotation(*vectors.shape), _logistic(best)).fit(vectors, labels)
    return lambda split: model.predict_proba(vectors_of(split))[:, 1]


def _rotation(num_rows: int, num_columns: int) -> Pipeline:
    """Standardise; with more columns than rows also rotate onto the rows' span.

    A logistic regression with an L2 penalty gives the same probabilities there, many times faster.
    """
    steps = [StandardScaler()]
    if num_columns > num_rows:
        steps.append(PCA(svd_solver="full"))
    return make_pipeline(*steps)


def _logistic(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, class_weight="balanced", max_iter=2000)


def _inner_folds(train: Features, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield grouped stratified folds of train as (fit rows, held-out rows).

    There are as many folds as both classes have groups, at most five; none with fewer than two groups a class, where
    the callers use their default. A fold whose fit rows hold one class only is left out.
    """
    groups = [len(np.unique(train.groups[train.labels == label])) for label in (0, 1)]
    num_folds = min(INNER_FOLDS, *groups)
    if num_folds < 2:
        return
    folds = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    for fit, rest in folds.split(train.labels, train.labels, train.groups):
        if len(np.unique(train.labels[fit])) == 2 and len(rest):
            yield fit, rest


def _global_vectors(features: Features) -> NDArray[np.float32]:
    """Return `(N, P * D)` the pooled tokens of view 0."""
    return features.pooled_tokens()[:, 0]


def _mean_max_vectors(features: Features) -> NDArray[np.float32]:
    """Return `(N, 2 * P * D)` mean and maximum of the pooled tokens over the valid views."""
    pooled = features.pooled_tokens()
    valid = features.view_mask[:, :, None]
    mean = np.where(valid, pooled, 0.0).sum(axis=1) / valid.sum(axis=1)
    largest = np.where(valid, pooled, -np.inf).max(axis=1)
    return np.concatenate([mean, largest], axis=1).astype(np.float32)

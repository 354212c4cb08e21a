"""Members with several TTA transforms a photo, drawn from few numbers, for the tests of test-time augmentation."""

import numpy as np

from natix_roadwork.data.predictions import Predictions
from natix_roadwork.inference.feature_statistics import FeatureStatistics, fit_statistics


LEARNED = {"learned_from": ["train"], "model_sha256": "abc"}
WIDTH = 6


def lines_of(
    member: str,
    logits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    features: np.ndarray | None = None,
    split: str = "dev",
) -> Predictions:
    """A member from margins `(N, T)`, labels and groups `(N,)`, and features `(N, T, H)`."""
    rows, count = logits.shape
    halves = np.stack([-logits / 2, logits / 2], axis=-1).reshape(-1, 2)
    wide = np.ones((rows, count, 1)) if features is None else features
    return Predictions(
        member=member,
        row_ids=np.repeat([f"{split}:{row}" for row in range(rows)], count),
        labels=np.repeat(labels, count),
        groups=np.repeat([f"{split}:{group}" for group in groups], count),
        splits=np.full(rows * count, split),
        logits=halves.astype(np.float32),
        embeddings=wide.reshape(rows * count, -1).astype(np.float32),
        folds=np.full(rows * count, -1),
        transforms=np.tile(np.arange(count), rows),
        record=dict(LEARNED),
    )


def drawn_member(
    member: str = "one", rows: int = 80, count: int = 16, signal: float = 1.0, noise: float = 1.0, seed: int = 0
) -> Predictions:
    """Margins of `signal` with independent noise in each transform, four rows a group, features in a cloud."""
    draw = np.random.default_rng(seed)
    groups = np.arange(rows) // 4
    labels = np.random.default_rng(7).permutation(np.arange(-(-rows // 4)) % 2)[groups]
    margins = signal * (2.0 * labels[:, None] - 1) + noise * draw.standard_normal((rows, count))
    photos = draw.standard_normal((rows, 1, WIDTH)) + 2
    return lines_of(member, margins, labels, groups, photos + 0.3 * draw.standard_normal((rows, count, WIDTH)))


def train_member(member: str = "one", rows: int = 60, seed: int = 100) -> Predictions:
    """Train rows of a drawn member: the photos as they are."""
    draw, labels = np.random.default_rng(seed), np.arange(rows) % 2
    features = draw.standard_normal((rows, 1, WIDTH)) + 2
    return lines_of(member, draw.standard_normal((rows, 1)), labels, np.arange(rows), features, split="train")


def drawn_statistics(member: str = "one", seed: int = 100) -> FeatureStatistics:
    """Statistics of the train rows of a drawn member."""
    rows = train_member(member, seed=seed)
    return fit_statistics(rows.embeddings, rows.labels, rows.groups, {"model_sha256": LEARNED["model_sha256"]})

"""How far a photo's features lie from those of training: what OOD-filtered TTA weighs its variants by.

In come the fused embeddings of a member's train rows; out go statistics that are saved as safetensors
and JSON. `tta.py` asks them for the distances of new features, in two ways: Mahalanobis distance to the class means, and
mean Euclidean distance to the nearest training features.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import LedoitWolf
from sklearn.metrics.pairwise import euclidean_distances

from natix_roadwork.data.feature_key import feature_key
from natix_roadwork.data.feature_shards import DamagedShardError, read_shard, verify_shard, write_json, write_shard


FORMAT_VERSION = 1
TENSORS_NAME = "feature_statistics.safetensors"
RECORD_NAME = "feature_statistics.json"
NEIGHBOURS = 5
PERCENTILE = 95.0
# In float64 it leaves eight digits of a squared distance. Features of no special shape stay far below: with n rows of p
# features the shrinkage is about 1 / n or more, and the condition number at most p / shrinkage + 1.
MAX_CONDITION = 1e8
_CHUNK = 512  # rows whose distances to all training features are in memory at once

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureStatistics:
    """Where the features of a member's train rows lie.

    Attributes:
        means: `(C, H)` mean of each class, of features of length 1.
        whitening: `(H, H)` W with W Wᵀ = the inverse of the covariance within the classes.
        features: `(N, H)` float32 features of the train rows as they are.
        record: JSON values: rows, `shrinkage`, `condition_number`, `typical` (median Mahalanobis distance of the train
            rows), `threshold` (95th percentile of their distances to the nearest others), and which model made them.
    """

    means: FloatArray
    whitening: FloatArray
    features: NDArray[np.float32]
    record: dict[str, Any]

    def mahalanobis(self, features: ArrayLike) -> FloatArray:
        """Mahalanobis distance of features `(N, H)` to the nearest class mean, in units of the train rows' median; `(N,)`.

        Lee et al., https://arxiv.org/abs/1807.03888, on features of length 1 (Mahalanobis++,
        https://arxiv.org/abs/2505.18032). The unit makes the distances of several members comparable.

        Raises:
            ValueError: If the features are of another width, not finite, or zero.
        """
        return _mahalanobis(self._check(features), self.means, self.whitening) / self.record["typical"]

    def neighbour_distance(self, features: ArrayLike) -> FloatArray:
        """Mean Euclidean distance of features `(N, H)` to the 5 nearest train rows, in units of the threshold; `(N,)`.

        Above 1 a photo lies further away than 95 % of the train rows do from each other (Putzu et al.,
        https://doi.org/10.3390/jimaging11090295, who take features of three layers; here it is the fused embedding).

        Raises:
            ValueError: If the features are of another width or not finite.
        """
        return _nearest(self._check(features), self.features) / self.record["threshold"]

    def _check(self, features: ArrayLike) -> FloatArray:
        values = _check_features(features)
        if values.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"features have {values.shape[1]} values a row, the statistics {self.means.shape[1]}; take those of the "
                "same model"
            )
        return values


def fit_statistics(
    features: ArrayLike, labels: ArrayLike, groups: ArrayLike, source: Mapping[str, Any] | None = None
) -> FeatureStatistics:
    """Fit statistics on a member's train rows.

    The covariance within the classes is tied (one for all) and shrunk (Ledoit and Wolf). The distances of the train rows to
    their nearest others leave out rows of the same group: frames of one video lie so near to each other that no new photo
    could pass. Where each row is a group of its own, these are the published leave-one-out distances.

    Args:
        features: `(N, H)` fused embeddings.
        labels: `(N,)` 0 or 1.
        groups: `(N,)` group names.
        source: What made the features, JSON values for the record.

    Raises:
        ValueError: If a value is not finite, a class is missing or has one row, the features do not vary, too few groups
            are there, or the covariance is near singular.
    """
    values, target = _check_features(features), np.asarray(labels)
    _check_classes(values, target)
    unit = _unit_length(values)
    means = np.stack([unit[target == label].mean(axis=0) for label in (0, 1)])
    covariance, shrinkage = _tied_covariance(unit, target, means)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    condition = float(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > 0 else float("inf")
    if not condition <= MAX_CONDITION:
        raise ValueError(
            f"the covariance of {len(values)} rows of {values.shape[1]} features has condition number {condition:.1e} with "
            f"shrinkage {shrinkage:.1e}, above {MAX_CONDITION:.0e}: distances would be noise; take more train rows"
        )
    whitening = vectors / np.sqrt(eigenvalues)
    record = {
        "format": FORMAT_VERSION,
        "rows": np.bincount(target, minlength=2).tolist(),
        "shrinkage": shrinkage,
        "condition_number": condition,
        "typical": float(np.median(_mahalanobis(values, means, whitening))),
        "threshold": _threshold(values, np.unique(np.asarray(groups), return_inverse=True)[1]),
        "neighbours": NEIGHBOURS,
        "percentile": PERCENTILE,
        **(source or {}),
    }
    return FeatureStatistics(means, whitening, values.astype(np.float32), record)


def save_statistics(folder: str | Path, statistics: FeatureStatistics) -> None:
    """Write the two files beside a model: numbers as safetensors, the record as JSON."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: getattr(statistics, name) for name in ("means", "whitening", "features")}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    record = json.loads(json.dumps(statistics.record))
    write_shard(folder / TENSORS_NAME, tensors, feature_key(record))
    write_json(folder / RECORD_NAME, record)


def load_statistics(folder: str | Path) -> FeatureStatistics:
    """Read what `save_statistics` has written.

    Raises:
        ValueError: If a file is missing or damaged, the two do not belong together, or are of another format.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / RECORD_NAME} cannot be read ({error}); fit the statistics again") from error
    if record.get("format") != FORMAT_VERSION:
        raise ValueError(
            f"{folder / RECORD_NAME}: format={record.get('format')!r}, this package reads {FORMAT_VERSION}"
        )
    try:
        verify_shard(folder / TENSORS_NAME, feature_key(record))
        tensors = read_shard(folder / TENSORS_NAME)
    except DamagedShardError as error:
        raise ValueError(
            f"{folder / TENSORS_NAME} is missing, damaged, or not of the {RECORD_NAME} beside it; fit the statistics again"
        ) from error
    return FeatureStatistics(record=record, **{name: tensor.numpy() for name, tensor in tensors.items()})


def _tied_covariance(unit: FloatArray, labels: NDArray, means: FloatArray) -> tuple[FloatArray, float]:
    centred = unit - means[labels]
    spread = np.abs(centred).max()
    if spread < 1e-12:  # of a length of 1: what is left is rounding
        raise ValueError(
            f"the features of {len(unit)} rows are constant within each class (largest deviation {spread:.1e}); a trained "
            "model's embeddings vary: look for a file of zeros or of one photo"
        )
    fitted = LedoitWolf(assume_centered=True, store_precision=False).fit(centred)
    return fitted.covariance_, float(fitted.shrinkage_)


def _mahalanobis(features: FloatArray, means: FloatArray, whitening: FloatArray) -> FloatArray:
    moved, centres = _unit_length(features) @ whitening, means @ whitening
    return np.min([np.linalg.norm(moved - centre, axis=1) for centre in centres], axis=0)


def _threshold(features: FloatArray, codes: NDArray[np.int64]) -> float:
    """Percentile of the train rows' mean distances to the nearest rows of other groups."""
    others = len(codes) - int(np.bincount(codes).max())
    if others < NEIGHBOURS:
        raise ValueError(
            f"groups: {len(codes)} rows in {len(np.unique(codes))} groups leave {others} rows of other groups, fewer than "
            f"the {NEIGHBOURS} nearest that are asked for; take more train rows or groups"
        )
    value = float(np.percentile(_nearest(features, features, codes), PERCENTILE))
    if not value > 0:
        raise ValueError(f"{PERCENTILE:g} % of {len(features)} rows have {NEIGHBOURS} equals; take other train rows")
    return value


def _nearest(features: FloatArray, others: NDArray[np.floating], codes: NDArray[np.int64] | None = None) -> FloatArray:
    """Mean distance to the nearest of the others; with group codes, the others are the same rows and own groups are out."""
    reference, found = others.astype(np.float64), []
    for start in range(0, len(features), _CHUNK):
        distances = euclidean_distances(features[start : start + _CHUNK], reference)
        if codes is not None:
            distances[codes[start : start + _CHUNK, None] == codes] = np.inf
        nearest = np.partition(distances, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        found.append(np.sort(nearest, axis=1).mean(axis=1))
    return np.concatenate(found)


def _unit_length(features: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(
            f"features[{int(np.flatnonzero(lengths == 0)[0])}] is all zeros, which has no direction ({int((lengths == 0).sum())} "
            "such rows); predict again with the trained model"
        )
    return features / lengths


def _check_features(features: ArrayLike) -> FloatArray:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"features have shape {values.shape}; give (N, H) embeddings, at least one row and column")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(f"features[{bad[0]}] is not finite ({len(bad)} such rows); predict these rows again")
    return values


def _check_classes(features: FloatArray, labels: NDArray) -> None:
    if labels.shape != (len(features),) or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels have shape {labels.shape}; give 0 or 1 for each of the {len(features)} rows")
    counts = np.bincount(labels.astype(np.int64), minlength=2).tolist()
    if min(counts) < 2:
        raise ValueError(
            f"labels: {counts[0]} None and {counts[1]} Roadwork rows; a covariance within the classes needs 2 of each"
        )

"""Feature statistics: well-conditioned from 50 to 10,000 rows, equal to scikit-learn's, saved whole, bad input named."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage
from sklearn.neighbors import NearestNeighbors

from natix_roadwork.inference.feature_statistics import (
    MAX_CONDITION,
    RECORD_NAME,
    TENSORS_NAME,
    fit_statistics,
    load_statistics,
    save_statistics,
)


def rows_of(
    count: int, width: int = 512, decay: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features whose variances fall as 1 / rank ** decay, labels that shift the first, and groups of one row."""
    features = np.random.default_rng(seed).standard_normal((count, width)) * np.arange(1, width + 1) ** (-decay / 2)
    labels = np.arange(count) % 2
    features[:, 0] += 2 * labels
    return features, labels, np.arange(count).astype(str)


@pytest.mark.parametrize("decay", [0.0, 4.0])
@pytest.mark.parametrize("count", [50, 2_000])
def test_statistics_are_finite_and_well_conditioned(count: int, decay: float) -> None:
    features, labels, groups = rows_of(count, decay=decay)
    found = fit_statistics(features, labels, groups)
    assert np.isfinite(found.whitening).all() and 0 < found.record["shrinkage"] <= 1
    assert 1 <= found.record["condition_number"] <= 512 / found.record["shrinkage"] + 1 < MAX_CONDITION
    assert np.isfinite(found.mahalanobis(3 * features[:40])).all()
    assert np.isfinite(found.neighbour_distance(3 * features[:40])).all()


@pytest.mark.slow
def test_ten_thousand_rows_are_no_exception() -> None:
    test_statistics_are_finite_and_well_conditioned(10_000, 4.0)


def test_distances_are_those_of_scikit_learn() -> None:
    features, labels, groups = rows_of(300, width=64)
    found = fit_statistics(features, labels, groups)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[labels == label].mean(axis=0) for label in (0, 1)])
    reference = LedoitWolf(assume_centered=True).fit(unit - means[labels])
    new = rows_of(20, width=64, seed=1)[0]
    new_unit = new / np.linalg.norm(new, axis=1, keepdims=True)
    squared = [np.einsum("nh,hk,nk->n", new_unit - mean, reference.precision_, new_unit - mean) for mean in means]
    distances = np.sqrt(np.min(squared, axis=0)) / found.record["typical"]
    assert found.mahalanobis(new) == pytest.approx(distances, rel=1e-9)
    assert found.record["shrinkage"] == ledoit_wolf_shrinkage(unit - means[labels], assume_centered=True)
    assert np.median(found.mahalanobis(features)) == pytest.approx(1.0)


def test_shrinkage_has_the_published_form() -> None:
    features, labels, groups = rows_of(200, width=8)
    found = fit_statistics(features, labels, groups)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    centred = unit - found.means[labels]
    sample, amount = centred.T @ centred / 200, found.record["shrinkage"]
    shrunk = (1 - amount) * sample + amount * np.trace(sample) / 8 * np.eye(8)
    assert np.linalg.inv(found.whitening @ found.whitening.T) == pytest.approx(shrunk, rel=1e-9, abs=1e-12)


def test_threshold_is_the_published_leave_one_out_percentile() -> None:
    features, labels, groups = rows_of(700, width=16)  # more than one chunk
    found = fit_statistics(features, labels, groups)
    distances = NearestNeighbors(n_neighbors=6).fit(features).kneighbors(features)[0][:, 1:].mean(axis=1)
    assert found.record["threshold"] == pytest.approx(np.percentile(distances, 95), rel=1e-6)
    new = rows_of(9, width=16, seed=1)[0]
    nearest = NearestNeighbors(n_neighbors=5).fit(features).kneighbors(new)[0].mean(axis=1)
    assert found.neighbour_distance(new) == pytest.approx(nearest / found.record["threshold"], rel=1e-5)


def test_frames_of_one_video_do_not_lower_the_threshold() -> None:
    features, labels, groups = rows_of(100, width=16)
    frames = np.repeat(features, 8, axis=0) + np.random.default_rng(1).normal(0, 1e-3, (800, 16))
    apart = fit_statistics(frames, np.repeat(labels, 8), np.repeat(groups, 8)).record["threshold"]
    naive = fit_statistics(frames, np.repeat(labels, 8), np.arange(800)).record["threshold"]
    assert naive < 0.1 * apart


def test_files_give_the_same_distances_and_bytes(tmp_path: Path) -> None:
    features, labels, groups = rows_of(60, width=16)
    made = fit_statistics(features, labels, groups, {"member": "one"})
    for name in ("first", "second"):
        save_statistics(tmp_path / name, made)
    read = load_statistics(tmp_path / "first")
    assert read.record == made.record and read.record["member"] == "one" and read.whitening.dtype == np.float64
    assert np.array_equal(read.mahalanobis(features), made.mahalanobis(features))
    assert np.array_equal(read.neighbour_distance(features), made.neighbour_distance(features))
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [RECORD_NAME, TENSORS_NAME]
    first, second = ((tmp_path / name / TENSORS_NAME).read_bytes() for name in ("first", "second"))
    assert first == second


def test_damaged_or_mixed_files_are_refused(tmp_path: Path) -> None:
    features, labels, groups = rows_of(60, width=16)
    save_statistics(tmp_path, fit_statistics(features, labels, groups))
    record = json.loads((tmp_path / RECORD_NAME).read_text())
    for changed, named in (({"format": 99}, "format=99"), ({"threshold": 1.0}, "not of the")):
        (tmp_path / RECORD_NAME).write_text(json.dumps(record | changed))
        with pytest.raises(ValueError, match=named):
            load_statistics(tmp_path)
    (tmp_path / RECORD_NAME).write_text(json.dumps(record))
    whole = (tmp_path / TENSORS_NAME).read_bytes()
    (tmp_path / TENSORS_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_statistics(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_statistics(tmp_path / "nowhere")


def test_what_gives_no_statistics_is_named() -> None:
    features, labels, groups = rows_of(40, width=8)
    constant = np.ones((40, 8)) + labels[:, None] * np.eye(8)[0]
    mirrored = np.array([[1.0, 1e-3], [1.0, -1e-3]] * 10)  # two points: no shrinkage, no width in one direction
    hole, zero = features.copy(), features.copy()
    hole[7, 3], zero[5] = np.nan, 0
    cases = [
        ((features, np.zeros(40, int), groups), "40 None and 0 Roadwork"),
        ((features, (np.arange(40) == 0).astype(int), groups), "39 None and 1 Roadwork"),
        ((features, labels[:-1], groups), "labels have shape"),
        ((constant, labels, groups), "constant within each class"),
        ((mirrored, np.repeat([0, 1], 10), groups[:20]), "condition number"),
        ((hole, labels, groups), r"features\[7\] is not finite"),
        ((zero, labels, groups), r"features\[5\] is all zeros"),
        ((features[:, :0], labels, groups), r"shape \(40, 0\)"),
        ((features, labels, np.zeros(40)), "leave 0 rows of other groups"),
    ]
    for arguments, named in cases:
        with pytest.raises(ValueError, match=named):
            fit_statistics(*arguments)


def test_features_of_another_model_are_refused() -> None:
    found = fit_statistics(*rows_of(40, width=8))
    with pytest.raises(ValueError, match="9 values a row"):
        found.mahalanobis(np.ones((2, 9)))

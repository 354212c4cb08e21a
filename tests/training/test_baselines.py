import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from natix_roadwork.metrics import binary_metrics
from natix_roadwork.training import baselines
from natix_roadwork.training.attention_pool import AttentionPool, fit_attention_pool, predict_attention_pool
from natix_roadwork.training.baselines import BASELINES, Features, score_baselines


VIEWS, TOKENS, WIDTH = 4, 5, 24
DIRECTIONS = np.linalg.qr(np.random.default_rng(99).standard_normal((WIDTH, 4)))[0].T.astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Arrays this small are slower on several threads, twentyfold on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


def draw_features(
    num_rows: int, seed: int, in_global: float = 0.0, in_tile: float = 0.0, positive: float = 0.5
) -> Features:
    """Noise tokens with an offset and scale per dimension; evidence in the global token or in one token of one tile."""
    generator = np.random.default_rng(seed)
    tokens = generator.standard_normal((num_rows, VIEWS, TOKENS, WIDTH)).astype(np.float32)
    labels = (generator.random(num_rows) < positive).astype(int)
    labels[:2] = 0, 1
    for row in np.flatnonzero(labels):
        tokens[row, 0, 0] += in_global * DIRECTIONS[0]
        tokens[row, generator.integers(1, VIEWS), generator.integers(1, TOKENS)] += in_tile * DIRECTIONS[1]
    tokens = tokens * np.linspace(0.01, 100.0, WIDTH, dtype=np.float32) + 7.0
    mask = np.ones((num_rows, VIEWS), dtype=bool)
    return Features(tokens, mask, labels, np.array([f"video {row // 2}" for row in range(num_rows)]), 1)


def scores(train: Features, dev: Features, test: Features) -> dict[str, float]:
    probabilities = score_baselines(train, dev, {"test": test})
    return {name: binary_metrics(test.labels, splits["test"])["mcc"] for name, splits in probabilities.items()}


def test_every_baseline_scores_every_split() -> None:
    train, dev = draw_features(40, 0), draw_features(12, 1)
    result = score_baselines(train, dev, {"dev": dev, "test": draw_features(7, 2)})
    assert tuple(result) == BASELINES
    for splits in result.values():
        assert {name: len(values) for name, values in splits.items()} == {"dev": 12, "test": 7}
        assert all(((values >= 0) & (values <= 1)).all() for values in splits.values())
    assert result["majority"]["test"] == pytest.approx(np.full(7, train.labels.mean()))


def test_evidence_in_the_global_view_is_found_by_all_but_majority() -> None:
    values = scores(*(draw_features(rows, seed, in_global=5.0) for seed, rows in enumerate((120, 40, 80))))
    assert values.pop("majority") == 0.0
    assert min(values.values()) > 0.6


def test_evidence_in_one_token_is_found_by_the_attention_pool_only() -> None:
    values = scores(*(draw_features(rows, seed, in_tile=8.0) for seed, rows in enumerate((160, 60, 100))))
    assert values["attention_pool"] > 0.7
    assert max(values["knn"], values["logreg_global"], values["logreg_mean_max"]) < 0.35


def test_rare_class_is_still_decided_at_one_half() -> None:
    values = scores(
        *(draw_features(rows, seed, in_global=6.0, positive=0.1) for seed, rows in enumerate((200, 60, 150)))
    )
    assert values["logreg_global"] > 0.6 and values["knn"] > 0.4


def test_same_seed_same_probabilities_and_global_state_stays() -> None:
    train, dev = draw_features(40, 0, in_tile=3.0), draw_features(12, 1, in_tile=3.0)
    torch.manual_seed(7)
    first = score_baselines(train, dev, {"dev": dev}, seed=3)
    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    assert torch.equal(torch.random.get_rng_state(), state)
    second = score_baselines(train, dev, {"dev": dev}, seed=3)
    assert all(np.array_equal(first[name]["dev"], second[name]["dev"]) for name in BASELINES)
    other = score_baselines(train, dev, {"dev": dev}, seed=4)
    assert not np.array_equal(first["attention_pool"]["dev"], other["attention_pool"]["dev"])


def test_test_labels_are_never_read() -> None:
    train, dev, test = (draw_features(rows, seed, in_global=2.0) for seed, rows in enumerate((40, 12, 10)))
    flipped = dataclasses.replace(test, labels=1 - test.labels)
    first, second = (score_baselines(train, dev, {"test": split}) for split in (test, flipped))
    assert all(np.array_equal(first[name]["test"], second[name]["test"]) for name in BASELINES)


def test_masked_views_have_no_influence() -> None:
    train, dev, test = (draw_features(rows, seed, in_tile=4.0) for seed, rows in enumerate((40, 12, 10)))
    sets = []
    for junk in (0.0, 1e4):
        filled = []
        for split in (train, dev, test):
            mask, tokens = split.view_mask.copy(), split.view_features.copy()
            mask[::2, 2] = False
            tokens[::2, 2] = junk
            filled.append(dataclasses.replace(split, view_features=tokens, view_mask=mask))
        sets.append(score_baselines(filled[0], filled[1], {"test": filled[2]}))
    assert all(np.allclose(sets[0][name]["test"], sets[1][name]["test"], atol=1e-6) for name in BASELINES)


def test_rotation_leaves_the_logistic_regression_as_it_is() -> None:
    generator = np.random.default_rng(0)
    inputs, labels = generator.standard_normal((20, 50)), np.arange(20) % 2
    plain = baselines.make_pipeline(baselines.StandardScaler(), baselines._logistic(0.1)).fit(inputs, labels)
    rotated = baselines.make_pipeline(baselines._rotation(20, 50), baselines._logistic(0.1)).fit(inputs, labels)
    queries = generator.standard_normal((9, 50))
    assert rotated.predict_proba(queries) == pytest.approx(plain.predict_proba(queries), abs=1e-3)


def test_inner_folds_never_split_a_group() -> None:
    train = draw_features(40, 0)
    folds = list(baselines._inner_folds(train, seed=0))
    assert len(folds) == 5
    assert sorted(np.concatenate([rest for _, rest in folds])) == list(range(40))
    assert all(not set(train.groups[fit]) & set(train.groups[rest]) for fit, rest in folds)


def test_too_few_groups_for_folds_still_give_an_answer() -> None:
    train = draw_features(8, 0).subset(np.arange(2))
    result = score_baselines(train, train, {"train": train})
    assert all(np.isfinite(splits["train"]).all() for splits in result.values())


def test_a_group_larger_than_the_other_folds_leaves_few_neighbours() -> None:
    train = draw_features(20, 0)
    groups = np.array(["large"] * 14 + [f"row {row}" for row in range(6)])
    labels = np.array([0, 1] * 10)
    uneven = dataclasses.replace(train, groups=groups, labels=labels)
    probabilities = score_baselines(uneven, draw_features(8, 1), {"test": draw_features(5, 2)})
    assert all(np.isfinite(splits["test"]).all() for splits in probabilities.values())


def test_pool_standardises_by_the_valid_tokens_of_train() -> None:
    features = draw_features(6, 0)
    mask = features.view_mask.copy()
    mask[:, 3] = False
    pool = fit_attention_pool(dataclasses.replace(features, view_mask=mask), draw_features(4, 1), num_epochs=1)
    pooled, cells = features.view_features[:, :3, 0], features.view_features[:, :3, 1:].reshape(-1, WIDTH)
    assert pool.standardizer.mean[0].numpy() == pytest.approx(pooled.reshape(-1, WIDTH).mean(0), rel=1e-4)
    assert pool.standardizer.std[2].numpy() == pytest.approx(cells.std(0), rel=1e-3)


def test_tokens_beside_the_pooled_ones_are_a_square_grid() -> None:
    features = draw_features(3, 0)
    assert features.evidence_grid == 2
    assert dataclasses.replace(features, num_pooled_tokens=TOKENS).evidence_grid == 0
    with pytest.raises(ValueError, match="5 tokens a view, 2 of them pooled; the other 3 are no square"):
        _ = dataclasses.replace(features, num_pooled_tokens=2).evidence_grid


def test_pool_weighs_tokens_not_their_order() -> None:
    pool = AttentionPool(WIDTH, evidence_grid=2).eval()
    tokens, mask = torch.randn(3, VIEWS, TOKENS, WIDTH), torch.ones(3, VIEWS, dtype=torch.bool)
    assert torch.allclose(pool(tokens, mask), pool(tokens.flip(1).flip(2), mask), atol=1e-6)
    assert torch.allclose(pool(tokens.half(), mask), pool(tokens, mask), atol=1e-2)


def test_pool_keeps_its_best_epoch_by_dev_auc() -> None:
    train, dev = draw_features(60, 0, in_tile=5.0), draw_features(30, 1, in_tile=5.0)

    def auc(epochs: int) -> float:
        pool = fit_attention_pool(train, dev, num_epochs=epochs, patience=epochs)
        return binary_metrics(dev.labels, predict_attention_pool(pool, dev))["auc"]

    values = [auc(epochs) for epochs in (1, 4, 8)]
    assert values == sorted(values)


def test_subset_takes_rows_in_order() -> None:
    features = draw_features(6, 0)
    part = features.subset(np.array([4, 1]))
    assert part.groups.tolist() == [features.groups[4], features.groups[1]]
    assert np.array_equal(part.view_features[1], features.view_features[1])
    assert len(features.subset(features.labels == 1)) == features.labels.sum()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 2, 1])}, r"labels\[1\]=2"),
        ({"groups": np.array(["a"])}, "groups has shape"),
        ({"view_mask": np.zeros((3, VIEWS), dtype=bool)}, r"view_mask\[0, 0\]"),
        ({"view_mask": np.ones((3, VIEWS))}, "view_mask is float64"),
        ({"num_pooled_tokens": 6}, "num_pooled_tokens=6"),
        ({"view_features": np.zeros((3, VIEWS, WIDTH))}, "view_features has shape"),
    ],
)
def test_wrong_features_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(draw_features(3, 0), **changes)


def test_one_class_and_other_shapes_are_refused() -> None:
    train, dev = draw_features(10, 0), draw_features(6, 1)
    with pytest.raises(ValueError, match="train labels are all 1"):
        score_baselines(train.subset(train.labels == 1), dev, {})
    with pytest.raises(ValueError, match="split 'test'"):
        score_baselines(train, dev, {"test": dataclasses.replace(dev, view_features=dev.view_features[:, :, :3])})

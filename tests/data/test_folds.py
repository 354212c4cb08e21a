import numpy as np
import pytest

from natix_roadwork.data.folds import (
    dev_mask,
    leak_gap,
    leave_city_out,
    require_both_classes,
    require_disjoint,
    shared_with,
    stratified_group_folds,
)


def _videos(num_rows: int, rows_each: int) -> list[str]:
    return [f"v{row // rows_each}" for row in range(num_rows)]


@pytest.mark.parametrize("seed", range(5))
def test_dev_groups_are_disjoint_from_train(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 2, 200)
    groups = np.array(_videos(200, 7))
    mask = dev_mask(labels, groups, 0.15, seed)
    assert not set(groups[mask]) & set(groups[~mask])


@pytest.mark.parametrize("positives", [20, 100, 180])
def test_dev_keeps_the_share_of_both_classes(positives: int) -> None:
    labels = np.arange(200) < positives
    mask = dev_mask(labels.astype(int), _videos(200, 4), 0.15, seed=0)
    assert mask[labels].mean() == pytest.approx(0.15, abs=0.06)
    assert mask[~labels].mean() == pytest.approx(0.15, abs=0.06)


def test_dev_depends_on_the_seed_alone() -> None:
    labels, groups = [0, 1] * 50, _videos(100, 2)
    masks = [dev_mask(labels, groups, 0.15, seed) for seed in (0, 0, 1)]
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any()


def test_dev_finds_the_only_split_of_four_groups() -> None:
    labels, groups = [0, 0, 1, 1], ["a", "b", "c", "d"]
    mask = dev_mask(labels, groups, 0.15, seed=0)
    assert sorted(np.asarray(labels)[mask]) == [0, 1]


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 0, 0, 0], list("abcd")),
        ([0, 0, 1, 1], list("aabb")),
        ([0, 1, 0, 1], list("aaaa")),
        ([0, 0, 0, 1], list("abcd")),
    ],
)
def test_impossible_dev_split_is_refused(labels: list[int], groups: list[str]) -> None:
    with pytest.raises(ValueError, match="both classes on both sides"):
        dev_mask(labels, groups, 0.15, seed=0)


@pytest.mark.parametrize("dev_share", [0.0, 1.0, -0.1, 2.0])
def test_dev_share_out_of_range(dev_share: float) -> None:
    with pytest.raises(ValueError, match="dev_share"):
        dev_mask([0, 1], ["a", "b"], dev_share, seed=0)


@pytest.mark.parametrize(("labels", "counts"), [([1, 1], "2 Roadwork"), ([0], "1 None"), ([], "0 None")])
def test_one_class_is_refused_with_counts(labels: list[int], counts: str) -> None:
    with pytest.raises(ValueError, match=f"'train'.*{counts}|{counts}"):
        require_both_classes(labels, "train")


def test_shared_with_names_the_first_split() -> None:
    assert shared_with(["a", "b", "c"], {"test": {"b"}, "dev": {"b", "c"}}) == ["", "test", "dev"]


def _rows(num_groups: int, size: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows in groups of one class each, every third group negative."""
    groups = np.repeat([f"g{n:03d}" for n in range(num_groups)], size)
    return np.repeat(np.arange(num_groups) % 3 > 0, size).astype(int), groups


def test_disjoint_splits_pass_and_shared_groups_are_named() -> None:
    require_disjoint({"train": ["a", "b", "a"], "dev": ["c"], "test": []})
    with pytest.raises(ValueError, match=r"'train' and 'test' share 1 groups, \['b'\]"):
        require_disjoint({"train": ["a", "b"], "dev": ["c"], "test": ["b", "d"]})


def test_folds_hold_whole_groups_and_each_row_once() -> None:
    labels, groups = _rows(40)
    folds = stratified_group_folds(labels, groups, 5, seed=0)
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(120))
    for fit, held_out in folds:
        assert not set(groups[fit]) & set(groups[held_out])
        assert abs(labels[held_out].mean() - labels.mean()) < 0.15


def test_folds_follow_the_seed() -> None:
    labels, groups = _rows(40)
    first, again, other = (stratified_group_folds(labels, groups, 5, seed) for seed in (0, 0, 1))
    assert all((a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert any(a[1].tolist() != b[1].tolist() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 1, 0, 1], list("aaaa"), "all 4 rows are in one group, 'a'"),
        ([0, 1, 1, 1], list("abcd"), r"the None rows lie in 1 group\(s\), fewer than num_folds=2"),
        ([1, 1, 1, 1], list("abcd"), "'all rows' has 4 Roadwork"),
        ([0, 0, 1, 1], list("aabb"), "the None rows lie in 1 group"),
    ],
)
def test_folds_that_cannot_be_are_refused(labels: list[int], groups: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stratified_group_folds(labels, groups, 2, seed=0)


def test_fold_without_a_class_is_named() -> None:
    # Three None groups for three folds, one of them with all Roadwork rows of its group: any draw splits them unevenly.
    labels = [0] * 3 + [1] * 60
    groups = ["x", "y", "z", *["x"] * 20, *["y"] * 40]
    with pytest.raises(ValueError, match=r"fold \d has no|the Roadwork rows lie in 2 group"):
        stratified_group_folds(labels, groups, 3, seed=0)


def test_each_city_is_held_out_with_its_groups() -> None:
    labels, groups = np.tile([0, 1], 8), np.array([f"g{n // 2}" for n in range(16)])
    cities = np.repeat(["a", "b", "c", ""], 4)
    cities[0] = "b"  # a group that reaches into two cities
    folds = leave_city_out(labels, groups, cities)
    assert list(folds) == ["a", "b", "c"]
    for city, (fit, held_out) in folds.items():
        assert set(cities[held_out]) == {city} and not set(groups[fit]) & set(groups[held_out])
    assert 12 in folds["a"][0] and 1 not in folds["b"][0]


@pytest.mark.parametrize(
    ("labels", "cities", "message"), [([0, 1], ["a", "a"], "two cities"), ([0, 1], ["a", "b"], "all cities but a")]
)
def test_leave_city_out_needs_cities_and_classes(labels: list[int], cities: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leave_city_out(labels, ["g", "h"], cities)


def test_leak_gap_is_what_memorised_groups_gain() -> None:
    rng = np.random.default_rng(0)
    labels, groups = _rows(60, size=4)
    places = np.repeat(rng.normal(size=(60, 80)), 4, axis=0)  # each place looks like itself and tells nothing else
    leaking = leak_gap(places + 0.01 * rng.normal(size=places.shape), labels, groups)
    honest = leak_gap(labels[:, None] + 0.3 * rng.normal(size=(240, 2)), labels, groups)
    assert leaking.gap > 0.3 and leaking.gap == pytest.approx(leaking.random - leaking.grouped)
    assert abs(honest.gap) < 0.1

import numpy as np
import pytest

from natix_roadwork.data.splits import dev_mask, group_names, require_both_classes, shared_with


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


def test_group_is_given_or_video_or_sequence_or_the_row() -> None:
    names = group_names(
        ["r0", "r1", "r2", "r3"], ["v", "v", "", ""], ["1", "1", "1", ""], ["x"] * 4, ["g", "", "", ""]
    )
    assert names == ["g", "video:v", "sequence:x:1", "row:r3"]


@pytest.mark.parametrize(("labels", "counts"), [([1, 1], "2 Roadwork"), ([0], "1 None"), ([], "0 None")])
def test_one_class_is_refused_with_counts(labels: list[int], counts: str) -> None:
    with pytest.raises(ValueError, match=f"'train'.*{counts}|{counts}"):
        require_both_classes(labels, "train")


def test_shared_with_names_the_first_split() -> None:
    assert shared_with(["a", "b", "c"], {"test": {"b"}, "dev": {"b", "c"}}) == ["", "test", "dev"]

"""Groups and dev rows: which rows must stay together, and which of them judge a model while it is trained.

In come ids and labels as arrays; out go group names, a dev mask and the rows that share a group with another split.
Splits with one class are refused here.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit


DRAWS = 50
# Dev group counts tried, as multiples of dev_share x groups: groups differ in size and in label.
GROUP_COUNT_FACTORS = (1.0, 0.5, 2.0, 4.0)
# A draw this near to the target shares of both classes, their errors added, is taken at once.
GOOD_ENOUGH = 0.005


def group_names(
    row_ids: Sequence[str],
    video_ids: Sequence[str],
    sequence_ids: Sequence[str],
    cities: Sequence[str],
    given: Sequence[str],
) -> list[str]:
    """Name each row's group: the one given, else its video, else its sequence in its city, else the row alone.

    Sequence numbers count anew in each video, so they join rows only where there is no video id.
    """

    def name(row_id: str, video: str, sequence: str, city: str, group: str) -> str:
        if group:
            return group
        if video:
            return f"video:{video}"
        return f"sequence:{city}:{sequence}" if sequence else f"row:{row_id}"

    return [name(*row) for row in zip(row_ids, video_ids, sequence_ids, cities, given, strict=True)]


def dev_mask(labels: Sequence[int], groups: Sequence[str], dev_share: float, seed: int) -> np.ndarray:
    """Choose whole groups as dev rows, close to `dev_share` of the rows of each class.

    The best of a few hundred seeded `GroupShuffleSplit` draws is taken: the one whose counts of both classes lie
    nearest to the target among those that leave both classes on both sides.

    Args:
        labels: `(N,)` of 0 and 1.
        groups: `(N,)` group names; rows of one group stay on one side.
        dev_share: Wanted share of rows, between 0 and 1.
        seed: Decides the draws.

    Returns:
        `(N,)` booleans, True for dev rows.

    Raises:
        ValueError: If the share is out of range, or no draw leaves both classes on both sides.
    """
    if not 0.0 < dev_share < 1.0:
        raise ValueError(f"dev_share={dev_share} must lie between 0 and 1")
    target = np.asarray(labels, dtype=np.int64)
    counts = np.bincount(target, minlength=2)
    codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    best_cost, best = np.inf, None
    for dev_rows in _draws(codes, dev_share, seed):
        dev_counts = np.bincount(target[dev_rows], minlength=2)
        if (dev_counts == 0).any() or (dev_counts == counts).any():
            continue
        cost = np.abs(dev_counts / counts - dev_share).sum()
        if cost < best_cost - 1e-12:
            best_cost, best = cost, dev_rows
        if best_cost < GOOD_ENOUGH:
            break
    if best is None:
        raise ValueError(
            f"cannot split off dev rows (dev_share={dev_share}) with both classes on both sides: {counts[1]} Roadwork and "
            f"{counts[0]} None rows in {len(set(groups))} groups; bring a dev split of your own, or more groups"
        )
    mask = np.zeros(len(target), dtype=bool)
    mask[best] = True
    return mask


def _draws(codes: np.ndarray, dev_share: float, seed: int) -> Iterator[np.ndarray]:
    """Yield seeded draws of whole groups, first of the expected number of groups, then of fewer and more."""
    num_groups = int(codes.max(initial=-1)) + 1
    sizes = (round(num_groups * dev_share * factor) for factor in GROUP_COUNT_FACTORS)
    for size in dict.fromkeys(min(max(size, 1), num_groups - 1) for size in sizes):
        if size > 0:
            draws = GroupShuffleSplit(n_splits=DRAWS, test_size=size, random_state=seed)
            yield from (dev_rows for _, dev_rows in draws.split(codes, groups=codes))


def require_both_classes(labels: Sequence[int], split: str) -> None:
    """Check that a split has rows of both classes.

    Raises:
        ValueError: With the split and its counts.
    """
    positives = int(np.sum(np.asarray(labels, dtype=np.int64)))
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError(
            f"split {split!r} has {positives} Roadwork (1) and {negatives} None (0) rows; both classes are needed"
        )


def shared_with(groups: Sequence[str], others: dict[str, set[str]]) -> list[str]:
    """Name, for each row, the other split that holds its group, or the empty string."""
    return [next((split for split, names in others.items() if group in names), "") for group in groups]

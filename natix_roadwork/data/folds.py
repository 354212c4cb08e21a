"""Splits by whole groups: dev rows, stratified folds, folds by city, and what a split that ignores groups would claim.

In come labels and the group names of `data/groups.py` as arrays; out go masks and row numbers. Splits that share a group
or lack a class are refused here. `data/split_manifest.py` writes them down.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from natix_roadwork.data.natix_columns import LABEL_NAMES as CLASS_NAMES
from natix_roadwork.metrics import mcc


DRAWS = 50
# Dev group counts tried, as multiples of dev_share x groups: groups differ in size and in label.
GROUP_COUNT_FACTORS = (1.0, 0.5, 2.0, 4.0)
# A draw this near to the target shares of both classes, their errors added, is taken at once.
GOOD_ENOUGH = 0.005
# Seeded draws of folds tried before a fold without one of the classes is an error.
FOLD_DRAWS = 20

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


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


def require_disjoint(groups_by_split: Mapping[str, Sequence[str]]) -> None:
    """Check that no group lies in two splits.

    Args:
        groups_by_split: Group names of the rows of each split.

    Raises:
        ValueError: With the two splits and some of the groups they share.
    """
    seen: dict[str, str] = {}
    for split, groups in groups_by_split.items():
        shared = sorted({group for group in set(groups) if group in seen})
        if shared:
            others = sorted({seen[group] for group in shared})
            raise ValueError(
                f"splits {', '.join(map(repr, others))} and {split!r} share {len(shared)} groups, {shared[:3]} among "
                "them; rows of one group must stay in one split"
            )
        seen |= dict.fromkeys(groups, split)


def stratified_group_folds(labels: Sequence[int], groups: Sequence[str], num_folds: int, seed: int) -> list[Fold]:
    """Split rows into folds of whole groups with about the same share of each class.

    The first of a few seeded `StratifiedGroupKFold` draws that leaves both classes in every fold is taken.

    Args:
        labels: `(N,)` of 0 and 1.
        groups: `(N,)` group names.
        num_folds: K, at least 2.
        seed: Decides the draws.

    Returns:
        For each fold, the row numbers to fit on and those held out.

    Raises:
        ValueError: If a class is missing or has fewer groups than there are folds, all rows are one group, or no draw
            leaves both classes in every fold; the fold and its counts are named.
    """
    target, names = np.asarray(labels, dtype=np.int64), np.asarray(groups, dtype=str)
    _check_folds(target, names, num_folds)
    first_problem = ""
    for draw in range(FOLD_DRAWS):
        splitter = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed + 1000 * draw)
        folds = list(splitter.split(target, target, names))
        problem = _fold_problem(target, folds)
        if not problem:
            return folds
        first_problem = first_problem or problem
    raise ValueError(
        f"{first_problem}, and so in {FOLD_DRAWS} draws; use fewer folds than {num_folds}, or more groups"
    )


def _check_folds(labels: NDArray[np.int64], groups: NDArray[np.str_], num_folds: int) -> None:
    if num_folds < 2:
        raise ValueError(f"num_folds={num_folds} must be at least 2")
    require_both_classes(labels, "all rows")
    if len(set(groups)) == 1:
        raise ValueError(
            f"all {len(labels)} rows are in one group, {str(groups[0])!r}; a split needs at least {num_folds} groups. Do they "
            "share a video id, a place within 100 m, or a picture?"
        )
    for label, name in enumerate(CLASS_NAMES):
        count = len(set(groups[labels == label]))
        if count < num_folds:
            raise ValueError(
                f"the {name} rows lie in {count} group(s), fewer than num_folds={num_folds}: some fold would have no "
                f"{name} row; use fewer folds, or more groups"
            )


def _fold_problem(labels: NDArray[np.int64], folds: Sequence[Fold]) -> str:
    """Name the first fold that lacks a class, or return the empty string."""
    for number, (_, held_out) in enumerate(folds):
        counts = np.bincount(labels[held_out], minlength=2)
        for label, name in enumerate(CLASS_NAMES):
            if counts[label] == 0:
                return f"fold {number} has no {name} row among its {len(held_out)} rows"
    return ""


def leave_city_out(labels: Sequence[int], groups: Sequence[str], cities: Sequence[str]) -> dict[str, Fold]:
    """Hold out one city at a time.

    A group that reaches into the held-out city is left out of the rows to fit on. Rows without a city are never held
    out.

    Args:
        labels: `(N,)` of 0 and 1.
        groups: `(N,)` group names.
        cities: `(N,)` city names, empty = unknown.

    Returns:
        For each city in alphabetical order, the row numbers to fit on and those held out. A city may have one class.

    Raises:
        ValueError: If fewer than two cities are named, or the other cities have one class only.
    """
    target, names, places = np.asarray(labels), np.asarray(groups, dtype=str), np.asarray(cities, dtype=str)
    known = sorted(set(places.tolist()) - {""})
    if len(known) < 2:
        raise ValueError(f"leave-city-out needs rows of at least two cities; the cities are {known}")
    folds = {}
    for city in known:
        held_out = places == city
        fit = ~held_out & ~np.isin(names, names[held_out])
        require_both_classes(target[fit], f"all cities but {city}")
        folds[city] = (np.flatnonzero(fit), np.flatnonzero(held_out))
    return folds


@dataclass(frozen=True)
class LeakGap:
    """What a split that ignores groups claims too much: `gap` = `random` - `grouped`, each an out-of-fold MCC."""

    random: float
    grouped: float
    gap: float


def leak_gap(
    features: NDArray[np.floating], labels: Sequence[int], groups: Sequence[str], num_folds: int = 5, seed: int = 0
) -> LeakGap:
    """Score a logistic regression out of fold, once with random folds and once with folds of whole groups.

    Args:
        features: `(N, F)`, for example a token of the global view.
        labels: `(N,)` of 0 and 1.
        groups: `(N,)` group names.
        num_folds: Folds of both splits.
        seed: Decides both splits.

    Raises:
        ValueError: If the rows cannot be split, see `stratified_group_folds`.
    """
    target = np.asarray(labels, dtype=np.int64)
    folds = {
        "grouped": stratified_group_folds(target, groups, num_folds, seed),
        "random": list(StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(target, target)),
    }
    scores = {}
    for name, parts in folds.items():
        probabilities = logistic_out_of_fold(features, target, parts)
        scores[name] = mcc(target, (probabilities > 0.5).astype(np.int64))
    return LeakGap(scores["random"], scores["grouped"], scores["random"] - scores["grouped"])


def logistic_out_of_fold(
    features: NDArray[np.floating], labels: NDArray[np.int64], folds: Sequence[Fold], c: float = 1e-3
) -> NDArray[np.float64]:
    """Return `(N,)` probabilities of roadwork, each from a class-balanced logistic regression of the other folds.

    Args:
        features: `(N, F)`; standardised inside each fold.
        labels: `(N,)` of 0 and 1.
        folds: Row numbers to fit on and held out; each row is held out once.
        c: Inverse strength of the L2 penalty.
    """
    probabilities = np.full(len(labels), np.nan)
    features = features.astype(np.float64)  # in single precision the solver's line search can fail on a few rows
    for fit, held_out in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, class_weight="balanced", max_iter=1000))
        probabilities[held_out] = model.fit(features[fit], labels[fit]).predict_proba(features[held_out])[:, 1]
    return probabilities

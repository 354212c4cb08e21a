"""Predictions of made-up members: margins drawn around the labels, groups of four rows, with or without folds."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from natix_roadwork.data.folds import stratified_group_folds
from natix_roadwork.data.predictions import Predictions


GROUP_SIZE = 4


def prediction(name: str, margins: np.ndarray, labels: np.ndarray, folds: np.ndarray | None = None) -> Predictions:
    """A member of the given margins on dev rows that taught nothing, or out of fold on train rows."""
    rows = len(labels)
    half = np.asarray(margins, dtype=np.float64) / 2
    return Predictions(
        member=name,
        row_ids=np.array([f"{'dev' if folds is None else 'train'}/{row:04d}.jpg" for row in range(rows)]),
        labels=np.asarray(labels, dtype=np.int64),
        groups=np.array([f"g{row // GROUP_SIZE:03d}" for row in range(rows)]),
        splits=np.array(["dev" if folds is None else "train"] * rows),
        logits=np.stack([-half, half], axis=1).astype(np.float32),
        embeddings=np.zeros((rows, 0), dtype=np.float32),
        folds=np.full(rows, -1) if folds is None else folds,
        transforms=np.zeros(rows, dtype=np.int64),
        record={"learned_from": ["train"]},
    )


def group_labels(rows: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """`(rows,)` labels, one a group, an exact share of the groups roadwork."""
    groups = rows // GROUP_SIZE
    return np.repeat(rng.permutation(np.arange(groups) < round(groups * share)).astype(np.int64), GROUP_SIZE)


def fold_numbers(labels: np.ndarray, num_folds: int, seed: int = 0) -> np.ndarray:
    """`(N,)` the fold of each row, whole groups."""
    numbers = np.zeros(len(labels), dtype=np.int64)
    groups = [f"g{row // GROUP_SIZE:03d}" for row in range(len(labels))]
    for number, (_, held_out) in enumerate(stratified_group_folds(labels, groups, num_folds, seed)):
        numbers[held_out] = number
    return numbers


def members(
    strengths: Sequence[float],
    rows: int = 240,
    share: float = 0.6,
    num_folds: int = 0,
    seed: int = 0,
    shared: float = 0.0,
) -> list[Predictions]:
    """Members `a`, `b` ... whose margins lie `strength` deviations from 0 on the label's side; `shared` of the noise is common."""
    rng = np.random.default_rng(seed)
    labels = group_labels(rows, share, rng)
    folds = fold_numbers(labels, num_folds) if num_folds else None
    common = rng.normal(size=rows)
    made = []
    for number, strength in enumerate(strengths):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=rows)
        made.append(prediction("abcdefgh"[number], strength * (2.0 * labels - 1.0) + noise, labels, folds))
    return made


def changed(made: Predictions, /, **values: object) -> Predictions:
    return dataclasses.replace(made, **values)

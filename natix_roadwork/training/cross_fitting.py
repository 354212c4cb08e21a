"""Cross-fitting of heads: every row is scored by a head that never saw its group.

In come labels and groups, out go folds with an inner part that chooses the epoch; in comes a fold's inputs, out go the
logits of its held-out rows. `ablation_bench.py` and the benchmarks run it fold by fold.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PrinterCallback
from transformers.utils import logging

from natix_roadwork.data.folds import Fold, dev_mask, leave_city_out, stratified_group_folds
from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.pretrain_inputs import PretrainInputs
from natix_roadwork.training.pretrain_model import head_settings
from natix_roadwork.training.pretraining import build_trainer
from natix_roadwork.training.trainer import RoadworkTrainer


# What a config takes over from a loaded backbone.
BACKBONE_FIELDS = (
    *("backbone_config", "backbone_id", "backbone_revision", "backbone_sha256", "feature_dim"),
    *("image_mean", "image_std"),
)


@dataclass(frozen=True)
class CrossFold:
    """Row numbers of one fold; no group lies in two of the three parts.

    Attributes:
        name: Number of the fold, or the city that is held out.
        train: Rows to fit on.
        selection: Rows that choose the epoch.
        held_out: Rows to score.
    """

    name: str
    train: NDArray[np.int64]
    selection: NDArray[np.int64]
    held_out: NDArray[np.int64]

    @property
    def parts(self) -> dict[str, NDArray[np.int64]]:
        """Row numbers of `train`, `selection` and `held_out`."""
        return {"train": self.train, "selection": self.selection, "held_out": self.held_out}


def grouped_folds(
    labels: Sequence[int], groups: Sequence[str], num_folds: int, seed: int, selection_share: float = 0.15
) -> list[CrossFold]:
    """Split rows into stratified folds of whole groups; each row is held out once.

    Args:
        labels: `(N,)` of 0 and 1.
        groups: `(N,)` group names.
        num_folds: Number of folds.
        seed: Decides folds and inner parts.
        selection_share: Share of a fold's other rows that chooses the epoch.

    Raises:
        ValueError: If the rows cannot be split.
    """
    folds = stratified_group_folds(labels, groups, num_folds, seed)
    return [_with_selection(str(i), fold, labels, groups, selection_share, seed) for i, fold in enumerate(folds)]


def city_folds(
    labels: Sequence[int], groups: Sequence[str], cities: Sequence[str], seed: int, selection_share: float = 0.15
) -> list[CrossFold]:
    """Hold out one city at a time; rows without a city are never held out.

    Args:
        labels: `(N,)` of 0 and 1.
        groups: `(N,)` group names.
        cities: `(N,)` city names, empty = unknown.
        seed: Decides the inner parts.
        selection_share: Share of the other cities' rows that chooses the epoch.

    Raises:
        ValueError: If fewer than two cities are named, or the rows cannot be split.
    """
    folds = leave_city_out(labels, groups, cities)
    return [_with_selection(city, fold, labels, groups, selection_share, seed) for city, fold in folds.items()]


def _with_selection(
    name: str, fold: Fold, labels: Sequence[int], groups: Sequence[str], share: float, seed: int
) -> CrossFold:
    rest, held_out = fold
    chosen = dev_mask(np.asarray(labels)[rest], np.asarray(groups)[rest], share, seed)
    return CrossFold(name, rest[~chosen], rest[chosen], held_out)


def head_on(
    backbone_of: RoadworkForImageClassification,
    settings: PretrainArguments,
    train_labels: list[int],
    metadata_fields: Sequence[str] = (),
    sampling_weights: NDArray[np.float64] | None = None,
) -> RoadworkForImageClassification:
    """Build an untrained model that shares another model's frozen backbone, which is not loaded again.

    Args:
        backbone_of: Has the backbone, with its hash and image mean.
        settings: Head and loss.
        train_labels: `(N,)` labels, from which `focal_alpha: auto` is computed.
        metadata_fields: The metadata the model reads, `auto` resolved.
        sampling_weights: `(N,)` weights by which these rows are drawn; None = all alike.
    """
    found = {name: getattr(backbone_of.config, name) for name in BACKBONE_FIELDS}
    config = RoadworkConfig(**found | head_settings(settings, train_labels, metadata_fields, sampling_weights))
    return RoadworkForImageClassification(config, backbone=backbone_of.backbone)


def train_head(inputs: PretrainInputs, args: RoadworkTrainingArguments) -> NDArray[np.float32]:
    """Train on `train`, choose the epoch on `selection`, and return the logits `(N, 2)` of `held_out`.

    Args:
        inputs: A model with its statistics fitted, and these three as `datasets`.
        args: How to train; checkpoints go to a folder that is deleted, nothing is reported.
    """
    with _no_progress_bars():
        return np.asarray(fit_head(inputs, args).predict(inputs.datasets["held_out"]).predictions, dtype=np.float32)


def fit_head(inputs: PretrainInputs, args: RoadworkTrainingArguments) -> RoadworkTrainer:
    """Train on `train`, choose the epoch on `selection`; the trainer's model is that of the best epoch.

    Args:
        inputs: A model with its statistics fitted, and these two as `datasets`.
        args: How to train; checkpoints go to a folder that is deleted, nothing is reported.
    """
    with tempfile.TemporaryDirectory() as folder, _no_progress_bars():
        quiet = {"disable_tqdm": True, "report_to": "none", "logging_strategy": "no"}
        trainer = build_trainer(inputs, dataclasses.replace(args, output_dir=folder, **quiet))
        trainer.remove_callback(PrinterCallback)  # it would print every evaluation of every fold
        trainer.train()
        return trainer


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hide transformers' own bars, one for each checkpoint that is written."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

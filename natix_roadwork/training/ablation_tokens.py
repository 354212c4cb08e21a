"""The tokens of an ablation: the backbone runs once for each distinct set of views, and all rows share them.

In come the photos and the settings of a row; out go its inputs, cut from stored tokens wherever they contain them: fewer
views, no grid, one pooled token, or clean draws need no pass of their own. `ablation_bench.py` trains on them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from natix_roadwork.data.draws import DrawRows, Indices, address
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.mask_source import RowMasks
from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs
from natix_roadwork.data.token_passes import num_tokens
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.cross_fitting import head_on
from natix_roadwork.training.mask_inputs import mask_inputs
from natix_roadwork.training.pretrain_inputs import train_augmentation
from natix_roadwork.training.pretrain_model import build_processor
from natix_roadwork.training.token_features import Features
from natix_roadwork.training.token_inputs import baseline_features, compute_tokens, feature_folder


# Settings that decide the pixels a view is cut from, or how its tokens are stored.
VIEW_KEYS = ("squares", "global_fit", "view_size", "max_megapixels", "decode_mode", "resize_backend", "feature_dtype")
DRAW_KEYS = ("augmentation", "augment_per_view", "feature_draws")


class SlicedRows(DrawRows):
    """Rows of a feature cache of which some views and tokens are read.

    Args:
        rows: The cached rows.
        num_views: The first views, as many are read.
        tokens: Numbers of the tokens that are read of each view.
        augmented: Whether draws are the cached augmented ones; else every draw is clean.
    """

    def __init__(self, rows: FeatureRows, num_views: int, tokens: Sequence[int], augmented: bool) -> None:
        """Keep what is read."""
        self.rows, self.num_views, self.tokens, self.augmented = rows, num_views, list(tokens), augmented

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def labels(self) -> list[int]:
        """Label of each row."""
        return self.rows.labels[self.rows.chosen].tolist()

    def select(self, rows: NDArray[np.int64]) -> Self:
        """Return some of these rows, in the order given."""
        return type(self)(self.rows.select(rows), self.num_views, self.tokens, self.augmented)

    def clean(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return clean tokens `(n, V, T, D)` and view masks `(n, V)` of some rows."""
        chosen, num_views = self.rows.chosen[list(rows)], self.rows.cache.shape[2]
        features = self.rows.gather(chosen, np.zeros((len(chosen), num_views), np.int64))
        masks = self.rows.view_mask[torch.from_numpy(chosen)]
        return features[:, : self.num_views, self.tokens], masks[:, : self.num_views]

    def read(self, draws: Indices) -> dict[str, Tensor]:
        """Return `view_features` `(B, V, T, D)`, `view_mask` `(B, V)`, `labels` `(B,)` and the metadata."""
        batch = self.rows.read(draws if self.augmented else address(draws)[0].tolist())
        features = batch["view_features"][:, : self.num_views, self.tokens]
        return batch | {"view_features": features, "view_mask": batch["view_mask"][:, : self.num_views]}


class TokenStore:
    """All token sets of an ablation.

    Args:
        photos: Rows with photos.
        settings: The default's settings; their tokens are the set that others are cut from.
        args: Seed, precision, device and workers.
        backbone_of: A model with the backbone.
    """

    def __init__(
        self,
        photos: Dataset,
        settings: PretrainArguments,
        args: RoadworkTrainingArguments,
        backbone_of: RoadworkForImageClassification,
    ) -> None:
        """Compute nothing yet."""
        self.photos, self.settings, self.args, self.model = photos, settings, args, backbone_of
        self.num_pooled = num_tokens(backbone_of) - settings.evidence_grid**2
        self._found: dict[str, FeatureRows] = {}
        self._masks: dict[int, RowMasks | None] = {}

    def holds(self, wanted: PretrainArguments) -> bool:
        """Whether the tokens of these settings are part of the default's, so that no photo has to be read."""
        base = self.settings
        fewer = wanted.view_layout == "single" != base.view_layout
        keys = [name for name in VIEW_KEYS if not (fewer and name == "squares")]
        return (
            (fewer or wanted.view_layout == base.view_layout)
            and all(getattr(wanted, name) == getattr(base, name) for name in keys)
            and wanted.evidence_grid in (0, base.evidence_grid)
            and base.feature_pooling in ("cls_mean", wanted.feature_pooling)
            and _mask_size(wanted) in (0, _mask_size(base))
            and (not _draws(wanted) or all(getattr(wanted, name) == getattr(base, name) for name in DRAW_KEYS))
        )

    def rows(self, wanted: PretrainArguments, metadata: MetadataInputs = NO_METADATA, seed: int = 0) -> SlicedRows:
        """Return all photos as inputs of a model with these settings, their tokens computed where they are not there.

        Args:
            wanted: Views, pooling, grid and draws.
            metadata: What is read besides the photo.
            seed: Decides which cached draw each view takes.
        """
        source = self.settings if self.holds(wanted) else wanted
        found, masked = self._tokens(source), bool(_mask_size(wanted))
        labels = found.mask_labels if masked else None
        read = {"seed": seed, "metadata": metadata, "mask_labels": labels, "grid": masked}
        cached = FeatureRows(found.cache, self.photos, **read)
        num_pooled = cached.cache.shape[3] - source.evidence_grid**2
        pooled = list(range(num_pooled))
        if num_pooled == 2 and wanted.feature_pooling != "cls_mean":
            pooled = [("cls", "mean").index(wanted.feature_pooling)]
        cells = list(range(num_pooled, num_pooled + wanted.evidence_grid**2))
        num_views = 1 if wanted.view_layout == "single" else cached.cache.shape[2]
        return SlicedRows(cached, num_views, pooled + cells, augmented=bool(_draws(wanted)))

    def lacks_masks(self, wanted: PretrainArguments) -> bool:
        """Whether the loss of these settings has a mask term and no photo a mask."""
        masks = self._masks_of(wanted)
        return masks is not None and not masks.paths

    def features(self) -> Features:
        """Return the default's clean tokens in memory, for the baselines."""
        return baseline_features(self._tokens(self.settings))

    def _masks_of(self, wanted: PretrainArguments) -> RowMasks | None:
        """Find the masks of the photos, once."""
        size = _mask_size(wanted)
        if size not in self._masks:
            self._masks[size] = mask_inputs({"train": self.photos}, wanted, self.args, required=False)
        return self._masks[size]

    def _tokens(self, wanted: PretrainArguments) -> FeatureRows:
        """Compute or open a token set; where a folder is named, each set has a sub-folder."""
        key = _set_name(self.settings, wanted)
        if key not in self._found:
            model = head_on(self.model, wanted, self.photos["label"][:])
            folder = feature_folder(wanted)
            found = compute_tokens(
                {"train": self.photos},  # the split whose rows get draws
                model,
                build_processor(wanted, model),
                wanted,
                self.args,
                folder=None if folder is None else str(Path(folder) / key),
                augmentation=train_augmentation(wanted, self.args.seed),
                masks=self._masks_of(wanted),
            )
            self._found[key] = found["train"]
        return self._found[key]


def with_cache(settings: PretrainArguments) -> PretrainArguments:
    """Return settings whose tokens are kept, in the datasets cache where `feature_cache` was off.

    Raises:
        ValueError: If they augment photos live, which stored tokens cannot follow.
    """
    return dataclasses.replace(settings, feature_cache="auto") if settings.feature_cache == "off" else settings


def _draws(settings: PretrainArguments) -> int:
    return 0 if settings.augmentation == "none" else settings.feature_draws


def _mask_size(settings: PretrainArguments) -> int:
    """Cells a side of the masks that the loss reads, with the patch grid; 0 = it has no mask term."""
    return settings.mask_size if "mask" in (settings.loss_weights or {}) else 0


def _set_name(default: PretrainArguments, wanted: PretrainArguments) -> str:
    """`default`, or a short hash of what differs from it."""
    names = ("view_layout", "evidence_grid", "feature_pooling", *VIEW_KEYS, *DRAW_KEYS)
    changed: dict[str, Any] = {
        name: getattr(wanted, name) for name in names if getattr(wanted, name) != getattr(default, name)
    }
    if _mask_size(wanted) != _mask_size(default):
        changed["mask_size"] = _mask_size(wanted)
    return hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:12] if changed else "default"

"""The frozen backbone's tokens of every row, computed once.

In come rows with encoded photos, the model and its processor; out go the same rows with tokens instead of photos, kept
in one Arrow file whose name is a hash of everything that decides the values. The trainer and the baselines read them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch import Tensor

from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs
from natix_roadwork.data.photo_batches import photo_transform
from natix_roadwork.model.image_processing_roadwork import RoadworkImageProcessor
from natix_roadwork.model.modeling_roadwork import RoadworkModel


FORMAT_VERSION = 1
STORED_DTYPE = np.float16
VIEWS_A_PASS = 48  # a convolutional backbone on a CPU is fastest at 12 to 48 views


@dataclass(frozen=True)
class TokenRows:
    """Rows of one split with their tokens.

    Attributes:
        dataset: The rows without their photos, with `view_features` (float16 bytes) and `view_mask`.
        shape: (V, T, D) of a row's tokens.
    """

    dataset: Dataset
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def for_training(self, metadata: MetadataInputs = NO_METADATA) -> Dataset:
        """Return the rows as model inputs: `view_features` `(V, T, D)` float32, `view_mask` `(V,)`, `labels` `()`.

        Args:
            metadata: What is read besides the photo; its inputs are added.
        """
        columns = ["view_features", "view_mask", "label", *metadata.columns]
        decode = partial(_decode_rows, shape=self.shape, metadata=metadata)
        return self.dataset.select_columns(columns).with_transform(decode)

    def arrays(self, rows: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Read tokens `(N, V, T, D)` float16 and view masks `(N, V)` into memory.

        Args:
            rows: Rows to read, in this order; all when None.
        """
        selected = self.dataset if rows is None else self.dataset.select(rows)
        tokens = np.empty((len(selected), *self.shape), STORED_DTYPE)
        masks = np.empty((len(selected), self.shape[0]), bool)
        for start in range(0, len(selected), VIEWS_A_PASS):
            batch = selected[start : start + VIEWS_A_PASS]
            for offset, (stored, mask) in enumerate(zip(batch["view_features"], batch["view_mask"], strict=True)):
                tokens[start + offset] = np.frombuffer(stored, STORED_DTYPE).reshape(self.shape)
                masks[start + offset] = mask
        return tokens, masks


def extract_features(
    dataset: Dataset,
    model: RoadworkModel,
    processor: RoadworkImageProcessor,
    *,
    folder: str | Path | None = None,
    precision: torch.dtype = torch.float32,
    description: str = "Backbone tokens",
) -> TokenRows:
    """Run the frozen backbone over every row, or read what an earlier run kept.

    Args:
        dataset: Rows of `data.dataset.load_rows`.
        model: Gives the tokens; it runs on the device it is on.
        processor: Cuts the views; its `max_megapixels` limits the photos.
        folder: Where the Arrow file is kept; None = a folder of the datasets cache.
        precision: `float32`, or `bfloat16` to run the backbone under autocast.
        description: Text of the progress bar.

    Raises:
        ValueError: If a photo cannot be decoded; its row id is named.
    """
    config = model.config
    num_tokens = _num_tokens(model)
    shape = (config.num_views, num_tokens, config.feature_dim)
    key = feature_key(dataset, model, processor, precision)
    folder = Path(folder or Path(datasets.config.HF_DATASETS_CACHE) / "natix_roadwork_features")
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: kind for name, kind in dataset.features.items() if name != "image"}
    unnormalised = RoadworkImageProcessor(**processor.settings() | {"do_normalize": False})
    batch_size = max(1, VIEWS_A_PASS // config.num_views)  # boundaries follow from the row's position only
    rows = dataset.map(
        partial(_token_batch, model=model, cut_views=photo_transform(unnormalised), precision=precision),
        batched=True,
        batch_size=batch_size,
        writer_batch_size=8 * batch_size,
        remove_columns=["image"],
        features=Features(kept | {"view_features": Value("large_binary"), "view_mask": List(Value("bool"))}),
        cache_file_name=str(folder / f"{key}.arrow"),
        load_from_cache_file=True,
        new_fingerprint=key,
        desc=description,
    )
    return TokenRows(rows, shape)


def feature_key(
    dataset: Dataset, model: RoadworkModel, processor: RoadworkImageProcessor, precision: torch.dtype
) -> str:
    """Hash everything that decides the tokens: rows, processor, backbone weights, pooling, grid, types, format."""
    config = model.config
    decides = {
        "rows": dataset._fingerprint,
        "processor": processor.settings() | {"do_normalize": False},
        "backbone": model.backbone_hash(),
        "pooling": config.feature_pooling,
        "grid": config.evidence_grid,
        "types": [str(precision), np.dtype(STORED_DTYPE).name, model.device.type],
        "format": FORMAT_VERSION,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _num_tokens(model: RoadworkModel) -> int:
    """T, found by a pass over one black view: a backbone without a class token has one pooled token."""
    size = model.config.view_size
    with torch.no_grad():
        return model.extract_tokens(torch.zeros(1, 1, 3, size, size, device=model.device)).shape[2]


@torch.no_grad()
def _token_batch(
    rows: Mapping[str, Sequence[Any]],
    *,
    model: RoadworkModel,
    cut_views: Any,  # noqa: ANN401 - the function photo_transform returns
    precision: torch.dtype,
) -> dict[str, list]:
    views = cut_views(rows)
    pixel_values = torch.stack(views["pixel_values"]).to(model.device)
    with torch.autocast(model.device.type, dtype=precision, enabled=precision != torch.float32):
        tokens = model.extract_tokens(pixel_values)
    stored = tokens.float().cpu().numpy().astype(STORED_DTYPE)
    return {
        "view_features": [row.tobytes() for row in stored],
        "view_mask": [mask.tolist() for mask in views["view_mask"]],
    }


def _decode_rows(
    rows: Mapping[str, Sequence[Any]], *, shape: tuple[int, int, int], metadata: MetadataInputs
) -> dict[str, list[Tensor]]:
    stored = b"".join(rows["view_features"])
    tokens = torch.from_numpy(np.frombuffer(stored, STORED_DTYPE).reshape(-1, *shape).astype(np.float32))
    return {
        "view_features": list(tokens),
        "view_mask": list(torch.tensor(rows["view_mask"], dtype=torch.bool)),
        "labels": [torch.tensor(label, dtype=torch.long) for label in rows["label"]],
        **metadata.tensors(rows),
    }

"""Rows through a model: logits and embedding of each, over several processes and after a kill the same to the bit.

In come rows of photos or of cached tokens; out go arrays in the order of the rows, which `predict.py` writes. Which rows
run together depends on their numbers alone. Photos go through the backbone in passes of the feature cache's shape, and
their tokens are rounded to float16 as the cache stores them, so that live and cached answers are equal to the bit where
the batch size is a multiple of the rows of a pass (`data.feature_key.rows_a_pass`: 4 photos of 12 views).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from natix_roadwork.data.draws import Draw, Indices, whole_batch
from natix_roadwork.data.feature_key import rows_a_pass
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.photo_batches import PhotoRows
from natix_roadwork.data.predictions import ORIGINAL
from natix_roadwork.inference.parts import Parts, part_ranges
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.model.outputs import RoadworkOutput


TARGETS = ("labels", "weather_labels", "mask_labels")


@dataclass(frozen=True)
class Passes:
    """How rows run through a model.

    Attributes:
        batch_size: Rows that go through the head together.
        precision: Of the backbone, float32 or bfloat16; the head runs in float32.
        num_workers: Processes that decode photos ahead; cached tokens are read without.
    """

    batch_size: int = 32
    precision: torch.dtype = torch.float32
    num_workers: int = 0


def predict_rows(
    model: RoadworkForImageClassification | PeftModel,
    rows: PhotoRows | FeatureRows,
    parts: Parts,
    passes: Passes,
    *,
    split: str,
    transform: int = ORIGINAL,
    state: PartialState | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predict every row, part by part; parts that are there are not computed again.

    Args:
        model: On its device, in evaluation mode; with fold adapters on it, the mean of their answers is taken.
        rows: What it reads.
        parts: Where answers are kept until all are there; entered before.
        passes: How they are computed.
        split: Name of the rows.
        transform: Number of the test-time transform. A row is then drawn at (epoch = transform, position = row), and the
            rows' augmentation makes the transform of it; 0 = the photo as it is.
        state: The processes that share the work, part i to process i modulo their number; None = this one alone.

    Returns:
        Logits `(N, 2)` and embeddings `(N, H)`, on every process.

    Raises:
        ValueError: If a photo cannot be decoded or an answer is not finite; the row is named.
    """
    block, ranges = f"{split}-{transform:02d}", part_ranges(len(rows), passes.batch_size)
    rank, world = (0, 1) if state is None else (state.process_index, state.num_processes)
    own = range(rank, len(ranges), world)
    missing = [number for number in own if not parts.is_there(block, number)]
    description = f"Predictions of {split}" + (f", transform {transform}" if transform != ORIGINAL else "")
    description += f", process {rank + 1} of {world}" if world > 1 else ""
    finished = sum(len(ranges[number]) for number in own if number not in missing)
    total = sum(len(ranges[number]) for number in own)
    with tqdm(total=total, initial=finished, desc=description, unit=" photos", disable=rank != 0) as progress:
        batches = [batch for number in missing for batch in _batches(ranges[number], passes.batch_size, transform)]
        answers = batch_answers(model, rows, batches, passes)
        for number in missing:
            count = -(-len(ranges[number]) // passes.batch_size)
            found = []
            for answer in islice(answers, count):
                found.append(answer)
                progress.update(len(answer[0]))
            logits, embeddings = (torch.cat(tensors) for tensors in zip(*found, strict=True))
            _require_finite(logits, rows, ranges[number])
            parts.write(block, number, logits, embeddings)
    if state is not None:
        state.wait_for_everyone()
    return parts.read(block, range(len(ranges)))


def batch_answers(
    model: RoadworkForImageClassification | PeftModel,
    rows: PhotoRows | FeatureRows,
    batches: Sequence[Indices],
    passes: Passes,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits `(B, 2)` and embeddings `(B, H)` of each batch, float32 on the CPU."""
    workers = 0 if isinstance(rows, FeatureRows) else passes.num_workers
    for batch in DataLoader(rows, batch_sampler=batches, collate_fn=whole_batch, num_workers=workers):
        with torch.inference_mode():
            inputs = model_inputs(model, batch, passes.precision)
            logits, embeddings = classify(model, inputs)
        yield logits.float().cpu(), embeddings.float().cpu()


def model_inputs(
    model: RoadworkForImageClassification | PeftModel, batch: Mapping[str, Tensor], precision: torch.dtype
) -> dict[str, Tensor]:
    """Bring a batch to the head's inputs on the model's device: photos become float16 tokens, targets are left out.

    A model that decodes masks gets the global view's patch grid too, in float16 as the cache keeps it.
    """
    inputs = {name: values.to(model.device) for name, values in batch.items() if name not in TARGETS}
    if "pixel_values" not in inputs:
        return inputs
    pixels, selector, grids = inputs.pop("pixel_values"), model.view_selector, []
    with torch.inference_mode(), torch.autocast(model.device.type, precision, enabled=precision != torch.float32):
        extract = partial(_tokens, model, grids)
        if selector is None:
            tokens = extract(pixels)
        else:
            tokens, inputs["view_mask"] = selector(model.backbone, extract, pixels, inputs["view_mask"])
    if grids:
        inputs["global_grid"] = grids[0].to(torch.float16)
    return inputs | {"view_features": tokens.to(torch.float16)}


def classify(model: RoadworkForImageClassification | PeftModel, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Run the head: logits `(B, 2)` and embeddings `(B, H)`; with adapters the mean over them."""
    answers = [(output.logits, output.embedding) for output in run_head(model, inputs)]
    if len(answers) == 1:
        return answers[0]
    logits, embeddings = (torch.stack(values).mean(dim=0) for values in zip(*answers, strict=True))
    return logits, embeddings


def run_head(model: RoadworkForImageClassification | PeftModel, inputs: Mapping[str, Tensor]) -> list[RoadworkOutput]:
    """Run the head: its output, or with adapters one output for each."""
    if not isinstance(model, PeftModel):
        return [model(**inputs)]
    outputs = []
    for name in model.peft_config:
        model.set_adapter(name, inference_mode=True)
        outputs.append(model(**inputs))
    return outputs


def _tokens(model: RoadworkForImageClassification | PeftModel, grids: list[Tensor], pixels: Tensor) -> Tensor:
    """Tokens `(B, V, T, D)` of `(B, V, 3, S, S)`, in passes of the cache's shape; black views fill the last, as there.

    The global view's patch grid, where the model decodes masks, is added to `grids`.
    """
    rows, size = len(pixels), rows_a_pass(pixels.shape[1])
    if rows % size:
        pixels = torch.cat([pixels, pixels.new_zeros(-rows % size, *pixels.shape[1:])])
    if not model.config.has_mask_head:
        return model.extract_tokens(pixels, view_chunk=size * pixels.shape[1])[:rows]
    tokens, grid = model.extract_tokens_and_grid(pixels, view_chunk=size * pixels.shape[1])
    grids.append(grid[:rows])
    return tokens[:rows]


def _batches(rows: range, batch_size: int, transform: int) -> Iterator[Indices]:
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield list(batch) if transform == ORIGINAL else [Draw(row, transform, row) for row in batch]


def _require_finite(logits: Tensor, rows: PhotoRows | FeatureRows, numbers: range) -> None:
    bad = (~logits.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        number = numbers[bad[0]]
        row_id = rows.rows["row_id"][int(rows.chosen[number]) if isinstance(rows, FeatureRows) else number]
        raise ValueError(
            f"row {row_id!r}: logits {logits[bad[0]].tolist()} are not finite ({len(bad)} such rows among "
            f"{len(numbers)}); with bf16 or tokens beyond float16's range, try --bf16 false"
        )

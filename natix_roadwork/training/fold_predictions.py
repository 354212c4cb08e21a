"""What a model says of some target rows, as one predictions table; base and fold models go the same way."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from natix_roadwork.data.draws import DrawRows, whole_batch
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.predictions import NOT_OUT_OF_FOLD, ORIGINAL, Predictions
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.finetune_inputs import FinetuneInputs, fold_record


def predict(
    model: nn.Module,
    inputs: FinetuneInputs,
    numbers: NDArray[np.int64],
    args: RoadworkTrainingArguments,
    member: str,
    fold: int = NOT_OUT_OF_FOLD,
) -> Predictions:
    """Run a model in evaluation mode over clean views of some rows; every process does all of them.

    Args:
        model: The base, or the base with an adapter.
        inputs: The target rows.
        numbers: `(M,)` row numbers.
        args: Batch size, precision, device, workers.
        member: Name of the model.
        fold: Fold that holds these rows out.
    """
    logits, embeddings = logits_and_embeddings(model, inputs.rows.select(numbers), args)
    target = inputs.target
    return Predictions(
        member=member,
        row_ids=target.row_ids[numbers],
        labels=target.labels[numbers],
        groups=target.groups[numbers],
        splits=np.asarray(target.rows["split"][:], dtype=np.str_)[numbers],
        logits=logits,
        embeddings=embeddings,
        folds=np.full(len(numbers), fold, dtype=np.int64),
        transforms=np.full(len(numbers), ORIGINAL, dtype=np.int64),
        record=fold_record(inputs),
    )


@torch.no_grad()
def logits_and_embeddings(
    model: nn.Module, rows: DrawRows, args: RoadworkTrainingArguments
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run a model in evaluation mode over rows as they are; every process does all of them.

    Args:
        model: On its device.
        rows: N rows.
        args: Batch size, precision, device, workers.

    Returns:
        Logits `(N, 2)` and embeddings `(N, H)`.
    """
    workers = 0 if isinstance(rows, FeatureRows) else args.dataloader_num_workers
    loader = DataLoader(rows, batch_size=args.eval_batch_size, num_workers=workers, collate_fn=whole_batch)
    model.eval()
    logits, embeddings = [], []
    for batch in loader:
        batch = {name: values.to(args.device) for name, values in batch.items() if "labels" not in name}
        with torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=bool(args.bf16)):
            output = model(**batch)
        logits.append(output.logits.float().cpu())
        embeddings.append(output.embedding.float().cpu())
    return torch.cat(logits).numpy(), torch.cat(embeddings).numpy()

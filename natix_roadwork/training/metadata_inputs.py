"""The metadata side of a run's batches: which fields are read, and what they are looked up in.

`pretrain_inputs.py` hands the outcome to the data room, which puts it into each batch.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs
from natix_roadwork.data.text_vectors import TEXT_FOLDER, compute_text_vectors
from natix_roadwork.training.arguments import RoadworkTrainingArguments


def metadata_inputs(
    splits: dict[str, Dataset],
    fields: Sequence[str],
    vocabularies: dict[str, list[str]],
    loss_weights: dict[str, float],
    text_encoder_id: str,
    args: RoadworkTrainingArguments,
    folder: str | None = None,
) -> MetadataInputs:
    """Prepare the metadata that the batches hold, text vectors computed once on the main process.

    Args:
        splits: Rows whose texts get a vector.
        fields: The fields the model reads.
        vocabularies: Known words of the tag fields, as the model was built with.
        loss_weights: With a weight for `weather`, the batches hold that term's targets too.
        text_encoder_id: Reads the field `text`.
        args: Device and processes.
        folder: Text vectors are kept in a sub-folder of it; None = the datasets cache.

    Raises:
        ValueError: If a field or the text encoder cannot be used.
    """
    if not fields and "weather" not in loss_weights:
        return NO_METADATA
    vectors = None
    if "text" in fields:
        texts = {text for split in splits.values() for text in split["text"][:]}
        with args.main_process_first(desc="computing text vectors"):
            kept = Path(folder) / TEXT_FOLDER if folder else None
            vectors = compute_text_vectors(texts, text_encoder_id, folder=kept, device=str(args.device))
    return MetadataInputs(tuple(fields), vocabularies, vectors, "weather" in loss_weights)

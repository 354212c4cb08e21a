"""The metadata side of a run's batches: which fields are read, and what they are looked up in.

`pretrain_inputs.py` hands the outcome to the data room, which puts it into each batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers.utils import logging

from natix_roadwork.data.extra_evidence import (
    ExtraEvidence,
    check_coverage,
    check_source,
    evidence_hash,
    evidence_width,
    read_extra_evidence,
)
from natix_roadwork.data.metadata import NO_METADATA, MetadataInputs
from natix_roadwork.data.text_vectors import TEXT_FOLDER, compute_text_vectors
from natix_roadwork.training.arguments import RoadworkTrainingArguments


logger = logging.get_logger(__name__)


def metadata_inputs(
    splits: dict[str, Dataset],
    fields: Sequence[str],
    vocabularies: dict[str, list[str]],
    loss_weights: dict[str, float],
    text_encoder_id: str,
    args: RoadworkTrainingArguments,
    folder: str | None = None,
    extra_evidence: str | None = None,
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
        extra_evidence: File of figures of the photos; None = none are read.

    Raises:
        ValueError: If a field, the text encoder or the file cannot be used.
    """
    evidence = load_evidence(extra_evidence, splits)
    if not fields and "weather" not in loss_weights and evidence is None:
        return NO_METADATA
    vectors = None
    if "text" in fields:
        texts = {text for split in splits.values() for text in split["text"][:]}
        with args.main_process_first(desc="computing text vectors"):
            kept = Path(folder) / TEXT_FOLDER if folder else None
            vectors = compute_text_vectors(texts, text_encoder_id, folder=kept, device=str(args.device))
    return MetadataInputs(tuple(fields), vocabularies, vectors, "weather" in loss_weights, evidence)


def load_evidence(path: str | None, splits: Mapping[str, Dataset]) -> ExtraEvidence | None:
    """Read a file of figures and say which rows it has; None where there is no file.

    Args:
        path: File of `data/extra_evidence.py`.
        splits: The rows that will be read.

    Raises:
        ValueError: If the file cannot be used or comes of a provider that knows the label, has none of the rows of a
            split, or its presence tells the label.
    """
    if path is None:
        return None
    evidence = read_extra_evidence(path)
    check_source(evidence, path)
    for name, split in splits.items():
        coverage = evidence.coverage(split["row_id"][:], split["label"][:])
        check_coverage(coverage, name, path)
        missing = sum(coverage["missing"].values())
        if missing:
            logger.warning(
                f"extra_evidence: {missing} of {len(split)} rows of {name} have none ({coverage['missing']}), "
                f"{', '.join(coverage['missing_rows'])} among them; the model reads them as missing."
            )
    return evidence


def require_width(path: str | None, width: int) -> None:
    """Refuse a file of other figures than a trained model reads.

    Args:
        path: File of `data/extra_evidence.py`; None = none is read.
        width: F of the model, its `extra_evidence_size`.

    Raises:
        ValueError: If it has others, or the model reads none.
    """
    if path is not None and evidence_width(path) != width:
        raise ValueError(
            f"extra_evidence={path!r} has {evidence_width(path)} figures a piece, the model reads {width}; give the file "
            "of the detector it was trained with, or none"
        )


def side_inputs(config: Mapping[str, Any]) -> list[str]:
    """Name what a model was trained to read beside the photo that comes of other models, which a bare photo lacks.

    Args:
        config: Values of its `RoadworkConfig`.
    """
    named = {"a depth map": config.get("depth_view"), "figures of detectors": config.get("extra_evidence_size")}
    return [name for name, read in named.items() if read]


def evidence_record(path: str | None, splits: Mapping[str, Dataset]) -> dict[str, Any] | None:
    """Describe a file of figures and which rows it has, for `result.json`; None where there is none."""
    if path is None:
        return None
    evidence = read_extra_evidence(path)
    return {
        "sha256": evidence_hash(path),
        "names": list(evidence.names),
        "pieces": evidence.values.shape[1],
        "source": evidence.source,
        "coverage": {name: evidence.coverage(split["row_id"][:], split["label"][:]) for name, split in splits.items()},
    }

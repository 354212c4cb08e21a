"""Where, when and in what weather a photo was taken, as inputs of the model.

In come rows of the schema (`data/dataset.py`) and the fields a run reads; out go the arrays that the model's `forward`
takes by name, and only those of the chosen fields. `data/photo_batches.py` and `data/feature_rows.py` put them into
each batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natix_roadwork.data.extra_evidence import ExtraEvidence
from natix_roadwork.data.tags import tag_ids
from natix_roadwork.data.text_vectors import TextVectors
from natix_roadwork.model.configuration_roadwork import METADATA_FIELDS


TAG_FIELDS = ("weather", "daytime", "scene")
NO_TAG = -1
UNKNOWN_WEATHER = -100
# Columns of the row schema that each field is read from.
FIELD_COLUMNS = {
    "gps": ("latitude", "longitude"),
    **{field: (field,) for field in TAG_FIELDS},
    "text": ("text",),
}
Rows = Mapping[str, Sequence[Any]]


def encode_metadata(
    rows: Rows,
    fields: Sequence[str],
    vocabularies: Mapping[str, Sequence[str]],
    text_vectors: TextVectors | None = None,
    *,
    weather_labels: bool = False,
) -> dict[str, NDArray]:
    """Turn the metadata of rows into the model's inputs.

    Args:
        rows: Columns of the row schema, at least those the fields need (`FIELD_COLUMNS`).
        fields: Which of `METADATA_FIELDS` the model reads.
        vocabularies: Known words of `weather`, `daytime` and `scene`, in the order of their ids.
        text_vectors: Vectors of the rows' texts; needed for the field `text`.
        weather_labels: Whether the targets of the weather term are wanted too.

    Returns:
        For `gps`: `gps` `(N, 2)` float32 degrees, NaN = missing. For a tag field: `<field>_ids` `(N, n + 1)` int64 with
        n words in its vocabulary: distinct ids, n = UNK for a tag that is not in it, padded with -1; a row of -1 is a
        missing field. The width holds every set of tags, so nothing is cut off. For `text`: `text_embeddings`
        `(N, 384)` float32, NaN = missing. With `weather_labels`: `weather_labels` `(N,)` int64, the id where a row's
        tags amount to one known word, else -100: also with several words, since the term has one answer.

    Raises:
        ValueError: If a field is unknown or given twice, or a vocabulary or the text vectors are missing.
    """
    _check(fields, vocabularies, text_vectors, weather_labels)
    arrays: dict[str, NDArray] = {}
    ids = {
        field: [tag_ids(field, tags, vocabularies[field]) for tags in rows[field]]
        for field in TAG_FIELDS
        if field in fields or (weather_labels and field == "weather")
    }
    if "gps" in fields:
        arrays["gps"] = np.stack([rows["latitude"], rows["longitude"]], -1).astype(np.float32)
    for field in TAG_FIELDS:
        if field in fields:
            arrays[f"{field}_ids"] = _padded(ids[field], len(vocabularies[field]) + 1)
    if "text" in fields and text_vectors is not None:
        arrays["text_embeddings"] = text_vectors.lookup(rows["text"])
    if weather_labels:
        unknown = len(vocabularies["weather"])
        labels = [row[0] if len(row) == 1 and row[0] != unknown else UNKNOWN_WEATHER for row in ids["weather"]]
        arrays["weather_labels"] = np.array(labels, np.int64)
    return arrays


@dataclass(frozen=True)
class MetadataInputs:
    """What a run reads of the metadata, ready to be applied to rows in any process.

    Attributes:
        fields: Which of `METADATA_FIELDS` the model reads.
        vocabularies: Known words of the tag fields.
        text_vectors: Vectors of the texts; None where `text` is not read.
        weather_labels: Whether the targets of the weather term are wanted.
        extra_evidence: Figures of the photos by row id; None where none are read.

    Raises:
        ValueError: As `encode_metadata`.
    """

    fields: tuple[str, ...] = ()
    vocabularies: Mapping[str, Sequence[str]] | None = None
    text_vectors: TextVectors | None = None
    weather_labels: bool = False
    extra_evidence: ExtraEvidence | None = None

    def __post_init__(self) -> None:
        """Check the fields before the first batch does."""
        _check(self.fields, self.vocabularies or {}, self.text_vectors, self.weather_labels)

    @property
    def columns(self) -> list[str]:
        """Columns of the row schema that are read."""
        read = [column for field in self.fields for column in FIELD_COLUMNS[field]]
        read += ["weather"] * self.weather_labels + ["row_id"] * (self.extra_evidence is not None)
        return list(dict.fromkeys(read))

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """Return the model's inputs for N rows, each with a leading axis; without fields and targets there are none."""
        arrays = encode_metadata(
            rows, self.fields, self.vocabularies or {}, self.text_vectors, weather_labels=self.weather_labels
        )
        if self.extra_evidence is not None:
            arrays["extra_evidence"] = self.extra_evidence.lookup(rows["row_id"])
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _padded(ids: list[list[int]], width: int) -> NDArray[np.int64]:
    padded = np.full((len(ids), width), NO_TAG, np.int64)
    for row, found in zip(padded, ids, strict=True):
        row[: len(found)] = found
    return padded


def _check(
    fields: Sequence[str],
    vocabularies: Mapping[str, Sequence[str]],
    text_vectors: TextVectors | None,
    weather_labels: bool,
) -> None:
    unknown = [field for field in fields if field not in METADATA_FIELDS]
    if unknown or len(set(fields)) != len(fields):
        wrong = f"{unknown[0]!r} is none of" if unknown else "a field occurs twice; choose from"
        raise ValueError(f"metadata_fields={list(fields)}: {wrong} {list(METADATA_FIELDS)}")
    for field in TAG_FIELDS:
        needed = field in fields or (weather_labels and field == "weather")
        if needed and not vocabularies.get(field):
            raise ValueError(f"vocabularies has no words for {field!r}; it needs a list of known tags")
    if "text" in fields and text_vectors is None:
        raise ValueError("metadata_fields has 'text' but there are no text_vectors; see compute_text_vectors")


NO_METADATA = MetadataInputs()

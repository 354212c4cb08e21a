"""The rows a member is most wrong about, each with its photo and, where the model is at hand, what it looked at.

In come predictions and rows; out go cards whose pictures are `data:` URIs. Photos are read one by one, so memory does not
grow with their number. The page of `error_report.py` shows the cards.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from natix_roadwork.data.evidence_map import EVIDENCE_COLOUR, evidence_opacity
from natix_roadwork.data.natix_columns import LABEL_NAMES
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.data.predictions import Predictions
from natix_roadwork.inference.row_evidence import EvidenceReader, RowEvidence
from natix_roadwork.model.photo import load_photo


MOST_ROWS = 40
MOST_OF_A_GROUP = 3
PHOTO_WIDTH = 900
JPEG_QUALITY = 80
METADATA = ("weather", "daytime", "scene", "travel_alteration", "city", "video_id", "sequence_id", "text")
# Outline points of a mask may lie this far, in photo widths, from the mask's own edge.
OUTLINE_TOLERANCE = 0.002


@dataclass(frozen=True)
class WorstRow:
    """One card of the page.

    Attributes:
        row_id: Id of the row.
        label: Name of its label.
        probability: Of roadwork, from the predictions.
        loss: Log loss of the row.
        kind: `missed roadwork`, `false alarm`, or `right, but unsure`.
        group: Its group.
        metadata: What else is known of it.
        size: Width and height of the upright photo in pixels.
        photo: The photo, at most 900 pixels wide, as a JPEG `data:` URI.
        evidence: What the model looked at; None without a model.
        heat: Its map as a transparent PNG `data:` URI, to lie over the photo.
        outlines: Outline of each piece of the row's mask in photo pixels, as points of an SVG polygon.
    """

    row_id: str
    label: str
    probability: float
    loss: float
    kind: str
    group: str
    metadata: dict[str, str]
    size: tuple[int, int]
    photo: str
    evidence: RowEvidence | None
    heat: str | None
    outlines: list[str]


def row_losses(predictions: Predictions) -> NDArray[np.float64]:
    """Compute the log loss of each line, `(N,)`."""
    signs = np.where(predictions.labels == 1, -1.0, 1.0)
    return np.logaddexp(0.0, signs * predictions.margins)


def worst_lines(predictions: Predictions, limit: int) -> NDArray[np.int64]:
    """Choose the lines with the largest log loss, at most `MOST_OF_A_GROUP` of a group, the worst first.

    Args:
        predictions: One line a photo.
        limit: Most lines chosen, 0 to `MOST_ROWS`.

    Raises:
        ValueError: If the limit is out of range.
    """
    if not 0 <= limit <= MOST_ROWS:
        raise ValueError(f"worst_rows={limit!r} must be 0 to {MOST_ROWS}; each photo makes the page larger")
    chosen: list[int] = []
    taken: Counter[str] = Counter()
    for line in np.argsort(-row_losses(predictions), kind="stable").tolist():
        group = str(predictions.groups[line])
        if len(chosen) < limit and taken[group] < MOST_OF_A_GROUP:
            chosen.append(line)
            taken[group] += 1
    return np.array(chosen, dtype=np.int64)


def worst_row_cards(
    predictions: Predictions, rows: Dataset, reader: EvidenceReader | None = None, progress: bool = True
) -> list[WorstRow]:
    """Make one card a row.

    Args:
        predictions: N chosen lines, the worst first.
        rows: Their rows, in the same order.
        reader: Runs the model on each of them; None leaves views and evidence out.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: If a photo or a mask cannot be read; the row is named.
    """
    losses = row_losses(predictions)
    cards = []
    for line, row in enumerate(tqdm(rows, desc="Worst rows", unit="photo", disable=not progress)):
        cards.append(_card(predictions, line, float(losses[line]), row, reader))
    return cards


def _card(
    predictions: Predictions, line: int, loss: float, row: Mapping[str, Any], reader: EvidenceReader | None
) -> WorstRow:
    photo = Image.fromarray(load_photo(photo_source(row["image"]), name=row["row_id"]))
    evidence = reader.explain(row, photo.size) if reader else None
    label, probability = int(row["label"]), float(predictions.probabilities[line])
    decided = int(probability > 0.5)
    kind = "right, but unsure" if decided == label else "missed roadwork" if label else "false alarm"
    return WorstRow(
        row_id=row["row_id"],
        label=LABEL_NAMES[label],
        probability=probability,
        loss=loss,
        kind=kind,
        group=str(predictions.groups[line]),
        metadata=_metadata(row, photo.size),
        size=photo.size,
        photo=jpeg_uri(photo),
        evidence=evidence,
        heat=None if evidence is None else _heat(evidence.shares),
        outlines=_outlines(row, photo.size),
    )


def _metadata(row: Mapping[str, Any], size: tuple[int, int]) -> dict[str, str]:
    found = {"size": f"{size[0]} x {size[1]}"}
    if row["latitude"] is not None and not np.isnan(row["latitude"]):
        found["GPS"] = f"{row['latitude']:.4f}, {row['longitude']:.4f}"
    for name in METADATA:
        value = ", ".join(row[name]) if isinstance(row[name], list) else row[name]
        if value:
            found[name.replace("_", " ")] = str(value)
    return found


def jpeg_uri(photo: Image.Image) -> str:
    """Write a photo, at most `PHOTO_WIDTH` pixels wide, as a JPEG `data:` URI."""
    shown = photo
    if photo.width > PHOTO_WIDTH:
        height = max(1, round(photo.height * PHOTO_WIDTH / photo.width))
        shown = photo.resize((PHOTO_WIDTH, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return _uri("image/jpeg", buffer.getvalue())


def _heat(shares: NDArray[np.float64]) -> str:
    opacity = (255 * evidence_opacity(shares)).round().astype(np.uint8)
    colour = np.broadcast_to(np.array(EVIDENCE_COLOUR, np.uint8), (*opacity.shape, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([colour, opacity])).save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _outlines(row: Mapping[str, Any], size: tuple[int, int]) -> list[str]:
    """Outline the pixels of the row's mask that mark anything, in photo pixels."""
    if not row["mask"]:
        return []
    try:
        with Image.open(row["mask"]) as opened:
            marked = (np.asarray(opened) != 0).astype(np.uint8)
    except OSError as error:
        raise ValueError(f"row {row['row_id']!r}: mask {row['mask']!r} cannot be read: {error}") from error
    marked = marked if marked.ndim == 2 else marked.max(axis=2)
    pieces, _ = cv2.findContours(marked, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    scale = np.array(size) / np.array(marked.shape[::-1])
    outlines = []
    for piece in pieces:
        points = cv2.approxPolyDP(piece, OUTLINE_TOLERANCE * marked.shape[1], closed=True)[:, 0] * scale
        outlines.append(" ".join(f"{x:.0f},{y:.0f}" for x, y in points))
    return outlines

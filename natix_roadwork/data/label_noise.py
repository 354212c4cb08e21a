"""Rows whose label is probably wrong: those that models which never saw them disagree with most.

In come labels and out-of-fold probabilities of any source; out go the rows in the order of doubt and an HTML page with
their photos. Disagreement is a reason to look, not a verdict: hard photos stand there as well.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from datasets import Dataset
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from natix_roadwork.data.natix_columns import LABEL_NAMES
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.model.photo import load_photo


TEMPLATE = "photo_page.html.jinja"
THUMBNAIL_SIDE = 320


@dataclass(frozen=True)
class PhotoCard:
    """One photo on a page: its row id, a caption, and the photo as a `data:` URI."""

    row_id: str
    caption: str
    picture: str


def doubtful_rows(labels: Sequence[int], probabilities: NDArray[np.float64], limit: int = 60) -> NDArray[np.int64]:
    """Rank rows by self-confidence, the out-of-fold probability of their own label, lowest first.

    Only rows whose self-confidence lies below 0.5 are listed. This is the ranking of
    [confident learning](https://arxiv.org/abs/1911.00068) (Northcutt et al., 2021).

    Args:
        labels: `(N,)` of 0 and 1.
        probabilities: `(N,)` out-of-fold probabilities of roadwork.
        limit: Most rows returned.

    Raises:
        ValueError: If a row has no probability in [0, 1]; it is named.
    """
    values, target = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if values.shape != target.shape:
        raise ValueError(f"probabilities has shape {values.shape}, labels {target.shape}; both need one value a row")
    bad = np.flatnonzero(~((values >= 0.0) & (values <= 1.0)))
    if len(bad):
        raise ValueError(f"probabilities[{bad[0]}]={values[bad[0]]} is not in [0, 1] ({len(bad)} such rows)")
    confidence = np.where(target == 1, values, 1.0 - values)
    order = np.argsort(confidence, kind="stable")
    return order[confidence[order] < 0.5][:limit]


def write_label_noise_page(
    path: str | Path, rows: Dataset, probabilities: NDArray[np.float64], source: str, limit: int = 60
) -> NDArray[np.int64]:
    """Write the page of doubtful rows.

    Args:
        path: HTML file to write; photos are inside it.
        rows: N rows of `load_rows`.
        probabilities: `(N,)` out-of-fold probabilities of roadwork.
        source: What gave the probabilities, for the page's heading.
        limit: Most rows shown.

    Returns:
        Numbers of the rows shown, most doubtful first.
    """
    labels = np.asarray(rows["label"][:])
    chosen = doubtful_rows(labels, probabilities, limit)
    captions = [f"labelled {LABEL_NAMES[labels[row]]}, P(roadwork) {probabilities[row]:.3f}" for row in chosen]
    doubted = int((np.where(labels == 1, probabilities, 1 - probabilities) < 0.5).sum())
    note = (
        f"{doubted} of {len(labels)} labels disagree with {source}, out of fold; the {len(chosen)} most doubtful are "
        "shown. A label here is worth a look; hard photos are here too."
    )
    write_photo_page(path, "Labels to look at", note, [_cards(rows, chosen, captions)])
    return chosen


def write_duplicate_page(path: str | Path, rows: Dataset, sets: Sequence[Sequence[int]], limit: int = 40) -> None:
    """Write a page with one line of photos for each set of near-duplicates.

    Args:
        path: HTML file to write.
        rows: Rows of `load_rows`.
        sets: Row numbers of each set.
        limit: Most sets shown; six photos of each.
    """
    split, labels = rows["split"][:], rows["label"][:]
    lines = []
    for numbers in sets[:limit]:
        captions = [f"{split[row]}, {LABEL_NAMES[labels[row]]}" for row in numbers[:6]]
        lines.append(_cards(rows, numbers[:6], captions))
    note = f"{len(sets)} sets of photos with almost the same picture; {len(lines)} are shown, one a line."
    write_photo_page(path, "Near-duplicates", note, lines)


def write_photo_page(path: str | Path, title: str, note: str, lines: Sequence[Sequence[PhotoCard]]) -> Path:
    """Write a page of photos; every text is escaped.

    Args:
        path: HTML file to write.
        title: Heading.
        note: Paragraph below it.
        lines: Cards, one line of them after the other.
    """
    template = files("natix_roadwork.data").joinpath(TEMPLATE).read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.render(title=title, note=note, lines=lines), encoding="utf-8")
    return path


def _cards(rows: Dataset, numbers: Sequence[int], captions: Sequence[str]) -> list[PhotoCard]:
    chosen = rows.select([int(number) for number in numbers])
    return [
        PhotoCard(row["row_id"], caption, _thumbnail(photo_source(row["image"])))
        for row, caption in zip(chosen, captions, strict=True)
    ]


def _thumbnail(source: bytes | str) -> str:
    photo = Image.fromarray(load_photo(source))
    photo.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

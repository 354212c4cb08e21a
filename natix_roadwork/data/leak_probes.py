"""What a metadata field or a file property says about the label when nothing else is known.

In come columns of rows; out come features of one field each, and out-of-fold probabilities of roadwork from them.
Everything that is fitted is fitted inside the folds. `data/leak_audit.py` judges the result.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits


SHORTCUTS = ("travel_alteration", "city", "photo_size", "file_bytes", "jpeg_quality")
PROBES = ("logistic_regression", "gradient_boosting")
HASHED_WORDS = 128
ROWS_A_READ = 64
# Luminance table of the JPEG standard (ITU-T T.81, table K.1), which encoders scale by their quality setting.
STANDARD_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)

FloatArray = NDArray[np.float64]
Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class FieldFeatures:
    """Features of one field.

    Attributes:
        present: `(N,)` whether the row has a value.
        numbers: `(N, F)` numbers of the field, NaN where missing; the presence bit is the first.
        words: `(N, W)` counts of hashed words or tags, those that occur; W = 0 for fields without any.
    """

    present: NDArray[np.bool_]
    numbers: FloatArray
    words: FloatArray


def field_features(rows: Dataset) -> dict[str, FieldFeatures]:
    """Turn each field of `METADATA_FIELDS` and `SHORTCUTS` into features.

    Args:
        rows: N rows of `data.dataset.load_rows`, photos included.
    """
    columns = {name: rows[name][:] for name in ("latitude", "longitude", "width", "height", "text", "city")}
    width, height = (np.asarray(columns[name], dtype=np.float64) for name in ("width", "height"))
    num_bytes, quality = file_properties(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "gps": _numbers(np.asarray(columns["latitude"], float), np.asarray(columns["longitude"], float)),
            **{name: _words(rows[name][:]) for name in ("weather", "daytime", "scene")},
            "text": _words([text.split() for text in columns["text"]], lengths=[len(t) for t in columns["text"]]),
            "travel_alteration": _words(rows["travel_alteration"][:]),
            "city": _words([[city] if city else [] for city in columns["city"]]),
            "photo_size": _numbers(width, height, width / height),
            "file_bytes": _numbers(num_bytes, num_bytes / (width * height)),
            "jpeg_quality": _numbers(quality),
        }


def file_properties(rows: Dataset) -> tuple[FloatArray, FloatArray]:
    """Read the size of each stored photo and estimate its JPEG quality; only headers are read.

    Returns:
        `(N,)` bytes, and `(N,)` quality from 1 to 100, NaN for other formats.
    """
    sizes, qualities = np.empty(len(rows)), np.empty(len(rows))
    images = rows.select_columns(["image"]).with_format(None)
    for start in range(0, len(rows), ROWS_A_READ):
        for offset, image in enumerate(images[start : start + ROWS_A_READ]["image"]):
            sizes[start + offset], qualities[start + offset] = _file_property(image)
    return sizes, qualities


def _file_property(image: Mapping[str, Any]) -> tuple[int, float]:
    if image["bytes"] is None:
        with open(image["path"], "rb") as file:
            quality = jpeg_quality(file)
            return file.seek(0, io.SEEK_END), quality
    return len(image["bytes"]), jpeg_quality(io.BytesIO(image["bytes"]))


def jpeg_quality(file: io.IOBase) -> float:
    """Estimate the quality setting of a JPEG from its luminance quantisation table; NaN for other formats.

    The inverse of the scaling of libjpeg's `jpeg_quality_scaling`: exact to about one unit for its own files.
    """
    with Image.open(file) as photo:
        tables = getattr(photo, "quantization", None)
    if not tables:
        return np.nan
    percent = 100.0 * sum(tables[min(tables)]) / sum(STANDARD_TABLE)
    return float(np.clip((200.0 - percent) / 2.0 if percent <= 100.0 else 5000.0 / percent, 1.0, 100.0))


def out_of_fold(make: Callable[[], BaseEstimator], features: FloatArray, labels: NDArray, folds: Folds) -> FloatArray:
    """Return `(N,)` probabilities of roadwork, each from a model that was fitted without the row's fold."""
    probabilities = np.full(len(labels), np.nan)
    # On a busy machine the threads of these many small fits wait for each other far longer than they work.
    with threadpool_limits(limits=1):
        for fit, rest in folds:
            # Gradient boosting cannot bin a column without a single value among the rows it learns from.
            values = np.where(np.isnan(features[fit]).all(axis=0), 0.0, features)
            model = make().fit(values[fit], labels[fit])
            probabilities[rest] = model.predict_proba(values[rest])[:, 1]
    return probabilities


def presence_probabilities(field: FieldFeatures, labels: NDArray, folds: Folds) -> FloatArray:
    """Score rows by the presence bit alone, `(N,)`."""
    return out_of_fold(_logistic, field.numbers[:, :1], labels, folds)


def value_probabilities(field: FieldFeatures, labels: NDArray, folds: Folds, probe: str, seed: int) -> FloatArray:
    """Score rows by presence bit and values, `(N,)`, with one of `PROBES`."""
    features, numbers = np.hstack([field.numbers, field.words]), field.numbers.shape[1]
    if probe == "gradient_boosting":
        return out_of_fold(lambda: _boosting(seed), features, labels, folds)
    scaled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    parts = [("numbers", scaled, slice(0, numbers))]
    if field.words.shape[1]:
        parts.append(("words", TfidfTransformer(), slice(numbers, features.shape[1])))
    return out_of_fold(lambda: make_pipeline(ColumnTransformer(parts), _logistic()), features, labels, folds)


def _logistic() -> LogisticRegression:
    return LogisticRegression(class_weight="balanced", max_iter=1000)


def _boosting(seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, class_weight="balanced", early_stopping=False, random_state=seed
    )


def _numbers(*values: FloatArray) -> FieldFeatures:
    present = np.all(np.isfinite(values), axis=0)
    columns = [np.where(np.isfinite(value), value, np.nan) for value in values]
    return FieldFeatures(present, np.column_stack([present, *columns]).astype(np.float64), np.empty((len(present), 0)))


def _words(tokens: Sequence[Sequence[str]], lengths: Sequence[int] | None = None) -> FieldFeatures:
    present = np.array([bool(words) for words in tokens])
    numbers = [present, [len(words) for words in tokens], *([lengths] if lengths is not None else [])]
    hashed = HashingVectorizer(analyzer=_lower, n_features=HASHED_WORDS, alternate_sign=False, norm=None)
    counts = hashed.transform(tokens).toarray()
    return FieldFeatures(present, np.column_stack(numbers).astype(np.float64), counts[:, counts.any(axis=0)])


def _lower(words: Sequence[str]) -> list[str]:
    return [word.casefold().strip(".,;:!?") for word in words]

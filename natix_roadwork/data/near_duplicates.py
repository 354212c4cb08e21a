"""Near-duplicates: photos that show almost the same picture, whatever their file, id or size.

In come rows with encoded photos, or their global-view embeddings; out go pairs of row numbers for `data/groups.py`. Each
photo is decoded once, as small as its format allows, and its hash is kept in the datasets cache.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from datasets import Dataset, Features, Value
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter


# Limits measured on drawn scenes by tests/benchmarks/near_duplicates.py.
MAX_DISTANCE = 12
MIN_CORRELATION = 0.75
MIN_DETAIL = 0.5
# Deviation in thumbnail pixels of the blur that is taken off to leave the detail.
BLUR = 3.0
# Of EfficientNet-Lite0's global view; another backbone may want another limit.
MIN_COSINE = 0.75
HASH_BITS = 64
THUMBNAIL = (48, 32)
# Pixels of the thumbnail by which two photos are shifted against each other to find where they agree best.
MAX_SHIFT = 2
# A JPEG is decoded at a half, a quarter or an eighth of its size, whichever is the smallest that has this many pixels.
DECODED_SIDE = 256
# Photos whose grey levels deviate less than this (0 to 255) have no picture to compare.
MIN_CONTRAST = 2.0
COMPARED_A_PASS = 4_000_000
CORRELATED_A_PASS = 2048
PRINT_BATCH = 64
PRINT_FEATURES = Features({"photo_print": Value("binary")})
HASH_BYTES = HASH_BITS // 8

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class PhotoPrints:
    """What is compared of N photos.

    Attributes:
        hashes: `(N,)` perceptual hashes.
        thumbnails: `(N, 32, 48)` uint8 grey levels.
        comparable: `(N,)` whether there is a picture to compare: not for flat photos, nor for those that cannot be
            decoded, which other parts of the library name.
    """

    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    comparable: NDArray[np.bool_]


def photo_print(source: bytes | str) -> tuple[int, bytes] | None:
    """Compute the 64-bit perceptual hash of a photo (`imagehash.phash`) and its thumbnail, upright and in grey.

    Args:
        source: Encoded photo, or its path.

    Returns:
        The hash as an unsigned number and the thumbnail's bytes; None for a photo of one flat colour.

    Raises:
        ValueError: If the photo cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as photo:
            photo.draft("L", (DECODED_SIDE, DECODED_SIDE))
            grey = ImageOps.exif_transpose(photo).convert("L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the photo cannot be decoded: {error}") from error
    thumbnail = grey.resize(THUMBNAIL, Image.Resampling.LANCZOS)
    if np.asarray(thumbnail, dtype=np.float64).std() < MIN_CONTRAST:
        return None
    return int(str(imagehash.phash(grey)), 16), thumbnail.tobytes()


def photo_prints(images: Dataset, num_proc: int | None = None) -> PhotoPrints:
    """Hash every photo of a data set, or read what an earlier call kept in the datasets cache.

    Args:
        images: Rows with an undecoded `image`.
        num_proc: Processes that share the work.
    """
    prints = images.select_columns(["image"]).map(
        _print_batch,
        batched=True,
        batch_size=PRINT_BATCH,
        remove_columns=["image"],
        features=PRINT_FEATURES,
        num_proc=num_proc,
        desc="Looking for near-duplicates",
        fn_kwargs={"code_hash": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()},
    )
    width, height = THUMBNAIL
    stored = prints.with_format("arrow")[:]["photo_print"].to_pylist()
    blank = bytes(HASH_BYTES + width * height)
    values = np.frombuffer(b"".join(found or blank for found in stored), np.uint8).reshape(-1, len(blank))
    return PhotoPrints(
        hashes=values[:, :HASH_BYTES].copy().view("<u8")[:, 0],
        thumbnails=values[:, HASH_BYTES:].reshape(-1, height, width),
        comparable=np.array([found is not None for found in stored], dtype=bool),
    )


def _print_batch(rows: Mapping[str, Sequence[Any]], *, code_hash: str) -> dict[str, list[bytes | None]]:
    """Hash one batch; `code_hash` only decides whether a cached result is valid."""
    return {"photo_print": [_stored_print(image) for image in rows["image"]]}


def _stored_print(image: Mapping[str, Any]) -> bytes | None:
    try:
        found = photo_print(image["bytes"] if image["bytes"] is not None else image["path"])
    except ValueError:
        return None  # damage is named where the photo is needed; here it is only not comparable
    return found and found[0].to_bytes(HASH_BYTES, "little") + found[1]


def near_duplicate_pairs(
    prints: PhotoPrints,
    max_distance: int = MAX_DISTANCE,
    min_correlation: float = MIN_CORRELATION,
    min_detail: float = MIN_DETAIL,
) -> Pairs:
    """Find photos of almost the same picture: near by hash, and alike once their thumbnails lie on each other.

    A loose distance between hashes alone would join photos of different streets, whose sky and road lie alike; the
    correlation of the thumbnails, and that of their detail (the thumbnail less its blur), tell them apart.

    Args:
        prints: Of N photos.
        max_distance: Most bits in which two hashes may differ, 0 to 64.
        min_correlation: Least Pearson correlation of two thumbnails at their best shift of up to two pixels.
        min_detail: The same for their detail.

    Returns:
        `(P, 2)` row numbers.

    Raises:
        ValueError: If a limit is out of range.
    """
    for name, value in (("min_correlation", min_correlation), ("min_detail", min_detail)):
        if not -1.0 <= value <= 1.0:
            raise ValueError(f"{name}={value} must lie between -1 and 1")
    pairs = hash_pairs(prints.hashes, prints.comparable, max_distance)
    kept = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), CORRELATED_A_PASS):
        chunk = pairs[start : start + CORRELATED_A_PASS]
        left, right = prints.thumbnails[chunk.T].astype(np.float32)
        alike = _correlations(left, right) >= min_correlation
        kept.append(chunk[alike & (_correlations(_detail(left), _detail(right)) >= min_detail)])
    return np.concatenate(kept)


def _detail(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    return pictures - gaussian_filter(pictures, BLUR, axes=(1, 2))


def _correlations(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Best Pearson correlation over shifts of each of P pairs of pictures `(P, H, W)`, `(P,)`."""
    height, width = left.shape[1:]
    margin = MAX_SHIFT
    center = _standardized(left[:, margin:-margin, margin:-margin])
    best = np.full(len(left), -1.0, dtype=np.float32)
    for row in range(2 * margin + 1):
        for column in range(2 * margin + 1):
            rows, columns = slice(row, height - 2 * margin + row), slice(column, width - 2 * margin + column)
            best = np.maximum(best, np.einsum("pn,pn->p", center, _standardized(right[:, rows, columns])))
    return best


def _standardized(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Flatten `(P, H, W)` to `(P, N)` of mean 0 and length 1; flat pictures become 0."""
    values = pixels.reshape(len(pixels), -1)
    values = values - values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def hash_pairs(hashes: ArrayLike, comparable: ArrayLike | None = None, max_distance: int = MAX_DISTANCE) -> Pairs:
    """Find the rows whose hashes differ in at most `max_distance` bits.

    Distinct hashes are compared some millions at a time: memory grows with the rows and the pairs found, time with the
    square of the rows.

    Args:
        hashes: `(N,)` unsigned 64-bit numbers.
        comparable: `(N,)` booleans; rows that are False pair with nothing. None = all are compared.
        max_distance: Most bits that may differ, 0 to 64.

    Returns:
        `(P, 2)` row numbers in order; rows of equal hashes are paired with the first of them only, other pairs are
        between firsts.

    Raises:
        ValueError: If the distance is out of range.
    """
    if not 0 <= max_distance <= HASH_BITS:
        raise ValueError(f"max_distance={max_distance} must lie between 0 and {HASH_BITS} bits")
    values = np.asarray(hashes, dtype=np.uint64)
    rows = np.flatnonzero(np.ones(len(values), bool) if comparable is None else np.asarray(comparable, bool))
    unique, first, of_row = np.unique(values[rows], return_index=True, return_inverse=True)
    equal = np.column_stack([rows[first[of_row]], rows])
    found = [equal[equal[:, 0] != equal[:, 1]]]
    chunk = max(1, COMPARED_A_PASS // max(1, len(unique)))
    for start in range(0, len(unique), chunk):
        distances = np.bitwise_count(unique[start : start + chunk, None] ^ unique[None, start:])
        left, right = np.nonzero(distances <= max_distance)
        ahead = left < right
        found.append(rows[first[np.column_stack([left[ahead], right[ahead]]) + start]])
    return np.unique(np.sort(np.concatenate(found).astype(np.int64).reshape(-1, 2), axis=1), axis=0)


def embedding_pairs(embeddings: ArrayLike, min_cosine: float = MIN_COSINE, chunk_rows: int = 1024) -> Pairs:
    """Find the rows whose global-view embeddings point the same way, after the mean of all rows is taken off.

    Frozen features share a large common part that makes any two photos look alike; without it a cosine tells them apart.
    Rows are compared in chunks: memory grows with N, time with N squared.

    Args:
        embeddings: `(N, D)`.
        min_cosine: Least cosine of a pair, above 0 and at most 1.
        chunk_rows: Rows compared with all others at a time.

    Returns:
        `(P, 2)` row numbers.

    Raises:
        ValueError: If an argument is out of range or a value is not finite; the row is named.
    """
    values = np.asarray(embeddings, dtype=np.float32)
    if not 0.0 < min_cosine <= 1.0:
        raise ValueError(f"min_cosine={min_cosine} must lie above 0 and be at most 1")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(f"embeddings[{bad[0]}] has a value that is not finite ({len(bad)} such rows)")
    values = values - values.mean(axis=0)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(values), chunk_rows):
        cosines = values[start : start + chunk_rows] @ values[start:].T
        pairs = np.argwhere(cosines >= min_cosine) + start
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)

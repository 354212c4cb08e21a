"""Vectors of scene descriptions by a frozen text encoder, computed once for each distinct text.

In come the texts of all rows and the encoder's id; out goes a `TextVectors`, which the data loader's workers look up.
What was computed is kept beside the token cache by the hash of each text, in one folder for each encoder's weights.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray

from natix_roadwork.embedded import embedded_backbone, is_embedded


TEXT_WIDTH = 384
TEXT_FOLDER = "natix_roadwork_texts"
FORMAT_VERSION = 1
ENCODER_FILES = ("*.json", "*.txt", "*.safetensors")
TEXTS_A_PASS = 64


@dataclass(frozen=True)
class TextVectors:
    """Vectors of distinct texts.

    Attributes:
        vectors: `(M, 384)` float32, one row for each distinct text.
        rows: Row of each text.
    """

    vectors: NDArray[np.float32]
    rows: dict[str, int]

    def lookup(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return `(N, 384)` vectors; the row of an empty text is NaN.

        Raises:
            ValueError: If a text was not among those the vectors were computed for.
        """
        found = np.full((len(texts), self.vectors.shape[1]), np.nan, np.float32)
        for number, text in enumerate(texts):
            if not text:
                continue
            if text not in self.rows:
                raise ValueError(
                    f"text {text[:80]!r} has no vector; compute_text_vectors must see the texts of all rows"
                )
            found[number] = self.vectors[self.rows[text]]
        return found


def compute_text_vectors(
    texts: Iterable[str], encoder_id: str, *, folder: str | Path | None = None, device: str = "cpu"
) -> TextVectors:
    """Encode each distinct text once, or read what an earlier run kept.

    Args:
        texts: Descriptions of all rows; empty ones are missing and not encoded.
        encoder_id: Hub id, folder, or `embedded:all-minilm-l6-v2`; loaded by `SentenceTransformer`.
        folder: Where vectors are kept; None = a folder of the datasets cache.
        device: Where the encoder runs.

    Raises:
        ValueError: If the encoder is not there, has no safetensors weights, or gives vectors of another width.
    """
    distinct = sorted({text for text in texts if text})
    if not distinct:
        return TextVectors(np.empty((0, TEXT_WIDTH), np.float32), {})
    source = encoder_folder(encoder_id)
    kept = Path(folder or Path(datasets.config.HF_DATASETS_CACHE) / TEXT_FOLDER) / encoder_key(source)
    known = _read(kept)
    hashes = {text: hashlib.sha256(text.encode()).digest() for text in distinct}
    absent = [text for text in distinct if hashes[text] not in known]
    if absent:
        vectors = _encode(absent, source, encoder_id, device)
        keys = [hashes[text] for text in absent]
        _write(kept, keys, vectors)
        known.update(zip(keys, vectors, strict=True))
    stacked = np.stack([known[hashes[text]] for text in distinct])
    return TextVectors(stacked, {text: row for row, text in enumerate(distinct)})


def encoder_folder(encoder_id: str) -> Path:
    """Find the folder that holds a text encoder in the layout of `SentenceTransformer`.

    Raises:
        ValueError: If there is none; both what was looked for and the way out are named.
        ImportError: If the wheel of an embedded id is not installed.
    """
    if is_embedded(encoder_id):
        return embedded_backbone(encoder_id)
    path = Path(encoder_id).expanduser()
    if path.is_dir():
        return path
    try:
        found = snapshot_download(
            encoder_id, allow_patterns=list(ENCODER_FILES), local_files_only=constants.HF_HUB_OFFLINE
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ValueError(
            f"text_encoder_id={encoder_id!r}: there is no such folder, and the Hub model could not be fetched "
            f"({type(error).__name__}); embedded:all-minilm-l6-v2 needs no Hub"
        ) from error
    return Path(found)


def encoder_key(folder: Path) -> str:
    """Hash everything that decides the vectors: the encoder's settings, vocabulary and weights, and our format.

    Raises:
        ValueError: If the folder has no safetensors weights.
    """
    files = sorted({path for pattern in ENCODER_FILES for path in folder.rglob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(f"text encoder {str(folder)!r} has no .safetensors weights")
    digest = hashlib.sha256(f"{FORMAT_VERSION}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _encode(texts: list[str], source: Path, encoder_id: str, device: str) -> NDArray[np.float32]:
    from sentence_transformers import SentenceTransformer  # seconds of imports that a filled cache saves

    encoder = SentenceTransformer(str(source), device=device, local_files_only=True).eval()
    vectors = encoder.encode(texts, batch_size=TEXTS_A_PASS, convert_to_numpy=True, show_progress_bar=False)
    if vectors.shape[1] != TEXT_WIDTH:
        raise ValueError(
            f"text_encoder_id={encoder_id!r} gives vectors of width {vectors.shape[1]}; the model reads {TEXT_WIDTH}, "
            "as of all-MiniLM-L6-v2"
        )
    return np.asarray(vectors, np.float32)


def _read(folder: Path) -> dict[bytes, NDArray[np.float32]]:
    """Vectors by the hash of their text, from every file kept so far."""
    known: dict[bytes, NDArray[np.float32]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            known.update(zip((key.tobytes() for key in stored["hashes"]), stored["vectors"], strict=True))
    return known


def _write(folder: Path, hashes: list[bytes], vectors: NDArray[np.float32]) -> None:
    """Keep vectors in a file of their own, whole or not at all; runs at the same time do not disturb each other."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(b"".join(hashes)).hexdigest()[:32]
    keys = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
        np.savez(file, hashes=keys, vectors=vectors)
    os.replace(file.name, folder / f"{name}.npz")

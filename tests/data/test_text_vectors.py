from pathlib import Path

import numpy as np
import pytest

from natix_roadwork.data import text_vectors
from natix_roadwork.data.text_vectors import compute_text_vectors, encoder_folder, encoder_key


EMBEDDED = "embedded:all-minilm-l6-v2"
CONES = "Construction barrels close the right lane."
SIGN = "A road work sign stands beside orange cones."
PASTA = "A plate of pasta with basil."


def test_real_encoder_knows_what_is_alike_and_runs_once_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    encode = text_vectors._encode
    monkeypatch.setattr(text_vectors, "_encode", lambda texts, *rest: asked.append(texts) or encode(texts, *rest))
    first = compute_text_vectors([CONES, PASTA, "", CONES], EMBEDDED, folder=tmp_path)
    again = compute_text_vectors([SIGN, CONES], EMBEDDED, folder=tmp_path)
    third = compute_text_vectors([SIGN, PASTA], EMBEDDED, folder=tmp_path)
    assert asked == [[PASTA, CONES], [SIGN]]
    np.testing.assert_array_equal(first.lookup([CONES]), again.lookup([CONES]))
    cones, sign, pasta = (vector[0] for vector in (first.lookup([CONES]), third.lookup([SIGN]), third.lookup([PASTA])))
    assert cones.shape == (384,) and np.linalg.norm(cones) == pytest.approx(1, abs=1e-5)
    assert cones @ sign > cones @ pasta + 0.2


def test_no_text_needs_no_encoder(tmp_path: Path) -> None:
    vectors = compute_text_vectors(["", ""], "nobody/nothing", folder=tmp_path)
    assert np.isnan(vectors.lookup([""])).all() and not list(tmp_path.iterdir())


def test_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"text_encoder_id='nobody/nothing'.*embedded:all-minilm-l6-v2"):
        encoder_folder("nobody/nothing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        compute_text_vectors(["a"], str(tmp_path))


def test_other_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        def __init__(self, *arguments: object, **options: object) -> None: ...

        def eval(self) -> "Encoder":
            return self

        def encode(self, texts: list[str], **options: object) -> np.ndarray:
            return np.zeros((len(texts), 768))

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", Encoder)
    with pytest.raises(ValueError, match="width 768"):
        compute_text_vectors(["a"], EMBEDDED, folder=tmp_path)


def test_key_follows_the_weights_and_settings(tmp_path: Path) -> None:
    keys = set()
    for name, content in (("model.safetensors", "a"), ("model.safetensors", "b"), ("config.json", "b"), ("x.md", "c")):
        (tmp_path / name).write_text(content)
        keys.add(encoder_key(tmp_path))
    assert len(keys) == 3

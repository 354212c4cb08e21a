import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from natix_roadwork.data.label_noise import (
    doubtful_rows,
    write_duplicate_page,
    write_label_noise_page,
    write_photo_page,
)
from tests.leaking_rows import leaking_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return leaking_rows(tmp_path_factory.mktemp("rows") / "d", num_rows=40)


def test_rows_are_ranked_by_the_probability_of_their_own_label() -> None:
    labels, probabilities = [1, 0, 1, 0, 1], np.array([0.9, 0.8, 0.1, 0.2, 0.4])
    assert doubtful_rows(labels, probabilities).tolist() == [2, 1, 4]
    assert doubtful_rows(labels, probabilities, limit=1).tolist() == [2]
    assert doubtful_rows([1, 0], np.array([0.5, 0.5])).tolist() == []


def test_flipped_labels_are_found_first() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    flipped = rng.permutation(200)[:10]
    probabilities = np.clip(truth * 0.8 + 0.1 + rng.normal(0, 0.05, 200), 0, 1)
    labels = truth.copy()
    labels[flipped] = 1 - labels[flipped]
    assert set(doubtful_rows(labels, probabilities, limit=10)) == set(flipped)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_row_without_a_probability_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=r"probabilities\[1\]"):
        doubtful_rows([0, 1], np.array([0.5, value]))
    with pytest.raises(ValueError, match="shape"):
        doubtful_rows([0, 1], np.array([0.5]))


def test_page_shows_photo_probability_and_row_id(rows: Dataset, tmp_path: Path) -> None:
    labels = np.asarray(rows["label"][:])
    probabilities = np.where(labels == 1, 0.9, 0.1)
    probabilities[[3, 5]] = 1 - probabilities[[3, 5]]
    shown = write_label_noise_page(tmp_path / "new" / "p.html", rows, probabilities, "a <test> model")
    page = (tmp_path / "new" / "p.html").read_text()
    assert shown.tolist() == [3, 5] and "a &lt;test&gt; model" in page
    assert re.findall(r"<b>(.*?)</b>", page) == [rows[3]["row_id"], rows[5]["row_id"]]
    assert len(re.findall(r'src="data:image/jpeg;base64,[A-Za-z0-9+/=]{100,}"', page)) == 2
    assert page.count("P(roadwork) 0.") == 2


def test_page_without_doubts_is_a_page(rows: Dataset, tmp_path: Path) -> None:
    labels = np.asarray(rows["label"][:])
    assert not len(write_label_noise_page(tmp_path / "p.html", rows, labels.astype(float), "x"))
    assert "<h1>Labels to look at</h1>" in (tmp_path / "p.html").read_text()


def test_duplicate_page_has_a_line_for_each_set(rows: Dataset, tmp_path: Path) -> None:
    write_duplicate_page(tmp_path / "p.html", rows, [[0, 1, 2], [4, 5]])
    page = (tmp_path / "p.html").read_text()
    assert page.count('class="line"') == 2 and page.count("<figure>") == 5


def test_text_of_a_page_is_escaped(tmp_path: Path) -> None:
    assert "<script>" not in write_photo_page(tmp_path / "p.html", "<script>", "<script>", []).read_text()

"""What a student sees: validator views, every draw a function of its address, pixels of `ViTImageProcessor`."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from natix_roadwork.data.draws import Draw
from natix_roadwork.subnet.challenge import validator_view
from natix_roadwork.training.distillation_student import vit_processor
from natix_roadwork.training.distillation_teacher import teacher_values
from natix_roadwork.training.distillation_views import StudentRows
from tests.photo_rows import encoded_photo, photo_rows
from tests.student_runs import teacher


MIX = {"A": 0.4, "B": 0.2, "C": 0.4}


@pytest.fixture(scope="module")
def rows() -> StudentRows:
    table = photo_rows(8)
    return StudentRows(table.add_column("split", ["train"] * 8), vit_processor(), MIX, seed=3)


def test_a_draw_depends_on_its_address_alone(rows: StudentRows) -> None:
    draws = [Draw(2, 1, 5), Draw(4, 0, 9), Draw(2, 1, 6)]
    together, alone = rows.read(draws)["pixel_values"], rows.read(draws[:1])["pixel_values"]
    assert together.shape == (3, 3, 224, 224) and torch.equal(together[:1], alone)
    assert not torch.equal(together[0], together[2])
    assert not torch.equal(together[0], rows.read([Draw(2, 2, 5)])["pixel_values"][0])


def test_a_bare_row_has_one_fixed_view_in_every_subset(rows: StudentRows) -> None:
    fixed = rows.read([6])["pixel_values"]
    assert torch.equal(fixed, rows.select(np.array([1, 6])).read([1])["pixel_values"])


def test_clean_photo_is_squashed_by_the_processor(rows: StudentRows) -> None:
    photo = Image.open(io.BytesIO(encoded_photo(5)))
    sent = validator_view(photo, "C", 0, np.random.default_rng(0))
    expected = vit_processor()(images=sent, return_tensors="pt")["pixel_values"]
    assert torch.equal(rows.in_regime("C").read([5])["pixel_values"], expected)


def test_regimes_come_in_their_shares(monkeypatch: pytest.MonkeyPatch, rows: StudentRows) -> None:
    seen = []

    def note(image: Image.Image, regime: str, level: int, rng: np.random.Generator) -> Image.Image:
        seen.append((regime, level))
        return image

    monkeypatch.setattr("natix_roadwork.training.distillation_views.validator_view", note)
    rows.read([Draw(row % 8, 0, row) for row in range(600)])
    shares = [sum(regime == name for regime, _ in seen) / 600 for name in "ABC"]
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.4], atol=0.06)
    levels = np.bincount([level for _, level in seen]) / 600
    np.testing.assert_allclose(levels, [0.25] * 4, atol=0.06)


def test_teacher_values_go_with_their_rows() -> None:
    made = teacher({"row": 8}, row_ids=np.array([f"row:{row}" for row in range(8)]), folds=np.zeros(8, dtype=np.int64))
    table = photo_rows(8).add_column("split", ["train"] * 8)
    values = teacher_values([made], table, table.select([]))
    rows = StudentRows(table, vit_processor(), MIX, seed=0, teacher=values).select(np.array([5, 2]))
    batch = rows.read([1, 0])
    np.testing.assert_array_equal(batch["teacher_logits"].numpy(), made.logits[[2, 5]])
    assert batch["teacher_mask"].all() and "teacher_logits" not in rows.without_teacher().read([0])


def test_a_damaged_photo_is_named(rows: StudentRows) -> None:
    broken = rows.select(np.array([0]))
    broken.rows = broken.rows.map(lambda row: {"image": {"bytes": b"nothing", "path": None}})
    with pytest.raises(ValueError, match=r"row 'row:0'.*--verify_images true"):
        broken.read([0])

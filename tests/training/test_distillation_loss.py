"""The terms of a student's loss: closed forms, gradients, rows without a teacher value."""

import pytest
import torch
from torch.nn import functional

from natix_roadwork.training.distillation_loss import (
    DistilledStudent,
    DistillWeights,
    condensation_loss,
    cosine_loss,
    logit_loss,
)
from tests.student_runs import TINY, WIDTH, tiny_student


PIXELS = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 0, 1])


def values(mask: list[int]) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "teacher_logits": torch.randn(4, 2, generator=draw),
        "teacher_embeddings": torch.randn(4, WIDTH, generator=draw),
        "teacher_mask": torch.tensor(mask, dtype=torch.bool),
    }


def test_logit_loss_has_its_closed_form() -> None:
    ours, theirs = torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    found = logit_loss(ours, theirs, 2.0)
    p = torch.sigmoid(torch.tensor(1.0))  # of margin 2 at T = 2
    expected = 4 * (0.5 * torch.log(0.5 / (1 - p)) + 0.5 * torch.log(0.5 / p))
    torch.testing.assert_close(found, torch.stack([expected, torch.tensor(0.0)]))


def test_logit_loss_does_not_change_with_a_common_shift() -> None:
    ours, theirs = torch.randn(3, 2), torch.randn(3, 2)
    torch.testing.assert_close(logit_loss(ours + 5, theirs, 3.0), logit_loss(ours, theirs - 2, 3.0))


def test_embedding_losses_are_0_for_one_direction() -> None:
    vectors = torch.randn(3, 5)
    assert cosine_loss(vectors, 7 * vectors).abs().max() < 1e-6
    assert condensation_loss(vectors, 7 * vectors).abs().max() < 1e-6
    torch.testing.assert_close(cosine_loss(vectors, -vectors), torch.full((3,), 2.0))
    one = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(condensation_loss(one, torch.tensor([[0.0, 3.0]])), torch.tensor([1.0]))


def test_rows_without_a_value_have_their_label_alone() -> None:
    model = DistilledStudent(tiny_student(), WIDTH, DistillWeights()).eval()
    plain = functional.cross_entropy(model.student(pixel_values=PIXELS).logits, LABELS)
    found = model(PIXELS, LABELS, **values([0, 0, 0, 0]))
    torch.testing.assert_close(found["loss"], plain)
    assert found["loss_parts"]["logits"] == 0 and found["loss_parts"]["embedding"] == 0


def test_loss_is_the_weighted_sum_of_its_parts() -> None:
    weights = DistillWeights(logits=0.7, embedding=0.3)
    model = DistilledStudent(tiny_student(), WIDTH, weights).eval()
    found = model(PIXELS, LABELS, **values([1, 1, 1, 1]))
    parts = found["loss_parts"]
    expected = 0.3 * parts["labels"] + 0.7 * parts["logits"] + 0.3 * parts["embedding"]
    torch.testing.assert_close(found["loss"].detach(), expected)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("form", ["cosine", "condensation"])
def test_every_architecture_has_a_feature_and_gets_a_gradient(name: str, form: str) -> None:
    model = DistilledStudent(tiny_student(name), WIDTH, DistillWeights(0.0, 1.0, form=form)).train()
    found = model(PIXELS, LABELS, **values([1, 1, 1, 1]))
    found["loss"].backward()
    assert found["loss_parts"]["embedding"] > 0
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.map.parameters())
    first = next(iter(model.student.parameters()))
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_without_teacher_it_is_cross_entropy() -> None:
    model = DistilledStudent(tiny_student()).eval()
    assert model.map is None
    expected = functional.cross_entropy(model.student(pixel_values=PIXELS).logits, LABELS)
    torch.testing.assert_close(model(PIXELS, LABELS)["loss"], expected)

"""A student with its losses: labels, the teacher's logits, the teacher's embedding.

In come batches of `distillation_views.py`; out go loss, its parts and logits, for `distillation_training.py`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from natix_roadwork.calibration import decision_layer


@dataclass(frozen=True)
class DistillWeights:
    """What the terms of the loss weigh.

    Attributes:
        logits: Lambda, the share of the logits' term; the labels' term has the rest.
        embedding: Mu, the weight of the embedding's term beside them.
        temperature: T of the logits' term.
        form: `cosine` projects the student's feature to the teacher's width; `condensation` condenses the teacher's
            embedding to the student's width, as VL2Lite does.
    """

    logits: float = 0.5
    embedding: float = 0.5
    temperature: float = 2.0
    form: Literal["cosine", "condensation"] = "cosine"


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute T^2 KL(teacher_T || student_T) of each row (Hinton et al., https://arxiv.org/abs/1503.02531).

    Args:
        student: `(B, C)` logits.
        teacher: `(B, C)` logits.
        temperature: T, by which both are divided; T^2 keeps the gradient's size.

    Returns:
        `(B,)`.
    """
    ours = F.log_softmax(student.float() / temperature, dim=-1)
    theirs = F.log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(dim=-1)


def cosine_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Compute 1 - cos of each row; `(B, D)` twice to `(B,)`."""
    return 1.0 - F.cosine_similarity(projected.float(), teacher.float(), dim=-1)


def condensation_loss(student: Tensor, condensed: Tensor) -> Tensor:
    """Compute the mean absolute difference of each row's unit vectors; `(B, F)` twice to `(B,)`."""
    return (F.normalize(student.float(), dim=-1) - F.normalize(condensed.float(), dim=-1)).abs().mean(dim=-1)


class DistilledStudent(nn.Module):
    """A stock classifier that also learns from a teacher; the saved student is `student` alone.

    L = mean over rows of (1 - m lambda) CE + m (lambda T^2 KL + mu E), where m says whether the row has a teacher value
    and E compares the input of the student's last layer with the teacher's embedding. E is the image side of VL2Lite
    (Jang et al., CVPR 2025, https://doi.org/10.1109/CVPR52734.2025.02799), with a cosine and a linear projection of the
    student, or with its own condensation map of the teacher; its text side needs a teacher that embeds texts too, and
    its ramp of the weights is left out.

    Args:
        student: A model of `AutoModelForImageClassification` with two labels.
        teacher_width: D of the teacher's embedding; 0 = no embedding term.
        weights: Of the terms; None = labels alone.
    """

    def __init__(
        self, student: PreTrainedModel, teacher_width: int = 0, weights: DistillWeights | None = None
    ) -> None:
        """Add the map between the two widths, drawn after the student so that the student's start does not depend on it."""
        super().__init__()
        self.student = student
        self.weights = weights
        self.map: nn.Module | None = None
        layer = decision_layer(student)
        if weights is not None and weights.embedding and teacher_width:
            self.map = _map_between(layer.in_features, teacher_width, weights.form)
        self._feature = torch.empty(0)
        layer.register_forward_pre_hook(self._keep_feature)

    def _keep_feature(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._feature = inputs[0]

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        teacher_embeddings: Tensor | None = None,
        teacher_mask: Tensor | None = None,
    ) -> dict[str, Tensor | dict[str, Tensor]]:
        """Classify pictures; with labels also compute the loss.

        Args:
            pixel_values: `(B, 3, S, S)`, normalised.
            labels: `(B,)` classes.
            teacher_logits: `(B, 2)`.
            teacher_embeddings: `(B, D)`.
            teacher_mask: `(B,)` rows that have teacher values.

        Returns:
            `logits` `(B, 2)`, and with labels `loss` and `loss_parts`, the mean of each term over its rows.
        """
        logits = self.student(pixel_values=pixel_values).logits
        if labels is None:
            return {"logits": logits}
        by_label = F.cross_entropy(logits.float(), labels, reduction="none")
        if self.weights is None or teacher_logits is None or teacher_mask is None:
            return {"loss": by_label.mean(), "logits": logits, "loss_parts": {"labels": by_label.detach().mean()}}
        mask, share = teacher_mask.float(), self.weights.logits
        by_logits = logit_loss(logits, teacher_logits, self.weights.temperature)
        rows = (1.0 - share * mask) * by_label + share * mask * by_logits
        parts = {"labels": by_label.mean(), "logits": _mean_of(by_logits, mask)}
        if self.map is not None and teacher_embeddings is not None:
            distance = self._distance(teacher_embeddings)
            rows = rows + self.weights.embedding * mask * distance
            parts["embedding"] = _mean_of(distance, mask)
        kept = {name: value.detach() for name, value in parts.items()}
        return {"loss": rows.mean(), "logits": logits, "loss_parts": kept}

    def _distance(self, teacher: Tensor) -> Tensor:
        """Compare the kept feature `(B, F)` with the teacher's embedding `(B, D)`; `(B,)`."""
        feature = self._feature.flatten(1)
        if self.weights.form == "cosine":
            return cosine_loss(self.map(feature), teacher)
        return condensation_loss(feature, self.map(teacher.to(feature.dtype)))


def _map_between(student_width: int, teacher_width: int, form: str) -> nn.Module:
    if form == "cosine":
        return nn.Linear(student_width, teacher_width)
    return nn.Sequential(nn.Linear(teacher_width, teacher_width), nn.ReLU(), nn.Linear(teacher_width, student_width))


def _mean_of(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1.0)

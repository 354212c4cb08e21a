"""One student: trained, its threshold moved to 0.5, and asked about the rows that are scored.

In come rows of `distillation_views.py`; out goes a `StudentRun`. `distillation.py` compares and records several.
"""

import dataclasses
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, ProgressCallback, Trainer, set_seed

from natix_roadwork.calibration import fold_into_classifier, log_loss
from natix_roadwork.data.draws import whole_batch
from natix_roadwork.data.predictions import NOT_OUT_OF_FOLD, ORIGINAL, Predictions
from natix_roadwork.threshold import cut_at_half, fit_mcc_cut
from natix_roadwork.training.callbacks import PatienceCallback, ShortProgressCallback
from natix_roadwork.training.distillation_arguments import DistillArguments, DistillTrainingArguments
from natix_roadwork.training.distillation_loss import DistilledStudent
from natix_roadwork.training.distillation_student import build_student
from natix_roadwork.training.distillation_views import StudentRows
from natix_roadwork.training.metric import compute_metrics
from natix_roadwork.training.samplers import DrawSampler, train_sampler


@dataclass(frozen=True)
class StudentRun:
    """A trained student.

    Attributes:
        model: The student, its threshold at 0.5.
        answers: Its predictions of each scored set, by name.
        selection_loss: Log loss that its best epoch leaves on the selection rows.
        facts: JSON-ready: seed, steps, best step, threshold, log.
    """

    model: PreTrainedModel
    answers: dict[str, Predictions]
    selection_loss: float
    facts: dict[str, Any]


class DistillTrainer(Trainer):
    """`Trainer` over addressed draws that logs each part of a student's loss."""

    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the trainer with its callbacks."""
        super().__init__(*args, **kwargs)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(ShortProgressCallback)
        if self.args.early_stopping_patience and self.args.eval_strategy != "no":
            self.add_callback(PatienceCallback(self.args.early_stopping_patience))
        self._parts: dict[str, list[Tensor]] = defaultdict(list)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        step = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        return DrawSampler(train_sampler(len(rows), None, self.args.seed, step))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss and keep its parts for the log."""
        outputs = model(**inputs)
        parts = outputs.pop("loss_parts")
        if model.training:
            for name, value in parts.items():
                self._parts[name].append(value)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each part since the last line, of the main process's rows."""
        if "loss" in logs:
            logs |= {f"loss_{name}": torch.stack(values).mean().item() for name, values in self._parts.items()}
            self._parts.clear()
        super().log(logs, *args, **kwargs)


def train_student(
    settings: DistillArguments,
    args: DistillTrainingArguments,
    rows: dict[str, StudentRows],
    scored: dict[str, StudentRows],
    seed: int,
    work: Path,
) -> StudentRun:
    """Train one student, move its best threshold to 0.5, and predict.

    Args:
        settings: Student and loss.
        args: How to train.
        rows: `train`, with the teacher's values or without them, and `selection`.
        scored: Rows to predict, by name.
        seed: Decides the student's start and the order of its rows.
        work: Folder of checkpoints; removed at the end.

    Raises:
        ValueError: If the student cannot be built or the training leaves no finite answers.
    """
    set_seed(seed)
    student, teacher = build_student(settings), rows["train"].teacher
    model = DistilledStudent(
        student, 0 if teacher is None else teacher.width, None if teacher is None else settings.weights
    )
    set_seed(seed)  # the map above must not move the dropout of the training
    trainer = DistillTrainer(
        model=model,
        args=dataclasses.replace(args, output_dir=str(work), seed=seed),
        train_dataset=rows["train"],
        eval_dataset=rows["selection"],
        data_collator=whole_batch,
        compute_metrics=compute_metrics,
    )
    trainer.train()
    state = trainer.state
    calibration = calibrate(trainer, student, rows["selection"], settings.target_prior, seed)
    answers = {name: answers_of(trainer, part, f"seed{seed}") for name, part in scored.items()}
    trainer.accelerator.wait_for_everyone()
    if args.should_save:
        shutil.rmtree(work, ignore_errors=True)
    facts = {
        "seed": seed,
        "with_teacher": teacher is not None,
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "best_metric": state.best_metric,
        "calibration": calibration,
        "log": state.log_history,
    }
    return StudentRun(student.cpu().eval(), answers, calibration["log_loss"], facts)


def calibrate(
    trainer: DistillTrainer, student: PreTrainedModel, selection: StudentRows, target_prior: float, seed: int
) -> dict[str, Any]:
    """Fold the threshold that is best at the target prior, and a temperature, into the student's last layer.

    They are fitted on the selection rows, each once in every regime of the views.

    Returns:
        The cut, the map and the log loss after it, JSON-ready.
    """
    found = [answers_of(trainer, selection.in_regime(regime), "selection") for regime in selection.regimes]
    margins = np.concatenate([part.margins for part in found])
    labels, groups = (np.concatenate([getattr(part, name) for part in found]) for name in ("labels", "groups"))
    cut = fit_mcc_cut(margins, labels, groups, target_prior, seed=seed)
    mapping = cut_at_half(margins, labels, cut, target_prior)
    fold_into_classifier(student, mapping.scale, mapping.offset)
    weights = np.where(labels == 1, target_prior / labels.mean(), (1 - target_prior) / (1 - labels.mean()))
    return {
        "rows": len(labels),
        "cut": dataclasses.asdict(cut),
        "map": dataclasses.asdict(mapping),
        "target_prior": target_prior,
        "log_loss": log_loss(mapping(margins), labels, weights),
    }


def answers_of(trainer: DistillTrainer, rows: StudentRows, member: str) -> Predictions:
    """Ask a student about the fixed views of rows.

    Raises:
        ValueError: If a logit is not finite; the row is named.
    """
    plain = rows.without_teacher()
    logits = np.asarray(trainer.predict(plain).predictions, dtype=np.float32)
    table = plain.rows
    return Predictions(
        member=member,
        row_ids=np.asarray(table["row_id"][:], dtype=np.str_),
        labels=plain.labels,
        groups=plain.groups,
        splits=np.asarray(table["split"][:], dtype=np.str_),
        logits=logits,
        embeddings=np.zeros((len(plain), 0), dtype=np.float32),
        folds=np.full(len(plain), NOT_OUT_OF_FOLD, dtype=np.int64),
        transforms=np.full(len(plain), ORIGINAL, dtype=np.int64),
    )

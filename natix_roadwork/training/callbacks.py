"""What happens around the steps of a training run: moving average, patience, and watching the view pruning.

`trainer.py` owns one of each as its settings ask.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import (
    EarlyStoppingCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import logging


logger = logging.get_logger(__name__)

EMA_FILE = "ema.safetensors"


class EMACallback(TrainerCallback):
    """Exponential moving average of the trainable weights.

    After update t = 1, 2, ... the average moves by 1 - beta_t towards the weights, with
    beta_t = min(decay, (1 + t) / (10 + t)): short runs forget their random start.

    Args:
        decay: Largest beta_t, in (0, 1).

    Raises:
        ValueError: If `decay` is outside (0, 1).
    """

    def __init__(self, decay: float) -> None:
        """Keep the decay; the average starts with the training."""
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay={decay!r} must lie between 0 and 1")
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self._applied = False

    def beta(self, update: int) -> float:
        """Return beta_t of update t = 1, 2, ..."""
        return min(self.decay, (1 + update) / (10 + update))

    def start(self, model: nn.Module) -> None:
        """Let the average begin at the model's weights."""
        self.average = {name: weight.detach().clone() for name, weight in trainable(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, update: int) -> None:
        """Move the average towards the weights after update t = 1, 2, ..."""
        weights = trainable(model)
        current = [weights[name] for name in self.average]
        get_ema_multi_avg_fn(self.beta(update))(list(self.average.values()), current, None)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the average into the model for the time of a block; the raw weights return bit for bit."""
        if self._applied or not self.average:
            yield
            return
        weights = trainable(model)
        raw = {name: weights[name].detach().clone() for name in self.average}
        self._applied = True
        try:
            copy_into(model, self.average)
            yield
        finally:
            copy_into(model, raw)
            self._applied = False

    def save(self, folder: str | Path) -> None:
        """Write the average as safetensors into a checkpoint folder."""
        save_file({name: tensor.contiguous() for name, tensor in self.average.items()}, Path(folder) / EMA_FILE)

    def load(self, folder: str | Path, model: nn.Module) -> None:
        """Read the average of a checkpoint.

        Raises:
            ValueError: If the checkpoint has none, or one of another model.
        """
        file = Path(folder) / EMA_FILE
        if not file.is_file():
            raise ValueError(f"{folder}: no {EMA_FILE}; it was trained without ema_decay, resume it with ema_decay 0")
        loaded, weights = load_file(file), trainable(model)
        if loaded.keys() != weights.keys():
            raise ValueError(f"{file}: holds other weights than the model: {sorted(loaded.keys() ^ weights.keys())}")
        self.average = {name: loaded[name].to(weight.device) for name, weight in weights.items()}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **kwargs: object,
    ) -> None:
        """Start the average unless a checkpoint brought one."""
        if not self.average:
            self.start(model)

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **kwargs: object,
    ) -> None:
        """Follow the weights."""
        self.update(model, state.global_step + 1)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that training changes, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def copy_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights by name into the model in place."""
    own = trainable(model)
    for name, weight in weights.items():
        own[name].copy_(weight)


class PatienceCallback(EarlyStoppingCallback):
    """Early stopping whose patience is counted after the warm-up only."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: object,
    ) -> None:
        """Count an evaluation that brought no better metric."""
        if state.global_step > args.get_warmup_steps(state.max_steps):
            super().on_evaluate(args, state, control, metrics, **kwargs)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Let a run that was killed after its last evaluation stay stopped."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class ShortProgressCallback(ProgressCallback):
    """The progress bar, without a figure for each view in its lines; trackers still get them."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Print the figures of a step or an evaluation."""
        shown = {name: value for name, value in (logs or {}).items() if "_view_kept_" not in name}
        super().on_log(args, state, control, logs=shown, **kwargs)


class ViewSelection:
    """Which views the pruning keeps over one evaluation.

    Args:
        num_views: V.
    """

    def __init__(self, num_views: int) -> None:
        """Start with no photo seen."""
        self.num_views = num_views
        self.kept: Tensor | None = None  # (V + 1,): photos that kept each view, then photos seen

    def update(self, view_indices: Tensor) -> None:
        """Count the kept views `(B, K)` of a batch, without waiting for the device."""
        seen = view_indices.new_full((1,), len(view_indices))
        counts = torch.cat([torch.bincount(view_indices.flatten(), minlength=self.num_views), seen])
        self.kept = counts if self.kept is None else self.kept + counts

    def summary(self, counts: Tensor) -> dict[str, float]:
        """Turn counts `(V + 1,)`, summed over processes, into figures for the log.

        Returns:
            `view_kept_<i>`: share of photos that kept view i; `view_entropy`: entropy of the kept views over ln V, 1 =
            all alike; `view_collapse`: 1 if every photo kept the same views.
        """
        *kept, photos = counts.tolist()
        share = torch.tensor(kept, dtype=torch.float64) / max(sum(kept), 1)
        entropy = torch.special.entr(share).sum().item() / torch.tensor(float(self.num_views)).log().item()
        figures = {f"view_kept_{index:02d}": count / photos for index, count in enumerate(kept)}
        collapsed = photos > 1 and all(count in (0, photos) for count in kept)
        return figures | {"view_entropy": entropy, "view_collapse": float(collapsed)}


def warn_of_collapse(figures: dict[str, float]) -> None:
    """Warn when the pruning keeps the same views of every photo, naming them."""
    if figures["view_collapse"]:
        kept = [int(name[-2:]) for name, share in figures.items() if name.startswith("view_kept_") and share]
        logger.warning(
            f"View pruning has collapsed: every photo of the evaluation kept the views {kept}. "
            "Raise keep_views, or keep these views always and save the scorer."
        )

"""The trainer of the roadwork models.

It takes a model whose `forward` returns loss parts with their counts, and makes a run on n processes the same as on
one, resumable bit for bit, with checkpoints that leave the frozen backbone out.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import FullyShardedDataParallelPlugin
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecision
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, ProgressCallback, Trainer
from transformers.trainer_utils import EvalLoopOutput, TrainOutput, rotate_checkpoints
from transformers.utils import logging

from natix_roadwork.data.draws import Draw, DrawRows
from natix_roadwork.data.mixing import mix_batch
from natix_roadwork.gps.sampler import GPSWeightedSampler
from natix_roadwork.model.backbone import is_frozen
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.callbacks import (
    EMA_FILE,
    EMACallback,
    PatienceCallback,
    ShortProgressCallback,
    ViewSelection,
    copy_into,
    warn_of_collapse,
)
from natix_roadwork.training.checkpoints import last_complete_checkpoint, mark_complete, remove_incomplete
from natix_roadwork.training.samplers import DrawSampler, EpochSampler, train_sampler


logger = logging.get_logger(__name__)


def keep_input_precision(plugin: FullyShardedDataParallelPlugin) -> None:
    """Keep FSDP from casting the model's inputs to the precision of its weights.

    Between 64 and 128, the numbers of bfloat16 are half a degree apart. The layers still compute in it, by autocast.
    """
    if isinstance(plugin.mixed_precision_policy, MixedPrecision):
        plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, cast_root_forward_inputs=False)


class RoadworkTrainer(Trainer):
    """`Trainer` whose loss, checkpoints and evaluation fit the roadwork models.

    Takes the arguments of `Trainer`; `args` are `RoadworkTrainingArguments`.

    Args:
        sampling_weights: `(N,)` weights by which train rows are drawn, with replacement; None = each once an epoch.
    """

    loss_is_scaled_for_ga = False
    args: RoadworkTrainingArguments

    def __init__(self, *args: Any, sampling_weights: NDArray[np.float64] | None = None, **kwargs: Any) -> None:
        """Build the trainer with the callbacks that its arguments ask for.

        Raises:
            ValueError: If one process drives several GPUs, or the average is asked for with sharded weights.
        """
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"n_gpu={self.args.n_gpu}: one process drives several GPUs; start one process a GPU with "
                "accelerate launch --config_file recipes/accelerate/ddp.yaml"
            )
        if self.args.ema_decay and self.is_fsdp_enabled:
            raise ValueError(f"ema_decay={self.args.ema_decay} needs whole weights; with FSDP set ema_decay to 0")
        if self.is_fsdp_enabled:
            keep_input_precision(self.accelerator.state.fsdp_plugin)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(ShortProgressCallback)
        self.ema = EMACallback(self.args.ema_decay) if self.args.ema_decay else None
        if self.ema is not None:
            self.add_callback(self.ema)
        if self.args.early_stopping_patience and self.args.eval_strategy != "no":
            self.add_callback(PatienceCallback(self.args.early_stopping_patience))
        config = self.model.config
        if self.args.view_chunk is not None:
            config.view_chunk = self.args.view_chunk
        self._terms = sorted(config.loss_weights)
        self._weights = torch.tensor([config.loss_weights[name] for name in self._terms], device=self.args.device)
        self._prunes = config.keep_views < config.num_views
        self._train_parts = self._no_parts()
        self._eval_parts = self._no_parts()
        self._selection = ViewSelection(config.num_views)
        self._sampling_weights = sampling_weights
        self._sampler: DrawSampler | EpochSampler | GPSWeightedSampler | None = None
        self._in_checkpoint = False
        # Whether the final model holds the backbone; None: unless it can be fetched by its Hub id.
        self.include_backbone: bool | None = None

    # Loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Weigh the loss parts over the rows of all processes, and collect them for the log.

        With count n_rk of part k on process r and C_k = sum_r n_rk, process r returns R sum_k w_k part_rk n_rk / C_k
        over the sum of w_k of the terms with C_k > 0: the mean over the R processes is the loss of the global batch.

        C_k counts the rows of one forward pass over all processes, not of a whole accumulated step, whose later passes
        are not known yet: with accumulation the passes weigh alike, however many rows a term has in each.
        """
        outputs = model(**(self._mixed(inputs) if model.training else inputs))
        parts = torch.stack([outputs.loss_parts[name].float() for name in self._terms])
        counts = torch.stack([outputs.loss_counts[name].float() for name in self._terms]).detach()
        if not model.training:
            self._eval_parts += torch.stack([parts.detach() * counts, counts])
            if self._prunes:
                self._selection.update(outputs.view_indices)
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        total = self.accelerator.reduce(counts.clone(), reduction="sum")
        active = (total > 0).float()
        shares = self.accelerator.num_processes * counts / total.clamp_min(1e-12)
        self._train_parts += torch.stack([parts.detach() * shares, active])
        loss = (self._weights * parts * shares).sum() / (self._weights * active).sum().clamp_min(1e-12)
        return (loss, outputs) if return_outputs else loss

    def _mixed(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mix rows as the arguments say; the passes of one accumulated step draw alike, processes do not."""
        alphas = self.args.mixup_alpha, self.args.cutmix_alpha
        if not any(alphas):
            return inputs
        address = (self.state.global_step, self.args.process_index)
        draw = np.random.default_rng(np.random.SeedSequence(self.args.seed, spawn_key=address))
        return mix_batch(inputs, draw, *alphas, wide_views=self._whole_model().config.uncut_views)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each loss part since the last line to a line that has the loss."""
        if "loss" in logs:
            sums, steps = self.accelerator.reduce(self._train_parts, reduction="mean").tolist()
            logs |= self._means("loss", sums, steps)
            self._train_parts = self._no_parts()
        super().log(logs, start_time)

    def _no_parts(self) -> Tensor:
        return torch.zeros(2, len(self._terms), device=self.args.device)

    def _means(self, prefix: str, sums: list[float], counts: list[float]) -> dict[str, float]:
        pairs = zip(self._terms, sums, counts, strict=True)
        return {f"{prefix}_{name}": total / count for name, total, count in pairs if count}

    # Data and optimizer

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | Sampler[Draw]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        rows = len(dataset)
        batch = self._train_batch_size * self.args.world_size
        step = batch * self.args.gradient_accumulation_steps
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = train_sampler(rows, self._sampling_weights, seed, step if rows >= step else batch)
        self._sampler = DrawSampler(sampler) if isinstance(dataset, DrawRows) else sampler
        return self._sampler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Name the weights that decay: the matrices of all layers, gates too, not norms, biases and embeddings."""
        kept = {name for name, weight in model.named_parameters() if weight.ndim < 2}
        kept |= {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
        return [name for name in super().get_decay_parameter_names(model) if name not in kept]

    # Steps and checkpoints

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train, and leave the model with the weights to keep: the best, or the average, as the arguments say.

        Args:
            resume_from_checkpoint: A checkpoint folder; True = the last complete one in `output_dir`, after whatever
                a killed process left has been named in the log and removed.
            kwargs: As for `Trainer.train`.

        Raises:
            ValueError: If there is no complete checkpoint to resume from.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self._last_checkpoint()
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        if self.ema is not None:
            if self.state.best_model_checkpoint is None or not self.args.load_best_model_at_end:
                copy_into(self._whole_model(), self.ema.average)
            self.remove_callback(self.ema)
            self.ema = None
        return output

    def _last_checkpoint(self) -> str:
        if self.args.should_save:
            for folder in remove_incomplete(self.args.output_dir):
                logger.warning(f"Removed {folder}, left incomplete by a process that was killed.")
        self.accelerator.wait_for_everyone()
        folder = last_complete_checkpoint(self.args.output_dir)
        if folder is None:
            raise ValueError(f"output_dir={self.args.output_dir!r} holds no complete checkpoint to resume from")
        return str(folder)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A checkpoint of the last step is resumed into an epoch that must not be continued.
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        if self._sampler is not None:  # Accelerate does not reach it through the shards of a resumed epoch
            self._sampler.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401 - as in Trainer
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._in_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
            self._in_checkpoint = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(folder)
            rotate_checkpoints(
                output_dir=str(folder.parent),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        options: dict[str, Any] = {"state_dict": state_dict, "include_backbone": self.include_backbone}
        if self._in_checkpoint:
            # The names in memory, not those of the Hub: the live model reads them back.
            trained = not is_frozen(self._whole_model().backbone)
            options |= {"include_backbone": trained, "save_original_format": False}
        self._whole_model().save_pretrained(folder, **options)
        if self.ema is not None:
            self.ema.save(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.ema is not None:
            self.ema.load(resume_from_checkpoint, self._whole_model())

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.ema is not None:
            self.ema.load(self.state.best_model_checkpoint, self._whole_model())
            copy_into(self._whole_model(), self.ema.average)
            logger.info(f"The best model's weights are its average, {EMA_FILE}.")

    def _issue_warnings_after_load(self, load_result: Any) -> None:  # noqa: ANN401 - private in torch
        missing = [name for name in load_result.missing_keys if not name.startswith("backbone.")]
        if missing or load_result.unexpected_keys:
            raise ValueError(
                f"The checkpoint is of another model: missing {missing}, unexpected {load_result.unexpected_keys}"
            )

    def _whole_model(self) -> PreTrainedModel:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    # Evaluation

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Evaluate the averaged weights, and add loss parts and kept views to the metrics."""
        self._eval_parts, self._selection = self._no_parts(), ViewSelection(self.model.config.num_views)
        if self.ema is not None:
            with self.ema.applied(self._whole_model()):
                output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        else:
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        figures: dict[str, float] = {}
        sums, counts = self.accelerator.reduce(self._eval_parts, reduction="sum").tolist()
        figures |= self._means("loss", sums, counts)
        if f"{metric_key_prefix}_loss" in output.metrics:
            # Of all rows at once: the mean over batches would depend on which rows share one, where a term lacks rows.
            means = self._means("loss", sums, counts)
            weights = {
                name: weight for name, weight in self.model.config.loss_weights.items() if f"loss_{name}" in means
            }
            figures["loss"] = sum(w * means[f"loss_{name}"] for name, w in weights.items()) / sum(weights.values())
        if self._selection.kept is not None:
            views = self._selection.summary(self.accelerator.reduce(self._selection.kept, reduction="sum"))
            warn_of_collapse(views)
            figures |= views
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in figures.items()})
        return output

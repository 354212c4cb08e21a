"""The trainer of one adapter: checkpoints that hold what is trained and nothing else, and what AdaLoRA needs.

In comes a `PeftModel` around a frozen base; `finetuning.py` runs one trainer a fold.
"""

from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from natix_roadwork.training.callbacks import copy_into, trainable
from natix_roadwork.training.trainer import RoadworkTrainer


STATE_FILE = "trained.safetensors"


class RankCallback(TrainerCallback):
    """Lets AdaLoRA move its ranks between layers after each step, which the Trainer does not do by itself."""

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PeftModel,
        **kwargs: object,
    ) -> None:
        """Look at weights and gradients, which are still there, and allocate the budget anew."""
        model.base_model.update_and_allocate(state.global_step)


class AdapterTrainer(RoadworkTrainer):
    """`RoadworkTrainer` of a `PeftModel` with one adapter.

    A checkpoint holds the trained weights under their names in memory, whatever the kind of adapter, and is read back
    into the live model bit for bit. The folder to publish is `adapter_files.write_adapter`'s.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the trainer.

        Raises:
            ValueError: If the weights are sharded.
        """
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            raise ValueError(
                "fold adapters are too small to shard; start the processes with recipes/accelerate/ddp.yaml"
            )
        config = next(iter(self.model.peft_config.values()))
        self._adalora = config if isinstance(config, AdaLoraConfig) else None
        if self._adalora is not None:
            self.add_callback(RankCallback())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Add to the loss, in training with AdaLoRA, what keeps its singular vectors orthogonal."""
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self._adalora is None or not model.training:
            return found
        penalty = self._adalora.orth_reg_weight * orthogonality(self._whole_model())
        return (found[0] + penalty, found[1]) if return_outputs else found + penalty

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: weight.detach().contiguous() for name, weight in trainable(self._whole_model()).items()}
        save_file(weights, folder / STATE_FILE)
        if self.ema is not None:
            self.ema.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._read(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._read(self.state.best_model_checkpoint)
        if self.ema is not None:
            copy_into(self._whole_model(), self.ema.average)

    def _read(self, folder: str) -> None:
        own = trainable(self._whole_model())
        found = load_file(Path(folder) / STATE_FILE)
        if own.keys() != found.keys():
            raise ValueError(
                f"{folder} is a checkpoint of another adapter; it differs in {sorted(own.keys() ^ found)[:3]}"
            )
        copy_into(self._whole_model(), found)
        if self.ema is not None:
            self.ema.load(folder, self._whole_model())


def orthogonality(model: nn.Module) -> Tensor:
    """Mean over AdaLoRA's matrices P and Q of the Frobenius norm of PᵀP - I and QQᵀ - I.

    Zhang et al., AdaLoRA, https://arxiv.org/abs/2303.10512, equation 4. peft adds it in a forward pass that a model
    without a task type does not take.
    """
    norms = []
    for name, weight in trainable(model).items():
        if ".lora_A." in name or ".lora_B." in name:
            product = weight @ weight.T if ".lora_A." in name else weight.T @ weight
            norms.append(torch.linalg.norm(product - torch.eye(len(product), device=product.device)))
    return torch.stack(norms).mean()

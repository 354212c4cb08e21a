"""What a training step needs in memory, found before the run starts; a run that cannot fit is refused.

One step is run on shapes alone: torch's fake tensors allocate and compute nothing, and every tensor that would be alive
is counted. The estimate leaves out what kernels allocate inside themselves and what an allocator cannot reuse.
"""

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import PreTrainedModel

from natix_roadwork.data.token_passes import grid_shape
from natix_roadwork.model.backbone import is_frozen
from natix_roadwork.training.arguments import RoadworkTrainingArguments


MIB = 2**20
BATCHES_HELD = 2  # the one being trained on and the one the loader has ready
# What cgroups call their limit and what is taken of it: version 2, then version 1.
CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process needs for training.

    Attributes:
        batch_size: Photos a forward pass.
        weights: All weights and buffers; they are loaded already.
        optimizer: AdamW's two moments of each trained weight, the moving average, the gradients' copy that processes
            exchange.
        batches: The inputs of the batches that are held.
        step: The most that is alive between forward and backward pass: activations and gradients.
    """

    batch_size: int
    weights: int
    optimizer: int
    batches: int
    step: int

    @property
    def further(self) -> int:
        """Bytes beyond the loaded weights."""
        return self.optimizer + self.batches + self.step


class _LiveBytes(TorchDispatchMode):
    """Counts the storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def count(self, tensor: Tensor) -> None:
        """Counts a tensor's storage until it is freed; views of a counted one cost nothing."""
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._known:
            return
        self._known.add(address)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, address, size)

    def _free(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size

    def __torch_dispatch__(
        self, operation: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:  # noqa: ANN401 - what the operation returns
        output = operation(*args, **(kwargs or {}))
        for value in tree_iter(output):
            if isinstance(value, Tensor):
                self.count(value)
        return output


def estimate_memory(
    model: PreTrainedModel, row: Mapping[str, Tensor], batch_size: int, args: RoadworkTrainingArguments
) -> MemoryEstimate:
    """Estimate what training on batches of rows like this one needs.

    Args:
        model: As it will be trained: what is frozen, and `view_chunk`, count.
        row: Inputs of one row, without the axis of the batch.
        batch_size: Photos a process and forward pass.
        args: Precision, moving average, processes, checkpointing.
    """
    trained = sum(_bytes(weight) for weight in model.parameters() if weight.requires_grad)
    copies = 2 + bool(args.ema_decay) + (args.world_size > 1)
    return MemoryEstimate(
        batch_size=batch_size,
        weights=sum(map(_bytes, model.parameters())) + sum(map(_bytes, model.buffers())),
        optimizer=copies * trained,
        batches=BATCHES_HELD * batch_size * sum(map(_bytes, row.values())),
        step=max(trained, _step_bytes(model, row, batch_size, args)),
    )


def _step_bytes(
    model: PreTrainedModel, row: Mapping[str, Tensor], batch_size: int, args: RoadworkTrainingArguments
) -> int:
    """Most bytes alive in forward and backward pass; of a chunked backbone one chunk is run, not all."""
    config, rows = model.config, {name: (batch_size, value) for name, value in row.items()}
    if "pixel_values" not in row:
        return _peak_bytes(model, model, rows, args, backward=True)
    whole = batch_size * row["pixel_values"].shape[0]
    trains, again = not is_frozen(model.backbone), args.activation_checkpointing
    if trains and not again:  # every chunk's activations stay until the backward pass
        return _peak_bytes(model, model, rows, args, backward=True)
    chunk = min(whole, config.view_chunk or (config.num_views if trains else whole))
    pixels = {"pixel_values": (chunk, row["pixel_values"][:1])}
    backbone = _peak_bytes(model, _Tokens(model), pixels, args, backward=trains)
    views = row["pixel_values"].shape[0]
    num_tokens = config.evidence_grid**2 + 1 + (config.feature_pooling == "cls_mean")
    tokens = torch.empty(views, num_tokens, config.feature_dim, device="meta", requires_grad=trains)
    rest = {name: entry for name, entry in rows.items() if name != "pixel_values"}
    if config.has_mask_head:
        grid = torch.empty(grid_shape(model), device="meta", requires_grad=trains)
        rest["global_grid"] = (batch_size, grid)
    head = _peak_bytes(model, model, {**rest, "view_features": (batch_size, tokens)}, args, backward=True)
    kept = batch_size * (_bytes(tokens) + (_bytes(grid) if config.has_mask_head else 0))
    # The head's peak counts its inputs only where they have a gradient; chunks run again on top of what the head left.
    return kept + (head + backbone if trains else max(head, backbone))


class _Tokens(nn.Module):
    """The model's backbone as a module whose output is its tokens."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.extract_tokens(pixel_values, view_chunk=len(pixel_values))


def _peak_bytes(
    model: PreTrainedModel,
    module: nn.Module,
    inputs: Mapping[str, tuple[int, Tensor]],
    args: RoadworkTrainingArguments,
    backward: bool,
) -> int:
    """Most bytes alive beyond weights and inputs while a module runs on inputs of the given sizes."""
    # The first backward pass of a process starts a thread for each device known to it, and fake tensors make one known.
    # With such threads a process forked from this one could not train, so the first pass is a real one.
    torch.zeros((), requires_grad=True).backward()
    # As if traced by the compiler: transformers then keeps no fake tensor in its caches, where a real step would find it.
    traced = patch.object(torch.compiler, "_is_compiling_flag", True)
    with traced, _in_training(model), FakeTensorMode(allow_non_fake_inputs=True) as fake, _LiveBytes() as memory:
        state = {
            name: fake.from_tensor(value) for name, value in [*module.named_parameters(), *module.named_buffers()]
        }
        batch = {
            name: torch.empty((size, *value.shape), dtype=value.dtype, device=model.device).requires_grad_(
                value.requires_grad
            )
            for name, (size, value) in inputs.items()
        }
        for value in [*state.values(), *batch.values()]:
            memory.count(value)
        before = memory.live
        memory.peak = before
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bool(args.bf16)):
            output = functional_call(module, state, (), batch)
        if backward:
            (output if isinstance(output, Tensor) else output["loss"]).sum().backward()
        return memory.peak - before


@contextmanager
def _in_training(model: PreTrainedModel) -> Iterator[None]:
    """Training mode without checkpointing, for the time of a block."""
    training, again = model.training, model.gradient_checkpointing
    model.gradient_checkpointing = False
    model.train()
    try:
        yield
    finally:
        model.train(training)
        model.gradient_checkpointing = again


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take: on a GPU, or of the machine or container it shares."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = psutil.virtual_memory().available
    for limit, taken in CGROUP_FILES:
        if Path(limit).is_file() and (text := Path(limit).read_text().strip()) != "max":
            free = min(free, int(text) - int(Path(taken).read_text()))
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_memory(
    model: PreTrainedModel, row: Mapping[str, Tensor], args: RoadworkTrainingArguments, backbone_id: str
) -> str:
    """Say what the run needs for several batch sizes, and refuse it where it cannot fit.

    Args:
        model: As it will be trained.
        row: Inputs of one row.
        args: How it is trained.
        backbone_id: For the table's title.

    Returns:
        The table as text.

    Raises:
        ValueError: If the run's own batch size needs more than is free.
    """
    if args.fsdp:
        return "memory: no estimate, FSDP spreads weights and optimizer over the processes"
    chosen, free = args.per_device_train_batch_size, free_memory(model.device)
    estimates = [estimate_memory(model, row, size, args) for size in sorted({max(1, chosen // 2), chosen, 2 * chosen})]
    lines = [
        f"memory of training on {backbone_id} in MiB, {free / MIB:,.0f} free on {model.device} beside the weights:",
        f"{'batch':>7}{'weights':>10}{'optimizer':>11}{'batches':>10}{'step':>10}{'further':>10}",
    ]
    for each in estimates:
        figures = (each.weights, each.optimizer, each.batches, each.step, each.further)
        widths = (10, 11, 10, 10, 10)
        cells = "".join(f"{value / MIB:>{width},.0f}" for value, width in zip(figures, widths, strict=True))
        mark = "" if each.further <= free else "  does not fit"
        lines.append(f"{each.batch_size:>7}{cells}{mark}")
    own = next(each for each in estimates if each.batch_size == chosen)
    if own.further > free:
        raise ValueError(
            f"per_device_train_batch_size={chosen} needs about {own.further / MIB:,.0f} MiB beside the weights, and "
            f"{free / MIB:,.0f} MiB are free on {model.device}; lower per_device_train_batch_size, set view_chunk, "
            "set activation_checkpointing true where the backbone is trained, or let feature_cache run the backbone "
            "beforehand\n" + "\n".join(lines)
        )
    return "\n".join(lines)

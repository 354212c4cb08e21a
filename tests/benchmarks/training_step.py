"""The training loop against its limits: overhead of a step, the head on one photo, memory of a chunked backbone.

A step of `RoadworkTrainer` on ready token tensors is compared with a bare loop of the same modules (forward, loss,
backward, clipping, fused AdamW), the head on one photo with its matrix products alone, both at the plan's sizes. The
memory is that of one step on 12 views x 32 photos through a ViT-S-size backbone, each in a fresh process.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import DINOv3ViTConfig, TrainerCallback, get_cosine_schedule_with_warmup

from natix_roadwork import RoadworkConfig, RoadworkForImageClassification
from natix_roadwork.data.photo_batches import collate_rows
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.trainer import RoadworkTrainer
from tests.benchmarks.ratios import Comparison, fastest_rounds, finish, options
from tests.benchmarks.step_memory import largest_difference, measured


BATCH, WARM_UP, VIEWS = 32, 2, 12
STEP_BAR, HEAD_BAR_MS, MEMORY_BAR, GRADIENT_BAR = 1.15, 5.0, 2.0, 1e-4


def main() -> None:
    """Measures every bar."""
    chosen = options(__doc__, steps=6, photos=32, dim=320, skip_memory=0)
    rows = [step_overhead(chosen.dim, chosen.steps, chosen.rounds)]
    one_token = {"evidence_grid": 0, "feature_pooling": "cls"}
    plan = one_token | {"feed_forward": False, "attention_gate": "elementwise", "view_positions": False}
    grid = {"evidence_grid": 4, "feature_pooling": "cls_mean"}
    for name, config in (("T = 1, the plan's layers", plan), ("T = 1", one_token), ("G = 4", grid)):
        for compiled in (False, True):
            rows.append(head_latency(f"head, one photo, {name}", chosen.rounds, compiled, **config))
    if not chosen.skip_memory:
        rows += [memory(trained, chosen.photos) for trained in (False, True)]
    finish(rows, chosen)


def build(dim: int, **config: object) -> RoadworkForImageClassification:
    """The head at the plan's sizes on tokens of width `dim`, over a backbone that is never run."""
    torch.manual_seed(0)
    backbone = DINOv3ViTConfig(
        hidden_size=dim, num_hidden_layers=1, num_attention_heads=20, intermediate_size=64, num_register_tokens=4
    )
    return RoadworkForImageClassification(RoadworkConfig(backbone_config=backbone, **config))


class Tokens(Dataset):
    """Ready token tensors, a row at a time."""

    def __init__(self, rows: int, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randn(rows, *shape, generator=generator)
        self.mask = torch.ones(rows, shape[0], dtype=torch.bool)
        self.labels = torch.arange(rows) % 2

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"view_features": self.tokens[index], "view_mask": self.mask[index], "labels": self.labels[index]}


class StepClock(TrainerCallback):
    """Processor time at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        self.ends.append(time.process_time())


def step_overhead(dim: int, steps: int, rounds: int) -> Comparison:
    """Median step of the trainer over that of the bare loop, run in turn; the fastest round of each."""
    rows = Tokens(BATCH * 4, (VIEWS, 18, dim))
    bare, ours = [], []
    for _ in range(rounds):
        bare.append(bare_step_ms(build(dim, evidence_grid=4), rows, steps))
        ours.append(trainer_step_ms(build(dim, evidence_grid=4), rows, steps))
    return Comparison(
        f"trainer's step over a bare loop, batch {BATCH}, T = 18, D = {dim}",
        plain=min(bare),
        ours=min(ours),
        ratio=min(ours) / min(bare),
        bar=STEP_BAR,
        at_most=True,
    )


def bare_step_ms(model: RoadworkForImageClassification, rows: Tokens, steps: int) -> float:
    """Shortest step of a loop of the same modules, without a trainer; batches are slices."""
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=3e-4, weight_decay=0.01, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, 1, steps + WARM_UP)
    ends = []
    for batch in batches(rows, steps + WARM_UP):
        model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ends.append(time.process_time())
    return shortest(ends)


def batches(rows: Tokens, steps: int) -> Iterator[dict[str, Tensor]]:
    """Ready batches, in turn."""
    for step in range(steps):
        start = step * BATCH % len(rows)
        part = slice(start, start + BATCH)
        yield {"view_features": rows.tokens[part], "view_mask": rows.mask[part], "labels": rows.labels[part]}


def trainer_step_ms(model: RoadworkForImageClassification, rows: Tokens, steps: int) -> float:
    """Shortest step of `RoadworkTrainer`, loader and collation included."""
    with tempfile.TemporaryDirectory() as folder:
        args = RoadworkTrainingArguments(
            output_dir=folder,
            use_cpu=True,
            disable_tqdm=True,
            max_steps=steps + WARM_UP,
            per_device_train_batch_size=BATCH,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
        )
        trainer = RoadworkTrainer(model=model, args=args, train_dataset=rows, data_collator=collate_rows)
        clock = StepClock()
        trainer.add_callback(clock)
        trainer.train()
    return shortest(clock.ends)


def shortest(ends: list[float]) -> float:
    """Milliseconds of the shortest step after the warm-up."""
    return 1000 * min(later - earlier for earlier, later in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False))


def head_latency(name: str, rounds: int, compiled: bool, **config: object) -> Comparison:
    """The head on one photo's cached tokens, D = 1280, against its matrix products alone."""
    model = build(1280, **config).eval()
    tokens = torch.randn(1, VIEWS, config["evidence_grid"] ** 2 + (2 if config["evidence_grid"] else 1), 1280)
    inputs: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda layer, args, _: inputs.append((layer, args[0])))
        for part, module in model.named_modules()
        if isinstance(module, nn.Linear) and not part.startswith("backbone.")
    ]
    with torch.inference_mode():
        model(view_features=tokens)
        for hook in hooks:
            hook.remove()

        def products() -> None:
            for layer, given in inputs:
                F.linear(given, layer.weight, layer.bias)

        head = torch.compile(model) if compiled else model
        head(view_features=tokens)
        times = fastest_rounds({"plain": products, "ours": lambda: head(view_features=tokens)}, 20 * rounds)
    return Comparison(
        f"{name}{', compiled' if compiled else ''}: milliseconds a photo, beside its matrix products alone",
        plain=times["plain"],
        ours=times["ours"],
        ratio=times["ours"],
        bar=HEAD_BAR_MS,
        at_most=True,
    )


def memory(train_backbone: bool, photos: int) -> Comparison:
    """Memory of a step without and with `view_chunk`, and the gradients' distance."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "unset.safetensors"), Path(folder, "set.safetensors")
        chunk = VIEWS if train_backbone else 4 * VIEWS
        unset = measured(train_backbone, None, files[0], photos)
        chunked = measured(train_backbone, chunk, files[1], photos)
        error = largest_difference(*files)
    for setting, figures in (("unset", unset), (f"{chunk}", chunked)):
        ratio = figures["estimate"] / figures["increment"]
        print(f"  view_chunk {setting}: estimated {figures['estimate'] / 2**20:.0f} MiB, {ratio:.2f} of the measured")
    kind = "trained, checkpointed" if train_backbone else "frozen"
    return Comparison(
        f"memory of a step, {kind} ViT-S on {photos} x {VIEWS} views",
        plain=unset["increment"] / 2**20,
        ours=chunked["increment"] / 2**20,
        ratio=unset["increment"] / chunked["increment"],
        bar=MEMORY_BAR,
        error=error,
        error_bar=GRADIENT_BAR,
        unit="MiB",
    )


if __name__ == "__main__":
    main()

"""What a pretraining run would do, from a few rows: settings, counts, one step, and an estimate of time and memory.

It writes nothing but `dry_run.json`; tokens and the trainer's files go to a folder that is deleted.
"""

import copy
import dataclasses
import json
import math
import tempfile
import time
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from natix_roadwork.model.fast_attention import fast_attention
from natix_roadwork.runs import peak_memory_bytes
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.pretrain_inputs import PretrainInputs, prepare_inputs
from natix_roadwork.training.pretraining import build_trainer, memory_table, resolved_config


REPORT_NAME = "dry_run.json"
WARM_UP_STEPS = 1


class _StepClock(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.ends.append(time.perf_counter())


def dry_run(settings: PretrainArguments, args: RoadworkTrainingArguments) -> str:
    """Try one training step on a few rows and estimate the whole run.

    Args:
        settings: What the run would train on.
        args: How it would train.

    Returns:
        The report as text; it is also written to `dry_run.json` in `args.output_dir`.

    Raises:
        ValueError: As the run itself would.
    """
    set_seed(args.seed)
    global_batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    with tempfile.TemporaryDirectory() as scratch, fast_attention(args.fast_attention):
        short = _short(args, scratch)
        few = dataclasses.replace(settings, selection_share=0.0)  # a few rows need not split by groups
        started = time.perf_counter()
        inputs = prepare_inputs(few, short, limit=global_batch, folder=scratch)
        prepare_seconds = time.perf_counter() - started
        trainer, clock = build_trainer(inputs, short), _StepClock()
        memory = memory_table(inputs, args, settings.backbone_id)
        trainer.add_callback(clock)
        trainer.train()
    step_seconds = clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]
    report = _report(settings, args, inputs, global_batch, step_seconds, prepare_seconds)
    if args.should_save:
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return _text(report, inputs) + "\n" + memory


def _text(report: dict[str, object], inputs: PretrainInputs) -> str:
    """Settings that differ from transformers' defaults, the rows, how they are drawn, then the estimate."""
    defaults = TrainingArguments().to_dict()
    config = {name: value for name, value in report["config"].items() if value != defaults.get(name)}
    figures = {name: value for name, value in report.items() if name not in ("config", "gps")}
    lines = ["settings:", *(f"  {name}: {value}" for name, value in config.items()), inputs.rows.report.summary()]
    if inputs.sampling is not None:
        lines += ["draws of train rows:", *(f"  {line}" for line in inputs.sampling.summary())]
    if inputs.masks is not None:
        lines.append(f"masks: {inputs.masks.summary()}")
    if inputs.depths is not None:
        lines.append(f"depth: {inputs.depths.summary()}")
    return "\n".join([*lines, "estimate:", *(f"  {name}: {value}" for name, value in figures.items())])


def _short(args: RoadworkTrainingArguments, folder: str) -> RoadworkTrainingArguments:
    short = copy.copy(args)
    short.output_dir = folder
    short.max_steps = WARM_UP_STEPS + 1
    short.save_strategy = short.eval_strategy = type(args.eval_strategy)("no")
    short.load_best_model_at_end = False
    short.report_to = []
    return short


def _report(
    settings: PretrainArguments,
    args: RoadworkTrainingArguments,
    inputs: PretrainInputs,
    global_batch: int,
    step_seconds: float,
    prepare_seconds: float,
) -> dict[str, object]:
    rows = {name: len(split) for name, split in inputs.rows.splits.items()}
    tried = sum(len(split) for split in inputs.datasets.values())
    share = settings.darkest_share if settings.darkest_share and not settings.bright_weight else 1.0
    steps_an_epoch = max(1, round(rows["train"] * share) // global_batch)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_an_epoch)
    used = sum(rows[name] for name in inputs.datasets)
    token_seconds = prepare_seconds / max(tried, 1) * used if inputs.tokens else 0.0
    weights = list(inputs.model.parameters())
    return {
        "config": resolved_config(settings, args),
        "rows": rows,
        "rows_dropped": len(inputs.rows.report.dropped),
        "gps": inputs.sampling.as_dict() if inputs.sampling else None,
        "tokens_a_view": next(iter(inputs.tokens.values())).cache.shape[3] if inputs.tokens else None,
        "parameters": sum(weight.numel() for weight in weights),
        "trainable_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
        "global_batch": global_batch,
        "steps": steps,
        "seconds_a_step": round(step_seconds, 4),
        "estimated_token_seconds": round(token_seconds),
        "estimated_training_seconds": round(step_seconds * steps),
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }

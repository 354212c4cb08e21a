"""One fold of the fold recipe: train its adapter, write it, read it back, predict the rows that it never saw.

A fold is finished when its record is written, the last thing of all; then it is not trained again. A fold that was
stopped goes on from its last complete checkpoint, and ends with the same bytes.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import set_seed
from transformers.utils import logging

from natix_roadwork.data.draws import whole_batch
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.data.predictions import Predictions, read_predictions, write_predictions
from natix_roadwork.training.adapter_files import WEIGHTS_FILE, load_folders, weight_changes, write_adapter
from natix_roadwork.training.adapter_trainer import AdapterTrainer
from natix_roadwork.training.adapters import adapted, adapter_config, take_off
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.checkpoints import last_complete_checkpoint, remove_all
from natix_roadwork.training.finetune_arguments import FinetuneArguments
from natix_roadwork.training.finetune_inputs import FinetuneInputs
from natix_roadwork.training.fold_predictions import predict
from natix_roadwork.training.metric import compute_metrics


logger = logging.get_logger(__name__)

RECORD_NAME = "record.json"
HELD_OUT_NAME = "held_out.arrow"
SETTINGS_NAME = "settings.json"
# Settings that may change between a killed run and its continuation: they do not change what comes out.
FREE = (
    *("base_model", "existing_run", "output_dir", "disable_tqdm", "report_to", "log_level", "log_level_replica"),
    *("dataset_name", "backbone_id", "local_rank", "save_total_limit"),
)


@dataclass(frozen=True)
class FoldOutcome:
    """A finished fold: facts for the result, and what its adapter says of the held-out rows."""

    facts: dict[str, Any]
    predictions: Predictions


def keep_settings(folder: Path, config: dict[str, Any]) -> None:
    """Write a run's settings, for `check_settings` of its continuation."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SETTINGS_NAME, (json.dumps(_kept(config), indent=1) + "\n").encode())


def check_settings(folder: Path, config: dict[str, Any]) -> None:
    """Compare with the settings that the finished folds in a folder were trained by, where there are some.

    Raises:
        ValueError: If they differ; each is named.
    """
    path = folder / SETTINGS_NAME
    if not path.is_file():
        return
    now, there = _kept(config), json.loads(path.read_text(encoding="utf-8"))
    differing = [
        f"{key}: {there.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(there.keys() | now.keys())
        if there.get(key) != now.get(key)
    ]
    if differing:
        raise ValueError(
            f"the folds in {folder} were trained by other settings ({'; '.join(differing)}); give the same, start anew with "
            "--existing_run overwrite, or choose another --output_dir"
        )


def _kept(config: dict[str, Any]) -> dict[str, Any]:
    """Settings that decide what comes out, as JSON values."""
    return json.loads(json.dumps({key: config[key] for key in sorted(config) if not _is_free(key)}, default=str))


def _is_free(key: str) -> bool:
    return key in FREE or key.startswith(("dataloader_", "logging_"))


def train_fold(
    inputs: FinetuneInputs,
    settings: FinetuneArguments,
    args: RoadworkTrainingArguments,
    number: int,
    work: Path,
    adapter: Path,
) -> FoldOutcome:
    """Train a fold's adapter, or read what an earlier run finished.

    Args:
        inputs: The base, the rows and the folds.
        settings: The adapter.
        args: How to train.
        number: The fold.
        work: Folder of its checkpoints, predictions and record.
        adapter: Folder of the finished adapter.

    Raises:
        ValueError: If the adapter has moved its base by less than `min_weight_change`.
    """
    record, held_out = work / RECORD_NAME, work / HELD_OUT_NAME
    if record.is_file() and held_out.is_file() and (adapter / WEIGHTS_FILE).is_file():
        logger.info(f"{adapter.name} is finished already.")
        return FoldOutcome(json.loads(record.read_text(encoding="utf-8")), read_predictions(held_out))
    part, model = inputs.parts[number], inputs.base.model
    args = _fold_arguments(inputs, args, work)
    sizes = [len(rows) for rows in (part.fit, part.selection, part.held_out)]
    logger.info(f"{adapter.name}: {sizes[0]} rows train it, {sizes[1]} choose its epoch, {sizes[2]} are held out.")
    set_seed(args.seed)
    total = total_steps(len(part.fit), args)
    with adapted(model, adapter_config(model, inputs.choice.kind, settings.adapter_settings, total)) as wearing:
        facts, trainer = _fit(wearing, inputs, args, number)
        facts["weight_change"], facts["weight_change_by_layer"] = weight_changes(wearing)
        _check_moved(facts["weight_change"], settings.min_weight_change, number)
        if args.should_save:
            write_adapter(wearing, adapter, inputs.base.identity)
    trainer.accelerator.wait_for_everyone()
    # Read back from the disk, so that the predictions are those of the files.
    wearing = load_folders(model, {adapter.name: adapter}, inputs.base.identity)
    member = f"{inputs.base.identity.name}/{inputs.choice.kind}"
    outcome = FoldOutcome(facts, predict(wearing, inputs, part.held_out, args, member, number))
    take_off(wearing)
    if args.should_save:
        write_predictions(held_out, outcome.predictions)
        write_whole(record, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())
        remove_all(work)
    return outcome


def _fit(
    wearing: PeftModel, inputs: FinetuneInputs, args: RoadworkTrainingArguments, number: int
) -> tuple[dict[str, Any], AdapterTrainer]:
    part = inputs.parts[number]
    trainer = AdapterTrainer(
        model=wearing,
        args=args,
        train_dataset=inputs.rows.select(part.fit),
        eval_dataset=inputs.rows.select(part.selection),
        data_collator=whole_batch,
        compute_metrics=compute_metrics,
        sampling_weights=None if inputs.dark is None else inputs.dark.drawn(part.fit),
    )
    trainer.train(resume_from_checkpoint=_resumes(inputs.choice.kind, args))
    state = trainer.state
    steps_an_epoch = max(1, state.max_steps / math.ceil(state.num_train_epochs))
    best = state.best_global_step or state.global_step
    # Times aside, so that a run that was stopped writes what it would have written.
    log = [
        {key: value for key, value in line.items() if not key.endswith(("_runtime", "_per_second"))}
        for line in state.log_history
        if "train_runtime" not in line
    ]
    facts = {
        "rows": {name: len(rows) for name, rows in vars(part).items()},
        "trainable_parameters": sum(weight.numel() for weight in wearing.parameters() if weight.requires_grad),
        "steps": state.global_step,
        "best_step": best,
        "best_epoch": best / steps_an_epoch,
        "best_selection_metric": state.best_metric,
        "log": log,
    }
    return facts, trainer


def _resumes(kind: str, args: RoadworkTrainingArguments) -> bool:
    """Whether to go on from a checkpoint; what is left of another try is removed."""
    with args.main_process_first(desc="looking for checkpoints"):
        # AdaLoRA's averages of importance are in no checkpoint: such a fold starts anew, to the same end.
        if kind != "adalora" and last_complete_checkpoint(args.output_dir) is not None:
            return True
        if args.should_save:
            remove_all(args.output_dir)
    return False


def _fold_arguments(inputs: FinetuneInputs, args: RoadworkTrainingArguments, work: Path) -> RoadworkTrainingArguments:
    changes: dict[str, Any] = {"output_dir": str(work)}
    if isinstance(inputs.rows, FeatureRows):  # cached tokens are read without workers, which would slow it down
        changes |= {"dataloader_num_workers": 0, "dataloader_prefetch_factor": None}
        changes["dataloader_persistent_workers"] = False
    return dataclasses.replace(args, **changes)


def total_steps(num_rows: int, args: RoadworkTrainingArguments) -> int:
    """Count the optimizer steps of a training on so many rows, patience aside."""
    if args.max_steps > 0:
        return args.max_steps
    step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    return math.ceil(args.num_train_epochs * max(1, num_rows // step))


def _check_moved(change: float, least: float, number: int) -> None:
    if change < least:
        raise ValueError(
            f"fold {number}: the adapter changed its weights by {change:.1e} of their norm, less than min_weight_change="
            f"{least:g}, so it is its base; raise learning_rate or num_train_epochs, or accept it with "
            "--min_weight_change 0"
        )

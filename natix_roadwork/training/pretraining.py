"""The pretraining recipe: train a head on a frozen backbone, score it beside the baselines, save it, record it.

`recipes/pretrain.py` calls `pretrain` and prints `result_table`.
"""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn
from transformers import set_seed
from transformers.utils import logging

from natix_roadwork.data.dataset import LoadedRows
from natix_roadwork.data.draws import whole_batch
from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.scenes import SETTINGS_FILE
from natix_roadwork.gps.report import write_report
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.model.backbone import hash_weights
from natix_roadwork.model.fast_attention import fast_attention
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.baselines import score_baselines
from natix_roadwork.training.checkpoints import checkpoint_folders, last_complete_checkpoint, remove_all
from natix_roadwork.training.dark_rows import dark_figures
from natix_roadwork.training.mask_scoring import MaskScores, score_masks
from natix_roadwork.training.memory import check_memory
from natix_roadwork.training.metadata_inputs import evidence_record, side_inputs
from natix_roadwork.training.metric import compute_metrics, roadwork_probabilities
from natix_roadwork.training.pretrain_inputs import PretrainInputs, prepare_inputs
from natix_roadwork.training.token_inputs import baseline_features
from natix_roadwork.training.trainer import RoadworkTrainer


logger = logging.get_logger(__name__)

INITIALISED_FROM = "initialised_from"  # in the details: what the trained weights started from; equal = can be averaged
FEW_ROWS = 30  # of a class in dev; a recall over fewer moves by more than .03 with every row


def pretrain(settings: PretrainArguments, args: RoadworkTrainingArguments) -> RunResult:
    """Train, evaluate, save and record one model.

    The model, its processor and `result.json` lie in `args.output_dir`, the training's checkpoints in sub-folders.

    Args:
        settings: What to train on.
        args: How to train.

    Returns:
        What `result.json` holds.

    Raises:
        ValueError: If data, settings or an earlier run in `args.output_dir` do not fit.
    """
    with RunRecorder(resolved_config(settings, args), args.seed) as recorder, fast_attention(args.fast_attention):
        resume = _prepare_output(settings, args)
        set_seed(args.seed)
        inputs = prepare_inputs(settings, args)
        if inputs.sampling is not None and args.should_save:
            logger.info(write_report(inputs.sampling, args.output_dir, seed=args.seed))
        beginning = hash_trained(inputs.model)
        trainer = build_trainer(inputs, args)
        logger.info(memory_table(inputs, args, settings.backbone_id))
        trainer.include_backbone = settings.include_backbone
        output = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint or resume)
        trainer.save_model()
        _record(recorder, trainer, inputs, output.metrics)
        recorder.details[INITIALISED_FROM] = beginning
        recorder.details["extra_evidence"] = evidence_record(settings.extra_evidence, inputs.rows.splits)
        if settings.baselines and args.should_save:
            recorder.baselines = _score_baselines(inputs, args.seed)
        recorder.write(args.output_dir)
        result = recorder.result()
    trainer.accelerator.end_training()  # closes the process group; without it some back ends complain or hang
    return result


def resolved_config(settings: PretrainArguments, args: RoadworkTrainingArguments) -> dict[str, Any]:
    """Return every setting of the run as JSON-ready values."""
    return dataclasses.asdict(settings) | args.to_dict()


def hash_trained(model: nn.Module) -> str:
    """Hash the weights that training changes: before it, two runs with the same hash begin alike."""
    return hash_weights(nn.ParameterList([weight for weight in model.parameters() if weight.requires_grad]))


def build_trainer(inputs: PretrainInputs, args: RoadworkTrainingArguments) -> RoadworkTrainer:
    """Put model, rows and dev metrics into a trainer; cached tokens are read without workers, which would slow it down."""
    if args.dataloader_num_workers and isinstance(inputs.datasets["train"], FeatureRows):
        args = copy.copy(args)
        args.dataloader_num_workers, args.dataloader_prefetch_factor = 0, None
        args.dataloader_persistent_workers = False
    return RoadworkTrainer(
        model=inputs.model,
        args=args,
        train_dataset=inputs.datasets["train"],
        eval_dataset=inputs.datasets[inputs.chooser],
        data_collator=whole_batch,
        processing_class=inputs.processor,
        compute_metrics=compute_metrics,
        sampling_weights=inputs.sampling_weights,
    )


def memory_table(inputs: PretrainInputs, args: RoadworkTrainingArguments, backbone_id: str) -> str:
    """Say what the run needs in memory.

    Raises:
        ValueError: If it cannot fit.
    """
    return check_memory(inputs.model, inputs.datasets["train"][0], args, backbone_id)


def result_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a result in a few lines: MCC with its interval for the head and the baselines, and where files lie."""
    splits = list(result.metrics)
    lines = [f"{'MCC [95 % interval]':24}" + "".join(f"{split:>24}" for split in splits)]
    for name, metrics in {"head": result.metrics, **result.baselines}.items():
        lines.append(f"{name:24}" + "".join(f"{interval_text(metrics[split]['mcc']):>24}" for split in splits))
    lines += [_mask_line(split, metrics) for split, metrics in result.metrics.items() if "mask_iou" in metrics]
    lines += [
        f"model, processor, code   {output_dir}",
        f"every figure            {Path(output_dir) / RESULT_NAME}",
        f"{result.wall_seconds:.0f} s, {result.peak_memory_bytes / 2**30:.1f} GiB at most",
    ]
    if gps := result.details.get("gps"):
        shares = gps["check"]["expected"]
        near = ", ".join(f"{shares[f'within_{km}_km']:.0%} within {km} km" for km in (50, 100))
        lines.append(
            f"GPS sampling {gps['sampling']:11}{near} of {gps['target']}, median {shares['median_km']:.0f} km"
        )
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _mask_line(split: str, metrics: dict[str, dict[str, float | None]]) -> str:
    """`masks of dev             IoU 0.47 of an oracle's 0.54, patch AUC 0.97 to 0.99`."""
    iou, oracle = (interval_text(metrics[name]) for name in ("mask_iou", "oracle_iou"))
    aucs = [figure["value"] for name, figure in metrics.items() if name.startswith("patch_auc_")]
    known = [value for value in aucs if value is not None]
    ranked = f", patch AUC {min(known):.2f} to {max(known):.2f}" if known else ""
    return f"{f'masks of {split}':24}IoU {iou}, an oracle's {oracle}{ranked}"


def _prepare_output(settings: PretrainArguments, args: RoadworkTrainingArguments) -> bool:
    """Settle what happens to an earlier run's files; returns whether to resume from its checkpoints."""
    with args.main_process_first(desc="looking for checkpoints"):
        result = Path(args.output_dir) / RESULT_NAME
        found = checkpoint_folders(args.output_dir) + [result] * result.is_file()
        if not found or args.resume_from_checkpoint:
            return False
        if settings.existing_run == "resume":
            if last_complete_checkpoint(args.output_dir) is not None:
                return True
            logger.warning(f"No checkpoint in {args.output_dir} is complete; the run starts anew.")
        elif settings.existing_run == "refuse":
            raise ValueError(
                f"output_dir={args.output_dir!r} holds {found[-1].name} of an earlier run: continue it with "
                "--existing_run resume, delete it with --existing_run overwrite, or choose another --output_dir"
            )
        for folder in remove_all(args.output_dir):
            logger.warning(f"Removed {folder} of an earlier run.")
        result.unlink(missing_ok=True)
    return False


def _record(
    recorder: RunRecorder, trainer: RoadworkTrainer, inputs: PretrainInputs, train_metrics: dict[str, float]
) -> None:
    rows = inputs.rows
    recorder.data = rows.as_dict()
    masks: dict[str, MaskScores] = {}
    dark: dict[str, Any] = {} if inputs.dark is None else inputs.dark.as_dict(inputs.fitted)
    for split in ("dev", "test"):
        if split in inputs.datasets:
            prediction = trainer.predict(inputs.datasets[split], metric_key_prefix=split)
            probabilities = roadwork_probabilities(prediction.predictions)
            recorder.metrics[split] = _metrics(inputs, split, prediction.label_ids, probabilities, recorder.seed)
            scored = inputs.masks is not None and inputs.masks.paths.keys() & set(rows.splits[split]["row_id"][:])
            if scored and trainer.is_fsdp_enabled:  # the decoder runs outside of the sharded model's forward
                recorder.warnings.append(f"the masks of {split} are not scored under FSDP; DDP scores them")
            elif scored:
                groups = rows.splits[split]["group"][:]
                masks[split] = score_masks(inputs.model, inputs.datasets[split], groups, recorder.seed)
                recorder.metrics[split] |= masks[split].figures
            if inputs.dark is not None:
                dark[split] = dark_figures(rows.splits[split], inputs.dark.limit, probabilities, recorder.seed)
    recorder.warnings += warnings_about(rows) + (inputs.sampling.warnings if inputs.sampling else [])
    weights, config = list(inputs.model.parameters()), inputs.model.config.to_dict()
    recorder.warnings += warnings_about_side_inputs(config)
    recorder.details = {
        # The settings name the backbone as it was asked for; the folder it was found in is this machine's own.
        "model": {name: value for name, value in config.items() if name not in ("backbone_config", "backbone_id")},
        "metadata": inputs.metadata.record,
        "depth": None if inputs.depths is None else inputs.depths.as_dict(),
        "masks": None if inputs.masks is None else inputs.masks.as_dict(),
        "masks_scored": {split: {"grid": found.grid, "photos": found.seen} for split, found in masks.items()},
        "splits": dataclasses.asdict(rows.manifest),
        "learned_from": ["train"] if inputs.chooser == "selection" else ["train", "dev"],
        "chosen_on": inputs.chooser,
        "best_step": trainer.state.best_global_step,
        "best_metric": trainer.state.best_metric,
        "steps": trainer.state.global_step,
        "gps": inputs.sampling.as_dict() if inputs.sampling else None,
        "brightness": dark or None,
        "trainable_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
        "parameters": sum(weight.numel() for weight in weights),
        "train": train_metrics,
        "log": trainer.state.log_history,
    }


def warnings_about(rows: LoadedRows, splits: Sequence[str] = ("dev",)) -> list[str]:
    """Say what a reader of the scores on splits of these rows must know."""
    found = warnings_about_photos(rows)
    for split in splits:
        counts = rows.report.kept[split]
        if min(counts.values()) < FEW_ROWS:
            held = " and ".join(f"{count} {name}" for name, count in counts.items())
            found.append(f"{split} holds {held} rows; below {FEW_ROWS} of a class its intervals are wide")
    return found


def warnings_about_photos(rows: LoadedRows) -> list[str]:
    """Say so where the photos are no photos."""
    path = Path(rows.dataset_name)
    if (path / SETTINGS_FILE).is_file() or (path.parent / SETTINGS_FILE).is_file():  # a folder, or its shards
        return ["the photos are drawn scenes, a stand-in; the scores are not roadwork accuracy"]
    return []


def warnings_about_side_inputs(config: dict[str, Any]) -> list[str]:
    """Say so where the scores are of photos with more beside them than a published model is given."""
    return [
        f"the run's dev and test figures are of photos with {name}, where they have it; a bare photo, as a published model and its "
        "lockbox scores see it, is answered without"
        for name in side_inputs(config)
    ]


def _score_baselines(inputs: PretrainInputs, seed: int) -> dict[str, dict[str, dict]]:
    features = {split: baseline_features(tokens) for split, tokens in inputs.tokens.items()}
    scored = {split: features[split] for split in features if split not in ("train", "selection")}
    probabilities = score_baselines(features["train"], features[inputs.chooser], scored, seed=seed)
    return {
        name: {
            split: _metrics(inputs, split, features[split].labels, values, seed) for split, values in by_split.items()
        }
        for name, by_split in probabilities.items()
    }


def _metrics(
    inputs: PretrainInputs, split: str, labels: NDArray, probabilities: NDArray, seed: int
) -> dict[str, dict[str, float | None]]:
    groups = inputs.rows.splits[split]["group"][:]
    return metrics_with_intervals(labels, probabilities, groups=groups, seed=seed)

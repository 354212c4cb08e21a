"""What full models say of the train rows that they have not learned from: the answers a student is taught with.

K heads on one frozen backbone, each trained on the other folds of *train*; dev teaches none of them, so a student that
learns from their answers can be scored there. `recipes/teacher_folds.py` calls `teach_folds`; `distillation.py` reads the
file.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from transformers import set_seed
from transformers.utils import CONFIG_NAME, logging

from natix_roadwork.data.feature_rows import FeatureRows
from natix_roadwork.data.fold_intervals import fold_widening, widen_metrics
from natix_roadwork.data.predictions import LEARNED_FROM, NOT_OUT_OF_FOLD, ORIGINAL, Predictions, write_predictions
from natix_roadwork.metrics import metrics_with_intervals
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.runs import RESULT_NAME, RunRecorder, RunResult, interval_text
from natix_roadwork.training.ablation_tokens import with_cache
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.cross_fitting import CrossFold, fit_head, grouped_folds, head_on
from natix_roadwork.training.fold_predictions import logits_and_embeddings
from natix_roadwork.training.mask_inputs import mask_inputs
from natix_roadwork.training.pretrain_inputs import PretrainInputs, load_splits, train_augmentation
from natix_roadwork.training.pretrain_model import build_model
from natix_roadwork.training.pretraining import warnings_about
from natix_roadwork.training.token_inputs import compute_tokens, feature_folder, fit_standardizer, standardizer_rows


logger = logging.get_logger(__name__)

TEACHER_FILE = "teacher.arrow"


@dataclass
class TeacherFoldsArguments(PretrainArguments):
    """What `recipes/teacher_folds.py` trains: the keys of `recipes/pretrain.py` and these.

    Attributes:
        num_folds: K; each train row is predicted by the head that has not seen its fold.
        member: Name of the teacher in its file.
    """

    selection_share: float = field(default=0.15, metadata={"help": "Share of a fold's rows that chooses its epoch."})
    num_folds: int = field(default=5, metadata={"help": "Folds of train by whole groups."})
    member: str = field(default="teacher", metadata={"help": "Name of the teacher in its file."})

    def __post_init__(self) -> None:
        """Refuse what such a teacher cannot be.

        Raises:
            ValueError: With the key and its value.
        """
        super().__post_init__()
        for name in ("extra_evidence", "darkest_share"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: a teacher sees photos alone, and all of them; leave it out"
                )
        if self.metadata_fields:
            raise ValueError(
                f"metadata_fields={self.metadata_fields!r}: the student sees the photo alone, so its teacher must too; "
                "leave it empty"
            )
        if not self.selection_share:
            raise ValueError("selection_share=0: each fold needs rows that choose its epoch; set it to 0.15, say")


@dataclass(frozen=True)
class FoldAnswers:
    """What the head of one fold says: of all train rows, and of the dev rows."""

    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    dev_logits: NDArray[np.float32]
    dev_embeddings: NDArray[np.float32]


def teach_folds(settings: TeacherFoldsArguments, args: RoadworkTrainingArguments) -> RunResult:
    """Train the heads and write `teacher.arrow` with train rows out of fold, and dev rows by the mean of all heads.

    Args:
        settings: The recipe of the full model.
        args: How to train each head.

    Returns:
        What `result.json` in `args.output_dir` holds.

    Raises:
        ValueError: If data or settings do not fit, or the folder holds an earlier run that may not be overwritten.
    """
    output = Path(args.output_dir)
    with RunRecorder(dataclasses.asdict(settings) | args.to_dict(), args.seed) as recorder:
        _check_output(output, settings.existing_run)
        settings = with_cache(settings)
        loaded, splits = load_splits(settings, args)
        splits = {name: splits[name] for name in ("train", "dev")}
        model, processor = build_model(settings, splits["train"]["label"][:])
        model.to(args.device)
        kept = {"folder": feature_folder(settings), "augmentation": train_augmentation(settings, args.seed)}
        kept["masks"] = mask_inputs(splits, settings, args)
        tokens = compute_tokens(splits, model, processor, settings, args, **kept)
        labels, groups = splits["train"]["label"][:], splits["train"]["group"][:]
        folds = grouped_folds(labels, groups, settings.num_folds, args.seed, settings.selection_share)
        answers = []
        for fold in folds:
            logger.info(f"fold {fold.name}: {len(fold.train)} rows train it, {len(fold.held_out)} are held out.")
            trained = _head(
                fold, tokens["train"], PretrainInputs(loaded, model, processor, tokens, {}), settings, args
            )
            told = [logits_and_embeddings(trained, tokens[name], args) for name in ("train", "dev")]
            answers.append(FoldAnswers(*told[0], *told[1]))
        found = out_of_fold(answers, folds, splits, settings.member, loaded.fingerprint)
        if args.should_save:
            output.mkdir(parents=True, exist_ok=True)
            write_predictions(output / TEACHER_FILE, found)
        recorder.data = loaded.as_dict()
        for split in ("train", "dev"):
            part = found.select(found.splits == split)
            scores = metrics_with_intervals(part.labels, part.probabilities, groups=part.groups, seed=args.seed)
            recorder.metrics[split] = widen_metrics(scores, fold_widening(part.folds))
        recorder.warnings += warnings_about(loaded)
        if settings.gps_sampling != "off":
            recorder.warnings.append(
                f"gps_sampling={settings.gps_sampling} is not used: each row is drawn once an epoch"
            )
        recorder.write(output)
        result = recorder.result()
    args.distributed_state.destroy_process_group()
    return result


def out_of_fold(
    answers: list[FoldAnswers], folds: list[CrossFold], splits: dict[str, Dataset], member: str, fingerprint: str
) -> Predictions:
    """Join the answers of all folds in one space of embeddings.

    Heads of different folds have embeddings that mean the same in other directions. Each fold's are centred and turned onto
    those of the first by the rotation that fits best over all train rows (orthogonal Procrustes); no label enters.

    Args:
        answers: One a fold.
        folds: The folds of the train rows.
        splits: `train` and `dev`.
        member: Name of the teacher.
        fingerprint: Of the data.
    """
    first = answers[0].embeddings - answers[0].embeddings.mean(axis=0)
    count, width = first.shape
    logits, embeddings = np.zeros((count, 2), np.float32), np.zeros((count, width), np.float32)
    numbers, dev_embeddings = np.full(count, NOT_OUT_OF_FOLD), []
    for number, (told, fold) in enumerate(zip(answers, folds, strict=True)):
        centre = told.embeddings.mean(axis=0)
        turn, _ = orthogonal_procrustes(told.embeddings - centre, first)
        logits[fold.held_out] = told.logits[fold.held_out]
        embeddings[fold.held_out] = (told.embeddings[fold.held_out] - centre) @ turn
        numbers[fold.held_out] = number
        dev_embeddings.append((told.dev_embeddings - centre) @ turn)
    rows = [splits["train"], splits["dev"]]
    columns = {
        name: [value for part in rows for value in part[name][:]] for name in ("row_id", "label", "group", "split")
    }
    num_dev = len(splits["dev"])
    return Predictions(
        member=member,
        row_ids=np.asarray(columns["row_id"], dtype=np.str_),
        labels=np.asarray(columns["label"], dtype=np.int64),
        groups=np.asarray(columns["group"], dtype=np.str_),
        splits=np.asarray(columns["split"], dtype=np.str_),
        logits=np.concatenate([logits, np.mean([told.dev_logits for told in answers], axis=0)]).astype(np.float32),
        embeddings=np.concatenate([embeddings, np.mean(dev_embeddings, axis=0)]).astype(np.float32),
        folds=np.concatenate([numbers, np.full(num_dev, NOT_OUT_OF_FOLD)]).astype(np.int64),
        transforms=np.full(count + num_dev, ORIGINAL, dtype=np.int64),
        record={LEARNED_FROM: ["train"], "num_folds": len(folds), "data_fingerprint": fingerprint},
    )


def teacher_table(result: RunResult, output_dir: str | Path) -> str:
    """Describe a result in a few lines."""
    lines = [f"{'teacher':16}MCC [95 % interval]"]
    names = {"train": "train, out of fold", "dev": "dev, mean of all"}
    lines += [f"{text:20}{interval_text(result.metrics[split]['mcc'])}" for split, text in names.items()]
    lines += [
        f"its answers         {Path(output_dir) / TEACHER_FILE}",
        f"every figure        {Path(output_dir) / RESULT_NAME}",
    ]
    return "\n".join(lines + [f"warning: {text}" for text in result.warnings])


def _check_output(output: Path, existing_run: str) -> None:
    """Refuse a folder whose files would be lost."""
    if (output / CONFIG_NAME).exists():
        raise ValueError(
            f"output_dir={str(output)!r} holds a model, whose result.json would be lost; choose another one"
        )
    if (output / TEACHER_FILE).exists() and existing_run != "overwrite":
        raise ValueError(
            f"output_dir={str(output)!r} holds {TEACHER_FILE} of an earlier run: write it anew by --existing_run "
            "overwrite, or choose another --output_dir"
        )


def _head(
    fold: CrossFold,
    tokens: FeatureRows,
    inputs: PretrainInputs,
    settings: TeacherFoldsArguments,
    args: RoadworkTrainingArguments,
) -> RoadworkForImageClassification:
    """Train the head of one fold on the backbone of `inputs`, its feature statistics those of its own rows."""
    parts = {name: tokens.select(fold.parts[name]) for name in ("train", "selection")}
    set_seed(args.seed)
    head = head_on(inputs.model, settings, tokens.labels[fold.train].tolist())
    fit_standardizer(head, parts["train"].select(standardizer_rows(len(fold.train), args.seed)))
    return fit_head(dataclasses.replace(inputs, model=head, datasets=parts), args).model

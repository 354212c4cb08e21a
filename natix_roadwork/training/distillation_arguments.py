"""Settings of a distillation: what `recipes/distill.py` may be told besides how to train.

`distillation.py` reads them.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

from natix_roadwork.subnet.challenge import REGIMES
from natix_roadwork.training.arguments import RoadworkTrainingArguments
from natix_roadwork.training.distillation_loss import DistillWeights


@dataclass
class DistillTrainingArguments(RoadworkTrainingArguments):
    """`RoadworkTrainingArguments` for a whole stock model: smaller steps, the epoch chosen by what the logits can tell.

    The threshold is moved after the training, so the metric that chooses the epoch must not depend on it.
    """

    output_dir: str = field(default="runs/distill", metadata={"help": "Folder of result.json and of lite/."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})
    num_train_epochs: float = field(default=15.0, metadata={"help": "Passes over the train rows."})
    metric_for_best_model: str | None = field(
        default="refined_loss", metadata={"help": "Metric of the selection rows that chooses the epoch."}
    )
    greater_is_better: bool | None = field(default=False, metadata={"help": "Whether a higher metric is better."})

    def __post_init__(self) -> None:
        """Refuse what only the full model's trainer does.

        Raises:
            ValueError: If such a key is set.
        """
        super().__post_init__()
        for name in ("ema_decay", "mixup_alpha", "cutmix_alpha", "view_chunk", "resume_from_checkpoint"):
            if getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r} has no effect on a student; leave it out")


@dataclass
class DistillArguments:
    """What `recipes/distill.py` trains, from which teacher, on which photos.

    Attributes:
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder.
        predictions: Prediction files of the teacher's members.
        ensemble: `ensemble.json` that combines them; None = the mean of their logits.
        allow_in_sample_teacher: Whether answers to rows that the teacher has learned from may teach.
        student_id: Hub id, folder, or `embedded:efficientnet-lite0` (profile `modern`) of the student's weights.
        student_config: JSON config of an untrained student, `model_type` in it, in the place of `student_id`.
        profile: `stock-4.45` = what the stock miner's transformers 4.45.2 loads; `modern` = any, timm too.
        distill_weight: Lambda, share of the teacher's logits in the loss.
        temperature: T of the logits' term.
        embedding_weight: Mu, weight of the embedding's term; 0 = off.
        embedding_form: `cosine`, or `condensation` as VL2Lite is published.
        regime_shares: JSON mapping of validator regime to its share of the views.
        selection_share: Share of the train groups that chooses the epoch and fits the threshold.
        target_prior: Share of roadwork for which probability 0.5 is made the best cut.
        num_seeds: Students trained, each with a seed of its own; the one that does best on the selection rows is kept.
        compare_without_teacher: Train the same students without the teacher too.
        existing_run: What happens to an earlier run in `output_dir`: `refuse` = an error, `overwrite` = it is deleted.
        repo_id: Hub id under which the student will be published; it stands in `ViT_roadwork.yaml`.
        model_name: Name in `model_card.json`.
        version: Version there, as X.Y.Z.
        submitted_by: Hotkey there.
    """

    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    # Teacher
    predictions: list[str] = field(default_factory=list, metadata={"help": "Prediction files of the teacher."})
    ensemble: str | None = field(default=None, metadata={"help": "ensemble.json; null = mean of the logits."})
    allow_in_sample_teacher: bool = field(default=False, metadata={"help": "Use answers to learned rows too."})
    distill_weight: float = field(default=0.5, metadata={"help": "Share of the teacher's logits in the loss."})
    temperature: float = field(default=2.0, metadata={"help": "By which logits are divided in that term."})
    embedding_weight: float = field(default=0.5, metadata={"help": "Weight of the embedding's term; 0 = off."})
    embedding_form: Literal["cosine", "condensation"] = field(
        default="cosine", metadata={"help": "How feature and embedding are compared."}
    )
    # Student
    student_id: str | None = field(default=None, metadata={"help": "Hub id, folder, or embedded:efficientnet-lite0."})
    student_revision: str | None = field(default=None, metadata={"help": "Commit of the student on the Hub."})
    student_config: str | None = field(default=None, metadata={"help": "JSON config of an untrained student."})
    profile: Literal["stock-4.45", "modern"] = field(default="stock-4.45", metadata={"help": "Who must load it."})
    # Data
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    dev_share: float = field(default=0.15, metadata={"help": "Share of the train rows held out as dev."})
    selection_share: float = field(default=0.2, metadata={"help": "Share of train that chooses epoch and threshold."})
    split_seed: int | None = field(default=None, metadata={"help": "Seed of the dev rows; null = seed."})
    split_manifest: str | None = field(default=None, metadata={"help": "Checked where it is there, else written."})
    groups_file: str | None = field(default=None, metadata={"help": "groups.csv of an audit; joins more rows."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused from their header."})
    verify_images: bool = field(default=False, metadata={"help": "Decode every photo once and drop damaged ones."})
    consistency_filter: bool = field(default=False, metadata={"help": "Drop rows that contradict their label."})
    near_duplicates: bool = field(default=True, metadata={"help": "Photos of almost the same picture are one group."})
    regime_shares: str = field(
        default='{"A": 0.4, "B": 0.2, "C": 0.4}', metadata={"help": "JSON: share of each validator regime."}
    )
    # Run
    target_prior: float = field(default=0.5, metadata={"help": "Share of roadwork where 0.5 is the best cut."})
    num_seeds: int = field(default=1, metadata={"help": "Students trained, each with its own seed."})
    compare_without_teacher: bool = field(default=True, metadata={"help": "Train the same without the teacher."})
    existing_run: Literal["refuse", "overwrite"] = field(
        default="refuse", metadata={"help": "What happens to an earlier run in output_dir."}
    )
    # Card
    repo_id: str = field(default="user/roadwork-lite", metadata={"help": "Hub id of the published student."})
    model_name: str = field(default="roadwork-lite", metadata={"help": "Name in model_card.json."})
    version: str = field(default="1.0.0", metadata={"help": "Version in model_card.json, X.Y.Z."})
    submitted_by: str = field(default="", metadata={"help": "Hotkey in model_card.json."})

    def __post_init__(self) -> None:
        """Turn text into values and check what no other part checks.

        Raises:
            ValueError: If a field is out of range; the message names it and its value.
        """
        self.regime_shares = _shares(self.regime_shares)
        self.student_config = _config(self.student_config)
        if (self.student_id is None) == (self.student_config is None):
            raise ValueError(
                f"student_id={self.student_id!r} and student_config={self.student_config!r}: give exactly one of them"
            )
        for name, low, high in (("distill_weight", 0.0, 1.0), ("embedding_weight", 0.0, float("inf"))):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie in [{low:g}, {high:g}]")
        for name in ("dev_share", "selection_share", "target_prior"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie between 0 and 1")
        if self.temperature <= 0 or self.num_seeds < 1:
            raise ValueError(
                f"temperature={self.temperature!r} must be above 0, num_seeds={self.num_seeds!r} at least 1"
            )

    @property
    def weights(self) -> DistillWeights:
        """What the terms of the loss weigh."""
        return DistillWeights(self.distill_weight, self.embedding_weight, self.temperature, self.embedding_form)


def _shares(value: str | dict[str, float]) -> dict[str, float]:
    shares = _mapping("regime_shares", value)
    numbers = all(isinstance(share, int | float) and share >= 0 for share in shares.values())
    if not shares or not numbers or set(shares) - set(REGIMES) or sum(shares.values()) <= 0:
        raise ValueError(f'regime_shares={value!r} must map some of {REGIMES} to shares, such as {{"A": 1, "C": 1}}')
    return {regime: float(share) / sum(shares.values()) for regime, share in shares.items()}


def _config(value: str | dict | None) -> dict | None:
    if value is None:
        return None
    config = _mapping("student_config", value)
    if "model_type" not in config:
        raise ValueError(f'student_config={value!r} needs a model_type, such as {{"model_type": "vit"}}')
    return config


def _mapping(name: str, value: str | dict) -> dict:
    if isinstance(value, dict):
        return dict(value)
    try:
        found = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}={value!r} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name}={value!r} must be a JSON mapping")
    return found

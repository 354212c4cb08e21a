"""Settings of a training run: what a recipe's YAML and command line may say.

`RoadworkTrainingArguments` says how to train, `PretrainArguments` what to train on which photos. The trainer and
`pretraining.py` read them.
"""

import json
import os
from dataclasses import dataclass, field
from typing import Literal

import torch
from accelerate.utils import str_to_bool
from transformers import TrainingArguments

from natix_roadwork.data.augmentation_presets import VALIDATOR_REGIMES, check_preset
from natix_roadwork.gps.settings import GPSArguments
from natix_roadwork.training.dark_rows import DarkArguments


@dataclass
class RoadworkTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults a small head on frozen features needs.

    Warm-up is a ratio (5 % of all steps), the best model is the one with the highest dev MCC, and bfloat16 is used
    where a GPU has it.

    Attributes:
        ema_decay: Decay of the weights' moving average; 0 = off. Evaluation and the final model use the average.
        early_stopping_patience: Evaluations without a better metric before training stops, counted after warm-up;
            0 = train to the end.
        mixup_alpha: Half of the rows of a batch are blended with others, by shares from Beta(alpha, alpha); 0 = off.
        cutmix_alpha: Half of the rows take such a share of their tiles from others; 0 = off.
        fast_attention: Whether FlashAttention 3 or 4 is used where the GPU and the installed packages allow it.
        view_chunk: Views a live backbone runs over at a time, which bounds its memory; None = all of a batch.
    """

    output_dir: str = field(default="runs/pretrain", metadata={"help": "Folder of checkpoints, model and result."})
    learning_rate: float = field(default=3e-4, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.01, metadata={"help": "Of matrices; not of norms, biases, embeddings."})
    num_train_epochs: float = field(default=30.0, metadata={"help": "Passes over the train rows."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Photos a process and forward pass."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Photos a process and evaluation pass."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule after the warm-up."})
    warmup_steps: float = field(default=0.05, metadata={"help": "A ratio of all steps below 1, else steps."})
    bf16: bool | None = field(default=None, metadata={"help": "None: where a GPU has bfloat16, never on a CPU."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When dev is evaluated."})
    save_strategy: str = field(default="epoch", metadata={"help": "When a checkpoint is written."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept, the best one besides."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two lines of the log."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "False: a NaN loss stays visible."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Restore the model of the best dev metric."})
    metric_for_best_model: str | None = field(default="mcc", metadata={"help": "Dev metric that chooses the model."})
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether a higher metric is better."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Transforms need the raw columns."})
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels"], metadata={"help": "Inputs that are targets."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "False: every trainable weight has a gradient in every step."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "A resumed run continues the patience counter."}
    )
    early_stopping_patience: int = field(default=5, metadata={"help": "Evaluations after warm-up; 0 = off."})
    ema_decay: float = field(default=0.0, metadata={"help": "Moving average of the weights; 0 = off."})
    mixup_alpha: float = field(default=0.0, metadata={"help": "Rows blended with others; 0 = off."})
    cutmix_alpha: float = field(default=0.0, metadata={"help": "Rows with tiles of others; 0 = off."})
    fast_attention: bool = field(default=True, metadata={"help": "FlashAttention 3 or 4 where it can run."})
    view_chunk: int | None = field(default=None, metadata={"help": "Views a live backbone runs over at a time."})

    def __post_init__(self) -> None:
        """Resolve what depends on the hardware and check our own fields.

        Raises:
            ValueError: If a field is out of range; the message names it and its value.
        """
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay={self.ema_decay!r} must be in [0, 1); 0 switches the average off")
        if self.early_stopping_patience < 0:
            raise ValueError(f"early_stopping_patience={self.early_stopping_patience!r} must be 0 (off) or more")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be 0 (off) or more")
        if self.view_chunk is not None and self.view_chunk < 1:
            raise ValueError(f"view_chunk={self.view_chunk!r} must be at least 1, or null for all views at a time")
        if self.bf16 is None:
            self.bf16 = not self.fp16 and not self.runs_on_cpu and torch.cuda.is_bf16_supported()
        if self.runs_on_cpu:
            self.dataloader_pin_memory = False
        super().__post_init__()

    @property
    def runs_on_cpu(self) -> bool:
        """Whether this process trains on the CPU, by choice or for want of a GPU."""
        chosen = self.use_cpu or bool(str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "false")))
        return chosen or not torch.cuda.is_available()


@dataclass
class PretrainArguments(GPSArguments, DarkArguments):
    """What `recipes/pretrain.py` trains and on which photos.

    Attributes:
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder.
        backbone_id: Hub id, folder, or `embedded:efficientnet-lite0`.
        dataset_revision: Branch, tag or commit of a Hub data set; the commit read is noted in `result.json`.
        squares: The two squares of `photo12`, each of `center`, `left`, `right`.
        metadata_fields: Names of fields, or `auto` = those that the leak audit passes (`data/leak_audit.py`).
        allow_leaking_fields: Fields to read although the audit refuses them; `result.json` says so.
        selection_share: Share of the train groups that chooses the epoch in the place of dev, which then has taught the model
            nothing: for ensembles, fold adapters and thresholds that are fitted on dev. 0 = dev chooses.
        verify_images: Decode every photo once, so that damaged ones are dropped instead of ending the run.
        near_duplicates: Whether photos of almost the same picture stay in one split; decodes each photo once.
        split_seed: Seed that decides the dev rows; None = `seed`. Members of an ensemble share it, so that the dev rows of
            one are not train rows of another.
        split_manifest: JSON file of the rows in each split: checked where it is there, else written.
        groups_file: `groups.csv` of an audit, whose groups join photos alike by embedding too.
        existing_run: What happens to an earlier run in `output_dir`, its checkpoints and `result.json`: `refuse` = an
            error, `resume` = continue from the last complete checkpoint, `overwrite` = delete them.
        feature_cache: `off` = the backbone runs in every step; `auto` = its tokens are computed once into the datasets
            cache, where those of other settings stay beside them; any other value = into this folder, which is refused
            when it holds tokens of other settings.
        feature_draws: K augmented draws of each train view in the cache besides the clean one; needs an augmentation.
        feature_dtype: `float16`, or `int8` with a scale for each token: half the bytes.
        metadata_fields: Some of gps, weather, daytime, scene, text; or `auto` = those that the leak audit passed.
        text_encoder_id: Hub id, folder, or `embedded:all-minilm-l6-v2`; it reads the field `text`.
        extra_evidence: File of figures that a detector found in the photos (`recipes/detect.py`), read beside the views; a
            file made of anything that knows the label, such as people's boxes, gives the label away.
        consistency_filter: Whether rows whose description contradicts the label are dropped, as validators do.
        focal_alpha: `auto` = from the train labels as they are drawn, so that both classes weigh the same; or two numbers.
        augmentation: Preset by which train views are changed (`data/augmentation_presets.py`); evaluation never is.
        augment_per_view: Whether colour, weather and flip are drawn for each view of a photo, not once for all.
        mask_folder: Folder of `recipes/pseudo_masks.py` with masks of rows whose own `mask` is empty; read, like those, only
            where `loss_weights` has `mask`.
        bad_masks: What a mask that is missing, damaged, of another size or of an unknown class does: `refuse` = an error with
            a list, `ignore` = each is named in the log and counts as unknown.
        depth_folder: Folder of `recipes/depth_maps.py`: the depth map of a photo is its last view. A row without a map has that view
            masked; None = no such view.
        score_test: Whether an imagefolder's own test folder is scored at the end; a lockbox never is.
        include_backbone: Whether the final model holds the backbone's weights. None: unless it has a Hub id.
    """

    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    # Model
    backbone_id: str = field(
        default="timm/vit_huge_plus_patch16_dinov3.lvd1689m",
        metadata={"help": "Hub id, folder, or embedded:efficientnet-lite0."},
    )
    backbone_revision: str | None = field(default=None, metadata={"help": "Commit of the backbone on the Hub."})
    feature_pooling: Literal["cls", "mean", "cls_mean"] = field(
        default="cls_mean", metadata={"help": "Pooled tokens a view."}
    )
    evidence_grid: int = field(default=2, metadata={"help": "G: besides them G x G grid tokens a view; 0 = none."})
    evidence_size: int = field(default=128, metadata={"help": "Hidden width of the evidence pooling."})
    num_evidence_queries: int = field(default=1, metadata={"help": "Queries that pool a view's tokens."})
    token_dropout: float = field(default=0.0, metadata={"help": "Share of tokens a training step hides."})
    keep_views: int = field(default=8, metadata={"help": "Views kept by the pruning."})
    hidden_size: int = field(default=512, metadata={"help": "Width of the head."})
    pyramid: bool = field(default=True, metadata={"help": "Multi-scale pyramid on the projected views."})
    num_attention_layers: int = field(default=4, metadata={"help": "Gated attention layers."})
    num_attention_heads: int = field(default=8, metadata={"help": "Heads of each attention layer."})
    attention_gate: Literal["headwise", "elementwise", "none"] = field(
        default="headwise", metadata={"help": "Gate of each attention layer."}
    )
    feed_forward: bool = field(default=True, metadata={"help": "Feed-forward block in each attention layer."})
    view_positions: bool = field(default=True, metadata={"help": "Learned position embedding of each view."})
    dropout: float = field(default=0.1, metadata={"help": "Dropout of the head."})
    loss_weights: str | None = field(default=None, metadata={"help": "JSON mapping of loss term to weight."})
    focal_gamma: float = field(default=2.0, metadata={"help": "Focusing exponent of the focal term."})
    focal_alpha: list[str] = field(default_factory=lambda: ["auto"], metadata={"help": "auto, or two class weights."})
    label_smoothing: float = field(default=0.1, metadata={"help": "Share of a target spread over the classes."})
    metadata_fields: list[str] = field(
        default_factory=list, metadata={"help": "Metadata the model reads; auto = what the leak audit passes."}
    )
    allow_leaking_fields: list[str] = field(
        default_factory=list, metadata={"help": "Metadata to read although it gives the label away."}
    )
    text_encoder_id: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Hub id, folder, or embedded:all-minilm-l6-v2; for the field text."},
    )
    extra_evidence: str | None = field(default=None, metadata={"help": "File of recipes/detect.py; null = none."})
    gps_encoder: Literal["capped", "sinusoids", "spherical_harmonics", "wrap"] = field(
        default="capped", metadata={"help": "How a position becomes a vector; sinusoids is the plan's."}
    )
    gps_jitter_km: float = field(default=1.0, metadata={"help": "Deviation by which positions move in training."})
    metadata_dropout: float = field(default=0.5, metadata={"help": "Chance that a field counts as missing."})
    whole_metadata_dropout: float = field(default=0.2, metadata={"help": "Share of rows that lose all metadata."})
    metadata_residual: bool = field(default=True, metadata={"help": "Metadata corrects the embedding; false: plan."})
    mask_size: int = field(default=128, metadata={"help": "Side of the decoded masks, in cells."})
    mask_evidence: bool = field(default=False, metadata={"help": "Decoded masks correct the embedding."})
    # Data
    view_layout: Literal["photo12", "single"] = field(default="photo12", metadata={"help": "Views of a photo."})
    squares: list[str] = field(
        default_factory=lambda: ["center", "right"], metadata={"help": "Two of center, left, right."}
    )
    global_fit: Literal["squash", "letterbox"] = field(
        default="squash", metadata={"help": "How the whole photo becomes a square."}
    )
    view_size: int = field(default=512, metadata={"help": "Side of a view in pixels."})
    dev_share: float = field(default=0.15, metadata={"help": "Share of the train rows held out as dev."})
    selection_share: float = field(default=0.0, metadata={"help": "Share of train that chooses the epoch; 0 = dev."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused from their header."})
    decode_mode: Literal["full", "half"] = field(
        default="full", metadata={"help": "half: JPEGs at half their size where every view is still filled."}
    )
    resize_backend: Literal["torch", "pillow"] = field(
        default="torch", metadata={"help": "What resizes the views; pillow is the slow reference."}
    )
    verify_images: bool = field(default=False, metadata={"help": "Decode every photo once and drop damaged ones."})
    consistency_filter: bool = field(
        default=False, metadata={"help": "Drop rows whose description contradicts the label."}
    )
    near_duplicates: bool = field(default=True, metadata={"help": "Photos of almost the same picture are one group."})
    split_seed: int | None = field(default=None, metadata={"help": "Seed of the dev rows; null = seed."})
    split_manifest: str | None = field(default=None, metadata={"help": "Checked where it is there, else written."})
    groups_file: str | None = field(default=None, metadata={"help": "groups.csv of an audit; joins more rows."})
    augmentation: str = field(default="none", metadata={"help": "Preset for train views: none, light, heavy ..."})
    augment_per_view: bool = field(
        default=False, metadata={"help": "Draw everything for each view, as the plan does."}
    )
    feature_cache: str = field(default="off", metadata={"help": "off, auto, or a folder."})
    feature_draws: int = field(default=0, metadata={"help": "K augmented draws of each train view in the cache."})
    feature_dtype: Literal["float16", "int8"] = field(default="float16", metadata={"help": "How tokens are stored."})
    mask_folder: str | None = field(default=None, metadata={"help": "Folder of masks; for rows that name none."})
    bad_masks: Literal["refuse", "ignore"] = field(default="refuse", metadata={"help": "ignore: they are unknown."})
    depth_folder: str | None = field(default=None, metadata={"help": "Folder of depth maps, one more view each."})
    # Run
    existing_run: Literal["refuse", "resume", "overwrite"] = field(
        default="refuse", metadata={"help": "What happens to an earlier run in output_dir."}
    )
    score_test: bool = field(default=True, metadata={"help": "Score an imagefolder's own test; never a lockbox."})
    baselines: bool = field(default=True, metadata={"help": "Score the baselines on the same tokens."})
    include_backbone: bool | None = field(default=None, metadata={"help": "Backbone weights in the final model."})
    dry_run: bool = field(default=False, metadata={"help": "Config, data, one step and an estimate; trains nothing."})

    def __post_init__(self) -> None:
        """Turn text into values and check what no other part checks.

        Raises:
            ValueError: If a field cannot be read; the message names it and its value.
        """
        super().__post_init__()
        self.loss_weights = _loss_weights(self.loss_weights)
        self.focal_alpha = _focal_alpha(self.focal_alpha)
        if not 0.0 < self.dev_share < 1.0:
            raise ValueError(f"dev_share={self.dev_share!r} must lie between 0 and 1")
        if not 0.0 <= self.selection_share < 1.0:
            raise ValueError(f"selection_share={self.selection_share!r} must lie in [0, 1); 0 = dev chooses the epoch")
        self.feature_cache = {"false": "off", "true": "auto"}.get(self.feature_cache.lower(), self.feature_cache)
        self.check_dark()
        self._check_augmentation()

    def _check_augmentation(self) -> None:
        check_preset(self.augmentation)
        if self.feature_draws < 0:
            raise ValueError(f"feature_draws={self.feature_draws!r} must be 0 (clean views only) or more")
        if self.feature_draws and self.augmentation in VALIDATOR_REGIMES:
            raise ValueError(
                f"augmentation={self.augmentation!r} acts on the photo before its views are cut, which draws of views "
                "cannot keep; train on it live, with feature_cache off and feature_draws 0"
            )
        if self.augmentation != "none" and self.feature_cache != "off" and not self.feature_draws:
            raise ValueError(
                f"augmentation={self.augmentation!r} does nothing with feature_cache={self.feature_cache!r} and no draws "
                "in it; set feature_draws, to 4 say, or feature_cache off"
            )


def _loss_weights(value: str | dict[str, float] | None) -> dict[str, float] | None:
    if value is None or isinstance(value, dict):
        return value
    try:
        weights = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f'loss_weights={value!r} is no JSON such as {{"focal": 0.4}}: {error}') from None
    if not isinstance(weights, dict) or not all(isinstance(weight, int | float) for weight in weights.values()):
        raise ValueError(f"loss_weights={value!r} must map names of loss terms to numbers")
    return {name: float(weight) for name, weight in weights.items()}


def _focal_alpha(values: list[str] | str) -> list[float] | Literal["auto"]:
    values = [values] if isinstance(values, str) else list(values)
    if values == ["auto"]:
        return "auto"
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(numbers) != 2:
        raise ValueError(f"focal_alpha={values!r} must be auto, or two numbers: the weights of None and Roadwork")
    return numbers

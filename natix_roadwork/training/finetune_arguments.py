"""Settings of fold adapters: what `recipes/finetune_folds.py` may be told besides how to train.

`finetune_inputs.py` turns them into a base, rows and folds, `finetuning.py` trains by them.
"""

from dataclasses import dataclass, field
from typing import Literal

from natix_roadwork.training.adapters import AUTO, KINDS, PLAN_TREE, AdapterSettings
from natix_roadwork.training.dark_rows import DarkArguments


@dataclass
class FinetuneArguments(DarkArguments):
    """What is adapted, to which rows, and how.

    Whatever decides which rows lie in which split, or how photos become tokens, is the base's own: it is read from the
    `result.json` beside the base and from its image processor.

    Attributes:
        base_model: Folder or Hub id of a model of `recipes/pretrain.py`.
        dataset_name: The base's data set, where it lies now; None = where the base found it.
        backbone_id: Where the weights of the base's backbone are, if the base was saved without them and names no Hub id.
        fold_target: `dev`, `test` (an imagefolder's own), or the name of another data set, all of whose rows are the
            target. Adapting to anything but dev is transductive: the result says that it is not comparable.
        use_lockbox: Whether a lockbox may be the target, labels and all.
        num_folds: K; each row is held out once, whole groups on one side.
        selection_share: Share of a fold's other rows that chooses the epoch; the held-out rows never choose anything.
        adapter: dora, lora, rslora, adalora, vera, ia3 or qlora; `auto` = the first of dora, vera, ia3 within
            `parameter_budget`; `plan_tree` = by the size of the model, as planned.
        adapter_rank: r; VeRA's is 16 times as high.
        adapter_dropout: Dropout of an adapter's input.
        backbone_blocks: Last backbone blocks whose attention is adapted too; photos are read in every step then.
        train_classifier: Train the classifier in full too, saved with each adapter.
        parameter_budget: Most trainable parameters of a fold under `adapter: auto`.
        dropout: Dropout of the base's head while it is fine-tuned.
        min_weight_change: Smallest norm of the change over the norm of the adapted weights; less is an error, since such
            an adapter is its base. 0 = no error, the result says it in words.
        augmentation: Preset by which the views of the fit rows are changed, live or in the cache's draws.
        augment_per_view: As in the training recipe, and so are the next three keys.
        mask_folder: Masks of the target rows for a base with a mask term, as in the training recipe; None = the base's own
            folder for one of its splits, else none.
        bad_masks: What their bad masks do, as in the training recipe; None = as for the base.
        depth_folder: Depth maps of the target rows for a base with a depth view, likewise.
        extra_evidence: File of figures of the target rows for a base that reads such, likewise.
        existing_run: What happens to an earlier run in `output_dir`: `refuse` = an error, `resume` = its finished folds
            stay and the rest is done, `overwrite` = it is deleted.
    """

    base_model: str = field(metadata={"help": "Folder or Hub id of a trained model."})
    dataset_name: str | None = field(default=None, metadata={"help": "Null: the data set the base was trained on."})
    backbone_id: str | None = field(default=None, metadata={"help": "Where the base's backbone lies."})
    # Folds
    fold_target: str = field(default="dev", metadata={"help": "dev, test, or the name of a data set."})
    use_lockbox: bool = field(default=False, metadata={"help": "Whether a lockbox may be the target."})
    num_folds: int = field(default=5, metadata={"help": "Folds by whole groups."})
    selection_share: float = field(default=0.2, metadata={"help": "Share of the other rows that chooses the epoch."})
    # Adapter
    adapter: Literal["dora", "lora", "rslora", "adalora", "vera", "ia3", "qlora", "auto", "plan_tree"] = field(
        default="dora", metadata={"help": "Kind of adapter."}
    )
    adapter_rank: int = field(default=16, metadata={"help": "r of the low-rank kinds."})
    adapter_alpha: int = field(default=32, metadata={"help": "Updates are multiplied by alpha / r."})
    adapter_dropout: float = field(default=0.1, metadata={"help": "Dropout of an adapter's input."})
    backbone_blocks: int = field(default=0, metadata={"help": "Last backbone blocks to adapt; trains on photos."})
    train_classifier: bool = field(default=False, metadata={"help": "Train and save the classifier too."})
    parameter_budget: int = field(default=1_000_000, metadata={"help": "auto: most trainable parameters."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout of the base's head in the fine-tuning."})
    min_weight_change: float = field(default=1e-3, metadata={"help": "Smallest relative change; 0 = any."})
    # Data
    augmentation: str = field(default="none", metadata={"help": "Preset for the fit rows: none, light, heavy ..."})
    augment_per_view: bool = field(default=False, metadata={"help": "Draw everything for each view."})
    feature_cache: str = field(default="off", metadata={"help": "off, auto, or a folder."})
    feature_draws: int = field(default=0, metadata={"help": "K augmented draws of each view in the cache."})
    feature_dtype: Literal["float16", "int8"] = field(default="float16", metadata={"help": "How tokens are stored."})
    mask_folder: str | None = field(default=None, metadata={"help": "Masks of the target rows; null: the base's."})
    bad_masks: Literal["refuse", "ignore"] | None = field(default=None, metadata={"help": "Null: as for the base."})
    depth_folder: str | None = field(default=None, metadata={"help": "Depth maps of them; null: the base's."})
    extra_evidence: str | None = field(default=None, metadata={"help": "Figures of them; null: the base's."})
    # Run
    existing_run: Literal["refuse", "resume", "overwrite"] = field(
        default="refuse", metadata={"help": "What happens to an earlier run in output_dir."}
    )

    def __post_init__(self) -> None:
        """Check what no other part checks.

        Raises:
            ValueError: If a field is out of range; the message names it and its value.
        """
        self.feature_cache = {"false": "off", "true": "auto"}.get(self.feature_cache.lower(), self.feature_cache)
        if not 0.0 < self.selection_share < 1.0:
            raise ValueError(f"selection_share={self.selection_share!r} must lie between 0 and 1")
        for name in ("adapter_dropout", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)!r} must lie in [0, 1)")
        for name, least in (("num_folds", 2), ("adapter_rank", 1), ("backbone_blocks", 0), ("min_weight_change", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least {least}")
        if self.adapter not in (*KINDS, AUTO, PLAN_TREE):
            raise ValueError(
                f"adapter={self.adapter!r} is unknown; choose one of {', '.join((*KINDS, AUTO, PLAN_TREE))}"
            )
        self.check_dark()
        self._check_backbone()

    def _check_backbone(self) -> None:
        if self.backbone_blocks and self.feature_cache != "off":
            raise ValueError(
                f"backbone_blocks={self.backbone_blocks} changes the backbone, and feature_cache={self.feature_cache!r} holds "
                "its tokens as they were; set feature_cache off, which trains on photos, or backbone_blocks 0"
            )
        if self.adapter == "qlora" and not self.backbone_blocks:
            raise ValueError(
                "adapter=qlora keeps the backbone in 4 bits to train adapters inside it, but backbone_blocks is 0; set "
                "backbone_blocks, to 4 say, or adapter lora"
            )

    @property
    def adapter_settings(self) -> AdapterSettings:
        """What the adapters are."""
        return AdapterSettings(
            kind=self.adapter,
            rank=self.adapter_rank,
            alpha=self.adapter_alpha,
            dropout=self.adapter_dropout,
            backbone_blocks=self.backbone_blocks,
            train_classifier=self.train_classifier,
            parameter_budget=self.parameter_budget,
        )

"""Settings of a prediction: what `recipes/predict.py` reads from a recipe's YAML and the command line.

They are a small class of their own instead of `TrainingArguments`, of whose hundred keys prediction would read five and
ignore the others in silence. The keys that both have share their names. `predict.py` and `member.py` read them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState

from natix_roadwork.data.predictions import ORIGINAL
from natix_roadwork.data.sources import SPLITS
from natix_roadwork.inference.tta_transforms import TRANSFORM_NAMES


ROW_KEYS = (
    *("seed", "dev_share", "max_megapixels", "verify_images", "consistency_filter", "near_duplicates"),
    *("split_manifest", "groups_file"),
)


@dataclass
class PredictArguments:
    """What predicts, on which photos.

    Attributes:
        model: Folder or Hub id of a saved `RoadworkForImageClassification` with its image processor.
        adapters: Folder `adapters` of a fold fine-tuning of this model: the answers are the mean of all its folds' models.
            None = the model as it is.
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder. This key and the next ones, `seed`
            among them, decide which rows lie in which split: give those of the training, as `seed` its `split_seed` where
            it has one.
        splits: Which of train, dev and test are predicted, in this order; a lockbox never is.
        member: Name of the model among others, and of its file; None = the name of the model's folder.
        output_dir: Folder of one member's file and `result.json`.
        tta: `off` = the photos as they are; `all` = the sixteen TTA transforms of each too; or their numbers, 0 among them.
            Each is a backbone pass over all views of the photo, from its pixels.
        feature_cache: As in training: `off` = the backbone runs here; `auto` = its tokens are kept in the datasets cache,
            or read from there; any other value = in that folder.
        feature_dtype: How the cache stores tokens, `float16` or `int8`.
        depth_folder: Folder of `recipes/depth_maps.py`, for a model with a depth view; None = it answers without depth.
        text_encoder_id: Encoder of the descriptions, for a model that reads `text`: the one of the training.
        extra_evidence: File of `recipes/detect.py` on these photos, for a model that was trained with one; without it, its
            rows count as missing.
        per_device_eval_batch_size: Photos that go through the head together. It decides the last bits of the answers; the
            number of processes does not.
        bf16: Whether the backbone runs in bfloat16; None: where a GPU has it. The head always runs in float32.
        existing_run: What happens to an earlier run in `output_dir`: `refuse` = an error, `resume` = continue with the parts
            that are missing, `overwrite` = delete it.
    """

    model: str = field(metadata={"help": "Folder or Hub id of a saved model with its image processor."})
    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    adapters: str | None = field(default=None, metadata={"help": "Folder of fold adapters, whose mean answers."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    # Data
    splits: list[str] = field(default_factory=lambda: ["dev"], metadata={"help": "Some of train, dev, test."})
    dev_share: float = field(default=0.15, metadata={"help": "Share of the train rows held out as dev."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused from their header."})
    verify_images: bool = field(default=False, metadata={"help": "Decode every photo once and drop damaged ones."})
    consistency_filter: bool = field(
        default=False, metadata={"help": "Drop rows whose description contradicts the label."}
    )
    near_duplicates: bool = field(default=True, metadata={"help": "Photos of almost the same picture are one group."})
    split_manifest: str | None = field(default=None, metadata={"help": "Checked where it is there, else written."})
    groups_file: str | None = field(default=None, metadata={"help": "groups.csv of an audit; joins more rows."})
    tta: list[str] = field(
        default_factory=lambda: ["off"], metadata={"help": "off, all, or numbers of TTA transforms, 0 among them."}
    )
    text_encoder_id: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Hub id, folder, or embedded:all-minilm-l6-v2; for a model that reads text."},
    )
    depth_folder: str | None = field(default=None, metadata={"help": "Depth maps, for a model with a depth view."})
    extra_evidence: str | None = field(default=None, metadata={"help": "File of recipes/detect.py; null = none."})
    feature_cache: str = field(default="off", metadata={"help": "off, auto, or a folder."})
    feature_dtype: Literal["float16", "int8"] = field(default="float16", metadata={"help": "How tokens are stored."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Processes that decode photos; 0 = this one."})
    # Run
    member: str | None = field(default=None, metadata={"help": "Name of the member and of its file."})
    output_dir: str = field(default="runs/predict", metadata={"help": "Folder of the member's file and result."})
    existing_run: Literal["refuse", "resume", "overwrite"] = field(
        default="refuse", metadata={"help": "What happens to an earlier run in output_dir."}
    )
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Photos that go through the head together."})
    bf16: bool | None = field(default=None, metadata={"help": "The backbone in bfloat16; None: where a GPU has it."})
    use_cpu: bool = field(default=False, metadata={"help": "Predict on the CPU although there is a GPU."})
    seed: int = field(default=42, metadata={"help": "The training's split_seed, else its seed: decides what is dev."})

    def __post_init__(self) -> None:
        """Check the values and name the member.

        Raises:
            ValueError: If a value cannot be used; the message names the key and its value.
        """
        unknown = [name for name in self.splits if name not in SPLITS]
        if unknown or not self.splits or len(set(self.splits)) != len(self.splits):
            wrong = f"{unknown[0]!r} is no split" if unknown else "it is empty or names a split twice"
            raise ValueError(f"splits={self.splits!r}: {wrong}; give some of {list(SPLITS)}, each once")
        if self.per_device_eval_batch_size < 1:
            raise ValueError(f"per_device_eval_batch_size={self.per_device_eval_batch_size!r} must be at least 1")
        self.feature_cache = {"false": "off", "true": "auto"}.get(self.feature_cache.lower(), self.feature_cache)
        if len(self.transforms) > 1 and self.feature_cache != "off":
            raise ValueError(
                f"tta={self.tta!r}: transforms are made of a photo's pixels, which feature_cache={self.feature_cache!r} does "
                "not hold; give --feature_cache off"
            )
        if len(self.transforms) > 1 and self.depth_folder is not None:
            raise ValueError(
                f"depth_folder={self.depth_folder!r}: depth maps do not follow the transforms of tta={self.tta!r}; give --tta off, "
                "or leave depth_folder out"
            )
        if self.member is None:
            self.member = Path(self.model).resolve().name
        if not self.member or self.member.startswith(".") or Path(self.member).name != self.member:
            raise ValueError(f"member={self.member!r} names a file, {self.path.name!r}; give a plain name without /")

    @property
    def transforms(self) -> tuple[int, ...]:
        """Numbers of the TTA transforms to predict, in order, 0 = the photo as it is.

        Raises:
            ValueError: If a number is unknown, stands twice, or 0 is missing.
        """
        words = [str(word).lower() for word in self.tta]
        if words in (["off"], ["all"]):
            return tuple(range(len(TRANSFORM_NAMES))) if words == ["all"] else (ORIGINAL,)
        known = [str(number) for number in range(len(TRANSFORM_NAMES))]
        if any(word not in known for word in words) or len(set(words)) < len(words) or str(ORIGINAL) not in words:
            raise ValueError(
                f"tta={self.tta!r}: give off, all, or numbers from 0 to {len(known) - 1}, each once, with {ORIGINAL} among "
                "them: every aggregation keeps the photo as it is"
            )
        return tuple(sorted(int(word) for word in words))

    @property
    def path(self) -> Path:
        """The member's file."""
        return Path(self.output_dir) / f"{self.member}.arrow"

    def state(self) -> PartialState:
        """Return the processes that share the work, and this one's device."""
        return PartialState(cpu=self.use_cpu)

    def precision(self, device: torch.device) -> torch.dtype:
        """Return the backbone's number format on a device."""
        wanted = device.type == "cuda" and torch.cuda.is_bf16_supported() if self.bf16 is None else self.bf16
        return torch.bfloat16 if wanted else torch.float32

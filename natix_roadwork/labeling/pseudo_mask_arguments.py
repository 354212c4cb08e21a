"""Settings of a pseudo-mask run: what `recipes/pseudo_masks.py` reads from a recipe's YAML and the command line."""

import json
from dataclasses import dataclass, field
from datetime import timedelta

from accelerate import PartialState

from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments
from natix_roadwork.labeling.provider_arguments import MODEL_PROVIDERS, ModelProviderArguments


# The first process to end waits for the last, for which 10 minutes need not be enough.
LONGEST_WAIT = timedelta(days=7)
PROVIDERS = ("scenes", "human", *MODEL_PROVIDERS)


@dataclass
class PseudoMaskArguments(ModelProviderArguments):
    """Who marks which photos, and where the masks go.

    Attributes:
        provider: `scenes` = the drawn scenes' own masks; `human` = COCO annotation files; `sam3`; `text_boxes` = a
            detector that is asked in words; `label_boxes`, `label_masks`, `ultralytics_boxes` = detectors with labels of
            their own. Boxes are filled.
        annotations: Of `human`: COCO files, such as ROADWork's `instances_train_gps_split.json`.
        class_aliases: Of `human`: JSON mapping of a category's name to one of our classes, or to `none` for what is no
            evidence; goes before `coco_files.CATEGORY_KINDS`.
        min_score: Objects below this score are left out, counted.
        min_area: Objects of fewer pixels of the photo as it is stored are left out, counted.
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder. This key and the next ones, `seed`
            among them, decide which rows lie in which split: give those of the training.
        splits: Which of train, dev and test are marked, in this order. Other splits may follow into the same folder.
        allow_lockbox: Whether a lockbox may be among them. Masks are no labels, but human ones nearly tell them.
        output_dir: Folder of the masks, `settings.json`, `failures.jsonl` and `result.json`. A run that finds masks of the
            same settings there goes on; other settings are refused.
        num_workers: Threads of a process that decode photos while the provider works.
    """

    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    provider: str = field(metadata={"help": f"Who marks the photos: {', '.join(PROVIDERS)}."})
    # Provider
    annotations: list[str] = field(default_factory=list, metadata={"help": "human: COCO annotation files."})
    class_aliases: str | None = field(default=None, metadata={"help": "human: JSON mapping of category to class."})
    min_score: float = field(default=0.5, metadata={"help": "Objects below this score are left out."})
    min_area: int = field(default=100, metadata={"help": "Objects of fewer pixels are left out."})
    # Data
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    splits: list[str] = field(default_factory=lambda: ["train", "dev"], metadata={"help": "Some of train, dev, test."})
    allow_lockbox: bool = field(default=False, metadata={"help": "Mark a lockbox, where splits names it."})
    dev_share: float = field(default=0.15, metadata={"help": "Share of the train rows held out as dev."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused from their header."})
    verify_images: bool = field(default=False, metadata={"help": "Decode every photo once and drop damaged ones."})
    consistency_filter: bool = field(default=False, metadata={"help": "Drop contradicting rows, as validators do."})
    near_duplicates: bool = field(default=True, metadata={"help": "Photos of almost the same picture are one group."})
    split_manifest: str | None = field(default=None, metadata={"help": "Checked where it is there, else written."})
    groups_file: str | None = field(default=None, metadata={"help": "groups.csv of an audit; joins more rows."})
    # Run
    output_dir: str = field(default="runs/pseudo_masks", metadata={"help": "Folder of the masks and the result."})
    num_workers: int = field(default=2, metadata={"help": "Threads that decode photos ahead."})
    use_cpu: bool = field(default=False, metadata={"help": "Run on the CPU although there is a GPU."})
    seed: int = field(default=42, metadata={"help": "The training's split_seed, else its seed: decides what is dev."})

    def __post_init__(self) -> None:
        """Check the values before any file is read.

        Raises:
            ValueError: If a value cannot be used; the message names the key and its value.
        """
        if self.provider not in PROVIDERS:
            raise ValueError(f"provider={self.provider!r} must be one of {', '.join(PROVIDERS)}")
        self.check_model_keys(self.provider)
        if not 0.0 <= self.min_score <= 1.0:
            raise ValueError(f"min_score={self.min_score!r} must lie between 0 and 1")
        for name, least in (("min_area", 0), ("num_workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least {least}")
        if self.provider == "human" and not self.annotations:
            raise ValueError("annotations is empty; provider=human needs the COCO annotation files of the photos")
        for name in ("annotations", "class_aliases"):
            if self.provider != "human" and getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r} is for provider=human, not {self.provider}")
        self.aliases  # noqa: B018 - its own checks
        self.rows  # noqa: B018 - likewise

    @property
    def aliases(self) -> dict[str, str]:
        """Category to class, as `class_aliases` says.

        Raises:
            ValueError: If it is no JSON mapping of names to names.
        """
        try:
            found = json.loads(self.class_aliases or "{}")
        except ValueError as error:
            raise ValueError(f"class_aliases={self.class_aliases!r} is no JSON: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(kind, str) for kind in found.values()):
            raise ValueError(f"class_aliases={self.class_aliases!r} must map names of categories to names of classes")
        return found

    @property
    def rows(self) -> PredictArguments:
        """The same rows as the settings of a prediction.

        Raises:
            ValueError: If `splits` cannot be used.
        """
        shared = {
            key: getattr(self, key) for key in (*ROW_KEYS, "dataset_revision", "splits", "output_dir", "use_cpu")
        }
        return PredictArguments(model="none", member="masks", dataset_name=self.dataset_name, **shared)

    def state(self) -> PartialState:
        """Return the processes that share the work, and this one's device."""
        return PartialState(cpu=self.use_cpu, timeout=LONGEST_WAIT)

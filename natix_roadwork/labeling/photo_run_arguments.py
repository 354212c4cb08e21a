"""Settings that every run over the photos of a data set shares: which rows, where the files go, how they are read."""

from dataclasses import dataclass, field
from datetime import timedelta

from accelerate import PartialState

from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments


# The first process to end waits for the last, for which 10 minutes need not be enough.
LONGEST_WAIT = timedelta(days=7)


@dataclass(kw_only=True)
class PhotoRunArguments:
    """Which photos a run makes files of, and where these go.

    Attributes:
        dataset_name: Hub id, folder of parquet shards in NATIX's columns, or imagefolder. This key and the next ones, `seed`
            among them, decide which rows lie in which split: give those of the training.
        splits: Which of train, dev and test are read, in this order. Other splits may follow into the same folder.
        allow_lockbox: Whether a lockbox may be among them. Masks are no labels, but human ones nearly tell them.
        output_dir: Folder of the files, `settings.json`, `failures.jsonl` and `result.json`. A run that finds files of the
            same settings there goes on; other settings are refused.
        num_workers: Threads of a process that decode photos ahead.
    """

    dataset_name: str = field(metadata={"help": "Hub id, folder of parquet shards, or imagefolder."})
    # Data
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    splits: list[str] = field(default_factory=lambda: ["train", "dev"], metadata={"help": "Some of train, dev, test."})
    allow_lockbox: bool = field(default=False, metadata={"help": "Read a lockbox, where splits names it."})
    dev_share: float = field(default=0.15, metadata={"help": "Share of the train rows held out as dev."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused from their header."})
    verify_images: bool = field(default=False, metadata={"help": "Decode every photo once and drop damaged ones."})
    consistency_filter: bool = field(default=False, metadata={"help": "Drop contradicting rows, as validators do."})
    near_duplicates: bool = field(default=True, metadata={"help": "Photos of almost the same picture are one group."})
    split_manifest: str | None = field(default=None, metadata={"help": "Checked where it is there, else written."})
    groups_file: str | None = field(default=None, metadata={"help": "groups.csv of an audit; joins more rows."})
    # Run
    output_dir: str = field(default="runs/photos", metadata={"help": "Folder of the files and the result."})
    num_workers: int = field(default=2, metadata={"help": "Threads that decode photos ahead."})
    use_cpu: bool = field(default=False, metadata={"help": "Run on the CPU although there is a GPU."})
    seed: int = field(default=42, metadata={"help": "The training's split_seed, else its seed: decides what is dev."})

    def check_run_keys(self) -> None:
        """Check the shared keys before any file is read.

        Raises:
            ValueError: If a value cannot be used; the message names the key and its value.
        """
        if self.num_workers < 1:
            raise ValueError(f"num_workers={self.num_workers!r} must be at least 1")
        self.rows  # noqa: B018 - its own checks

    @property
    def rows(self) -> PredictArguments:
        """The same rows as the settings of a prediction.

        Raises:
            ValueError: If `splits` cannot be used.
        """
        shared = {
            key: getattr(self, key) for key in (*ROW_KEYS, "dataset_revision", "splits", "output_dir", "use_cpu")
        }
        return PredictArguments(model="none", member="files", dataset_name=self.dataset_name, **shared)

    def state(self) -> PartialState:
        """Return the processes that share the work, and this one's device."""
        return PartialState(cpu=self.use_cpu, timeout=LONGEST_WAIT)

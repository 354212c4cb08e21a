"""Settings of `recipes/simulate_rewards.py`: whose answers, to which challenges, and how much is simulated."""

from dataclasses import dataclass, field

from natix_roadwork.data.sources import SPLITS
from natix_roadwork.inference.arguments import ROW_KEYS, PredictArguments
from natix_roadwork.inference.reward_simulation import SimulationSettings
from natix_roadwork.subnet.challenge import REGIMES


NOTHING = "none"


@dataclass
class SimulateArguments:
    """Whose reward is simulated, on which rows.

    Attributes:
        predictions: Prediction files of members, each simulated alone, or together with `ensemble`. They speak of the
            photos as they are, so regime and level are no matter.
        ensemble: `ensemble.json` of `recipes/ensemble.py`, which makes one answer of the members in `predictions`.
        model: Folder of a model instead: ours, or any that transformers' image-classification pipeline loads.
        dataset_name: Rows whose validator views the model is asked about. This key and the next ones, `seed` among
            them, decide which rows lie in which split: give those of the training.
        splits: Which of train, dev and test challenges are drawn from; a lockbox never is.
        learned_from: Splits of these rows that taught the model, or `none`, where no record beside the model says so.
        regimes: Ways of making challenges, some of A, B and C.
        synthetic_folder: Imagefolder of generated pictures with `metadata.jsonl`, drawn as half of the challenges in
            regimes A and B and a third in C. None = photos only.
    """

    predictions: list[str] | None = field(default=None, metadata={"help": "Prediction files, one a member."})
    ensemble: str | None = field(default=None, metadata={"help": "ensemble.json that combines the members."})
    model: str | None = field(default=None, metadata={"help": "Folder of a model that answers validator views."})
    # Data
    dataset_name: str | None = field(default=None, metadata={"help": "Rows for the model: Hub id or folder."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub data set."})
    splits: list[str] = field(default_factory=lambda: ["dev"], metadata={"help": "Some of train, dev, test."})
    learned_from: list[str] | None = field(default=None, metadata={"help": "Splits that taught the model, or none."})
    synthetic_folder: str | None = field(default=None, metadata={"help": "Imagefolder of generated pictures."})
    dev_share: float = field(default=0.15, metadata={"help": "As in the training."})
    max_megapixels: float = field(default=80.0, metadata={"help": "Larger photos are refused from their header."})
    verify_images: bool = field(default=False, metadata={"help": "Decode every photo once and drop damaged ones."})
    consistency_filter: bool = field(default=False, metadata={"help": "Drop contradicting rows, as validators do."})
    near_duplicates: bool = field(default=True, metadata={"help": "Photos of almost the same picture are one group."})
    split_manifest: str | None = field(default=None, metadata={"help": "Checked where it is there, else written."})
    groups_file: str | None = field(default=None, metadata={"help": "groups.csv of an audit; joins more rows."})
    # Simulation
    regimes: list[str] = field(default_factory=lambda: list(REGIMES), metadata={"help": "Some of A, B, C."})
    num_challenges: int = field(default=500, metadata={"help": "Of a sequence; the first 100 are not scored."})
    num_sequences: int = field(default=1000, metadata={"help": "Sequences drawn from the rows as they are."})
    num_samples: int = field(default=200, metadata={"help": "Bootstrap samples of the rows."})
    output_dir: str = field(default="runs/simulate_rewards", metadata={"help": "Folder of result.json."})
    seed: int = field(default=42, metadata={"help": "That of the training: it decides which rows are dev."})
    use_cpu: bool = field(default=False, metadata={"help": "Ask the model on the CPU although there is a GPU."})

    def __post_init__(self) -> None:
        """Check the values before any file is read.

        Raises:
            ValueError: If keys exclude each other, or a value cannot be used.
        """
        if bool(self.predictions) == bool(self.model):
            raise ValueError(
                f"predictions={self.predictions!r}, model={self.model!r}; give prediction files or a model's folder, one of both"
            )
        if self.ensemble and not self.predictions:
            raise ValueError(f"ensemble={self.ensemble!r} combines members; give their files as predictions")
        if self.model and not self.dataset_name:
            raise ValueError("dataset_name is missing; name the rows that the model is asked about")
        for key in ("dataset_name", "learned_from", "synthetic_folder"):
            if self.predictions and getattr(self, key):
                raise ValueError(
                    f"{key}={getattr(self, key)!r} needs model: prediction files hold their own rows and answers"
                )
        unknown = [name for name in self.regimes if name not in REGIMES]
        if unknown or not self.regimes or len(set(self.regimes)) < len(self.regimes):
            raise ValueError(f"regimes={self.regimes!r}; give some of {list(REGIMES)}, each once")
        known = {(NOTHING,), *((name,) for name in SPLITS)}
        taught = self.learned_from or []
        if any((name,) not in known for name in taught) or (NOTHING in taught and len(taught) > 1):
            raise ValueError(f"learned_from={taught!r}; give some of {list(SPLITS)}, or {NOTHING!r} alone")
        self.simulation  # noqa: B018 - its own checks

    @property
    def simulation(self) -> SimulationSettings:
        """How much is simulated."""
        return SimulationSettings(self.num_challenges, self.num_sequences, self.num_samples, self.seed)

    @property
    def rows(self) -> PredictArguments:
        """The same rows as the settings of a prediction."""
        shared = {
            key: getattr(self, key) for key in (*ROW_KEYS, "dataset_revision", "splits", "output_dir", "use_cpu")
        }
        return PredictArguments(model=str(self.model), dataset_name=str(self.dataset_name), **shared)

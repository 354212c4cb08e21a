"""Settings of a pseudo-mask run: what `recipes/pseudo_masks.py` reads from a recipe's YAML and the command line."""

import json
from dataclasses import dataclass, field

from natix_roadwork.labeling.photo_run_arguments import PhotoRunArguments
from natix_roadwork.labeling.provider_arguments import MODEL_PROVIDERS, ModelProviderArguments


PROVIDERS = ("scenes", "human", *MODEL_PROVIDERS)


@dataclass(kw_only=True)
class PseudoMaskArguments(ModelProviderArguments, PhotoRunArguments):
    """Who marks which photos, and where the masks go; the rows and the folder are `PhotoRunArguments`.

    Attributes:
        provider: `scenes` = the drawn scenes' own masks; `human` = COCO annotation files; `sam3`; `text_boxes` = a
            detector that is asked in words; `label_boxes`, `label_masks`, `ultralytics_boxes` = detectors with labels of
            their own. Boxes are filled.
        annotations: Of `human`: COCO files, such as ROADWork's `instances_train_gps_split.json`.
        class_aliases: Of `human`: JSON mapping of a category's name to one of our classes, or to `none` for what is no
            evidence; goes before `coco_files.CATEGORY_KINDS`.
        min_score: Objects below this score are left out, counted.
        min_area: Objects of fewer pixels of the photo as it is stored are left out, counted.
    """

    provider: str = field(metadata={"help": f"Who marks the photos: {', '.join(PROVIDERS)}."})
    # Provider
    annotations: list[str] = field(default_factory=list, metadata={"help": "human: COCO annotation files."})
    class_aliases: str | None = field(default=None, metadata={"help": "human: JSON mapping of category to class."})
    min_score: float = field(default=0.5, metadata={"help": "Objects below this score are left out."})
    min_area: int = field(default=100, metadata={"help": "Objects of fewer pixels are left out."})
    # Run
    output_dir: str = field(default="runs/pseudo_masks", metadata={"help": "Folder of the masks and the result."})

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
        if self.min_area < 0:
            raise ValueError(f"min_area={self.min_area!r} must be at least 0")
        if self.provider == "human" and not self.annotations:
            raise ValueError("annotations is empty; provider=human needs the COCO annotation files of the photos")
        for name in ("annotations", "class_aliases"):
            if self.provider != "human" and getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r} is for provider=human, not {self.provider}")
        self.aliases  # noqa: B018 - its own checks
        self.check_run_keys()

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

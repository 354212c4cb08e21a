"""Settings of a depth map run: what `recipes/depth_maps.py` reads from a recipe's YAML and the command line."""

from dataclasses import dataclass, field

from natix_roadwork.labeling.depth_model import PREDICTS
from natix_roadwork.labeling.photo_run_arguments import PhotoRunArguments
from natix_roadwork.labeling.pretrained import check_dtype


@dataclass(kw_only=True)
class DepthMapArguments(PhotoRunArguments):
    """Which model says how near things are, and where the maps go; the rows and the folder are `PhotoRunArguments`.

    Attributes:
        model: Hub id or folder of a model that `AutoModelForDepthEstimation` loads.
        model_revision: Its branch, tag or commit on the Hub.
        predicts: What the model gives: `nearness` (relative inverse depth), `distance` (metres or relative), or `auto` = what
            a Depth Anything's config says.
        longer_side: Of a map, in pixels. Depth is smooth, and the view that shows it has no more.
        dtype: Arithmetic, `float32` or `bfloat16`.
    """

    # Model
    model: str = field(
        default="depth-anything/Depth-Anything-V2-Small-hf", metadata={"help": "Hub id or folder of a depth model."}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Its branch, tag or commit on the Hub."})
    predicts: str = field(default="auto", metadata={"help": f"What it gives: {', '.join(PREDICTS)}."})
    longer_side: int = field(default=518, metadata={"help": "Longer side of a map in pixels."})
    dtype: str = field(default="float32", metadata={"help": "float32 or bfloat16."})
    # Run
    output_dir: str = field(default="runs/depth_maps", metadata={"help": "Folder of the maps and the result."})

    def __post_init__(self) -> None:
        """Check the values before any file is read.

        Raises:
            ValueError: If a value cannot be used; the message names the key and its value.
        """
        if self.predicts not in PREDICTS:
            raise ValueError(f"predicts={self.predicts!r} must be one of {', '.join(PREDICTS)}")
        if not 16 <= self.longer_side <= 4096:
            raise ValueError(f"longer_side={self.longer_side!r} must lie between 16 and 4096 pixels")
        check_dtype(self.dtype)
        self.check_run_keys()

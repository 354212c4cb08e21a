"""Recipe keys of GPS sampling, shared by the recipes that train and the one that reports.

`gps/gate.py` reads them.
"""

from dataclasses import dataclass, field
from typing import Literal

from natix_roadwork.gps.coordinates import check_bounds
from natix_roadwork.gps.weights import PLAN_BRACKETS, PLAN_FAR_WEIGHT, Brackets


@dataclass(kw_only=True)
class GPSArguments:
    """How train rows are drawn by their distance to the places where the model will be used.

    Attributes:
        gps_sampling: `off` = every row once an epoch; `brackets` = fixed weights by distance, as planned; `solved` = the
            mildest weights under which `gps_target_share` of the draws lie within `gps_within_km` of a target.
        gps_target: `dev`, `test`, or a `.npy` file of coordinates. Labels are never read; coordinates of test photos are
            an adaptation to them (covariate shift), which the result says.
        gps_gate: What happens when the planned check fails: `refuse` = no training, `warn` = a warning, and no weights
            where none can reach the target.
        gps_near_weight: Weight of the nearest bracket, with `brackets`.
        gps_far_weight: Weight beyond the last bracket, with `brackets`.
        gps_bounds: Smallest and largest latitude, smallest and largest longitude that are accepted; empty = any.
    """

    gps_sampling: Literal["off", "brackets", "solved"] = field(
        default="off", metadata={"help": "How train rows are drawn by their distance to the targets."}
    )
    gps_target: str = field(default="dev", metadata={"help": "dev, test, or a .npy file of coordinates."})
    gps_gate: Literal["refuse", "warn"] = field(default="warn", metadata={"help": "When the planned check fails."})
    gps_near_weight: float = field(default=PLAN_BRACKETS[0][1], metadata={"help": "brackets: weight below 50 km."})
    gps_far_weight: float = field(default=PLAN_FAR_WEIGHT, metadata={"help": "brackets: weight beyond 500 km."})
    gps_within_km: float = field(default=50.0, metadata={"help": "solved: what counts as near, in km."})
    gps_target_share: float = field(default=0.7, metadata={"help": "solved: smallest share of near draws."})
    gps_min_effective_share: float = field(default=0.5, metadata={"help": "Effective sample size as a share of rows."})
    gps_bounds: list[float] = field(default_factory=list, metadata={"help": "south north west east, in degrees."})

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If a value is out of range; the message names the key.
        """
        for name in ("gps_near_weight", "gps_far_weight", "gps_within_km"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")
        if not 0 < self.gps_target_share < 1:
            raise ValueError(f"gps_target_share={self.gps_target_share!r} must lie between 0 and 1")
        if not 0 < self.gps_min_effective_share <= 1:
            raise ValueError(f"gps_min_effective_share={self.gps_min_effective_share!r} must be above 0 and at most 1")
        if self.gps_target not in ("dev", "test") and not self.gps_target.endswith(".npy"):
            raise ValueError(f"gps_target={self.gps_target!r} must be dev, test, or a .npy file of coordinates")
        if self.gps_bounds:
            check_bounds(self.gps_bounds)

    @property
    def brackets(self) -> Brackets:
        """The planned brackets with this near weight."""
        return ((PLAN_BRACKETS[0][0], self.gps_near_weight), *PLAN_BRACKETS[1:])

"""Settings of an ablation: what `recipes/ablate.py` takes besides the keys of pretraining.

`ablation.py` reads them.
"""

import json
from dataclasses import dataclass, field


# Recipes whose components are measured elsewhere, by the key under which their result is given.
ELSEWHERE = ("adapters", "ensemble", "masks", "tta")


@dataclass
class AblationArguments:
    """Which rows of the ablation are measured, and how often.

    Attributes:
        num_folds: Grouped stratified folds; every photo is scored by a head that never saw its group.
        num_seeds: Trainings of each row, with the seeds `seed`, `seed + 1` ...; their spread widens the intervals.
        rows: Names of rows to measure; what they are compared with is measured too. Empty = all.
        skip_pixel_rows: Leave out, by name, the rows whose tokens need another pass of the backbone over all photos.
        more_results: JSON mapping of adapters, ensemble, masks or tta to the `result.json` of that recipe, whose
            figure the table takes.
    """

    num_folds: int = field(default=5, metadata={"help": "Grouped folds."})
    num_seeds: int = field(default=1, metadata={"help": "Trainings of each row."})
    rows: list[str] = field(default_factory=list, metadata={"help": "Rows to measure; empty = all."})
    skip_pixel_rows: bool = field(default=False, metadata={"help": "Leave out rows that need other views of photos."})
    more_results: str | None = field(default=None, metadata={"help": "JSON mapping of a recipe to its result.json."})

    def __post_init__(self) -> None:
        """Turn text into values and check the ranges.

        Raises:
            ValueError: If a value cannot be used; the message names the key.
        """
        if self.num_seeds < 1:
            raise ValueError(f"num_seeds={self.num_seeds!r} must be at least 1")
        self.more_results = _results(self.more_results)


def _results(value: str | dict[str, str] | None) -> dict[str, str]:
    if value is None or isinstance(value, dict):
        paths = value or {}
    else:
        try:
            paths = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(
                f'more_results={value!r} is no JSON such as {{"tta": "runs/tta/result.json"}}: {error}'
            ) from None
    if not isinstance(paths, dict) or not all(isinstance(path, str) for path in paths.values()):
        raise ValueError(f"more_results={value!r} must map names of recipes to the paths of their result.json")
    if unknown := sorted(paths.keys() - set(ELSEWHERE)):
        raise ValueError(f"more_results names {unknown}; it takes {', '.join(ELSEWHERE)}")
    return paths

"""What to try next, derived from the slices that stand out: hypotheses with the figures behind them, never findings.

In come tested slices, the test of calibration and the settings of the run; out go suggestions, each with the recipe keys that
would test it and that the run does not have already. A slice that is not worse after adjustment for the number of tests
suggests nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from natix_roadwork.inference.curves import CalibrationTest
from natix_roadwork.inference.row_slices import DARK, DIM, LARGEST, NOT_GIVEN, SIZES
from natix_roadwork.inference.slice_scores import SliceScore
from natix_roadwork.training.arguments import PretrainArguments


LEVEL = 0.05
PRETRAIN, CALIBRATE = "recipes/pretrain.py", "recipes/calibrate.py"
AS_STRONG = ("heavy", "x1.5", "plan")  # presets that change no less than the one that is suggested
DRAWS = 4
FINE_GRID = 7
PATCHES = (14, 16)  # of ViT backbones; a view is a whole number of them
SMOOTHER, MORE_DROPOUT = 0.2, 0.3
DARK_DAYTIMES = ("night", "dusk", "dawn")
BAD_WEATHER = ("rainy", "foggy", "snowy", "overcast", "cloudy")
SMALL = tuple(name for _, name in SIZES[:2])
LARGE = (SIZES[-1][1], LARGEST)
DEFAULTS = {field.name: field.default for field in fields(PretrainArguments) if field.default is not MISSING}


@dataclass(frozen=True)
class Suggestion:
    """One thing to try.

    Attributes:
        hypothesis: What may be the reason.
        figures: The figures that led to it.
        keys: Keys for the recipe; with `recipes/pretrain.py`, the same run without them is what to compare with.
        recipe: The recipe they are of.
    """

    hypothesis: str
    figures: str
    keys: str
    recipe: str = PRETRAIN


def stands_out(score: SliceScore) -> bool:
    """Whether a slice has more errors than the rest, after adjustment for the number of tests."""
    return score.adjusted_p is not None and score.adjusted_p <= LEVEL and (score.excess.value or 0.0) > 0


def suggest(
    scores: Sequence[SliceScore],
    calibration: CalibrationTest,
    calibration_p: float | None,
    temperature: float,
    config: Mapping[str, Any] | None = None,
) -> tuple[list[Suggestion], list[SliceScore]]:
    """Derive what to try.

    Args:
        scores: All slices, tested and adjusted.
        calibration: Test of the probabilities.
        calibration_p: Its p-value, adjusted with those of the slices.
        temperature: What the margins would have to be divided by.
        config: Settings of the run; those that are missing count as the recipe's defaults, and without a run all do.

    Returns:
        The suggestions, and the slices that stand out without any recipe key that answers to them and is not set already.
    """
    settings = {**DEFAULTS, "metadata_fields": [], **(config or {})}
    suggestions: dict[tuple[str, str], Suggestion] = {}
    unanswered = []
    worse = [score for score in scores if stands_out(score)]
    for score in sorted(worse, key=lambda score: (score.adjusted_p or 0.0, -(score.excess.value or 0.0))):
        reason, changes = _for_slice(score, settings)
        keys = _keys(changes, settings)
        if not keys:
            unanswered.append(score)
        else:  # several slices may speak for one reason
            figures = _figures(score)
            if (reason, keys) in suggestions:
                figures = f"{suggestions[reason, keys].figures}; {figures}"
            suggestions[reason, keys] = Suggestion(reason, figures, keys)
    answers = list(suggestions.values())
    if calibration_p is not None and calibration_p <= LEVEL:
        answers += _for_calibration(calibration, calibration_p, temperature, settings)
    return answers, unanswered


def other_view_size(size: int, larger: bool) -> int | None:
    """Return a view size a quarter smaller or larger, or next to that: whole patches of every backbone that fits `size`.

    Args:
        size: Side of the run's views in pixels.
        larger: Whether it shall be larger.

    Returns:
        The size in pixels; None where there is none.
    """
    fitting = [patch for patch in PATCHES if size % patch == 0]
    unit = math.lcm(*fitting) if fitting else size
    found = unit * (math.ceil(1.25 * size / unit) if larger else math.floor(0.75 * size / unit))
    return found or None


def _for_slice(score: SliceScore, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name what may be the reason, and the settings that would test it; none where no key answers."""
    dark = score.value in (DARK, DIM) or score.value in DARK_DAYTIMES
    if score.dimension in ("brightness", "daytime") and dark:
        reason = "The train photos hold too few dark scenes; stronger changes of brightness and contrast may stand in."
        return reason, _augment(settings)
    if score.dimension == "weather" and score.value in BAD_WEATHER:
        reason = "The train photos hold too little of this weather; drawn rain, fog and shadow may stand in."
        return reason, _augment(settings)
    if score.dimension in ("GPS region", "city") and score.value != NOT_GIVEN:
        reason = "The train photos lie too far from this place; drawing near ones more often may help."
        return reason, {"gps_sampling": "solved", "gps_target": "dev"}
    size = settings["view_size"]
    if score.dimension == "photo size" and score.value in SMALL:
        reason = f"Views of small photos are enlarged beyond what the photo holds; views below {size} pixels may fit better."
        return reason, {"view_size": other_view_size(size, larger=False)}
    if score.dimension == "photo size" and score.value in LARGE:
        if settings["evidence_grid"] < FINE_GRID:
            reason = "Evidence in large photos is few pixels wide in a view; more tokens a view may keep it."
            return reason, {"evidence_grid": FINE_GRID}
        reason = f"Evidence in large photos is few pixels wide in a view; views above {size} pixels may keep it."
        return reason, {"view_size": other_view_size(size, larger=True)}
    if score.dimension == "scene" and score.value != NOT_GIVEN and "scene" not in settings["metadata_fields"]:
        reason = "The same object means something else in this surrounding; a model that knows the scene may tell."
        others = [name for name in settings["metadata_fields"] if name != "auto"]
        return reason, {"metadata_fields": [*others, "scene"]}
    return "", {}


def _augment(settings: Mapping[str, Any]) -> dict[str, Any]:
    if settings["augmentation"] in AS_STRONG:
        return {}
    if settings["feature_cache"] == "off":
        return {"augmentation": "heavy"}  # acts on the photos themselves
    return {"augmentation": "heavy", "feature_draws": settings["feature_draws"] or DRAWS}


def _for_calibration(
    calibration: CalibrationTest, adjusted_p: float, temperature: float, settings: Mapping[str, Any]
) -> list[Suggestion]:
    """Name the settings that push probabilities the way they are off, and the recipe that mends them without training."""
    figures = (
        f"mean probability minus share of roadwork {calibration.bias:+.3f}, best temperature {temperature:.2f}, "
        f"adjusted p {format_p(adjusted_p)}"
    )
    if temperature < 1:
        reason = "The probabilities are too near to .5: the focal term and label smoothing hold them back."
        changes = {"focal_gamma": 0, "label_smoothing": 0}
    else:
        reason = "The probabilities are too sure: more label smoothing and dropout may hold them back."
        wanted = {"label_smoothing": SMOOTHER, "dropout": MORE_DROPOUT}
        changes = {name: value for name, value in wanted.items() if settings[name] < value}
    keys = _keys(changes, settings)
    mended = "A line of the margin, fitted on held-out rows, makes the probabilities shares, without training anew."
    return [
        *([Suggestion(reason, figures, keys)] if keys else []),
        Suggestion(mended, figures, "--method platt", CALIBRATE),
    ]


def _keys(changes: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Write settings as a command line has them, without those that the run has already."""
    words = []
    for name, value in changes.items():
        if value is not None and value != settings[name]:
            words.append(f"--{name} {' '.join(value) if isinstance(value, list) else value}")
    return " ".join(words)


def _figures(score: SliceScore) -> str:
    excess = score.excess
    interval = "" if excess.low is None else f" [{100 * excess.low:+.1f}, {100 * excess.high:+.1f}]"
    return (
        f"{score.dimension} {score.value!r}: {100 * excess.value:+.1f} points of error rate{interval} against the other "
        f"rows, {score.num_rows} rows in {score.num_groups} groups, adjusted p {format_p(score.adjusted_p)}"
    )


def format_p(value: float | None) -> str:
    """Write a p-value for a reader."""
    return "" if value is None else "below .001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"

"""What to try next, derived from the slices that stand out: hypotheses with the figures behind them, never findings.

In come tested slices and the test of calibration; out go suggestions, each with the recipe keys that would test it. A slice
that is not worse after adjustment for the number of tests suggests nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from natix_roadwork.inference.curves import CalibrationTest
from natix_roadwork.inference.row_slices import DARK, DIM, LARGEST, NOT_GIVEN, SIZES
from natix_roadwork.inference.slice_scores import SliceScore


LEVEL = 0.05
AUGMENT = "--augmentation heavy --feature_cache auto --feature_draws 4"
DARK_DAYTIMES = ("night", "dusk", "dawn")
BAD_WEATHER = ("rainy", "foggy", "snowy", "overcast", "cloudy")
SMALL = tuple(name for _, name in SIZES[:2])
LARGE = (SIZES[-1][1], LARGEST)


@dataclass(frozen=True)
class Suggestion:
    """One thing to try.

    Attributes:
        hypothesis: What may be the reason.
        figures: The figures that led to it.
        keys: Keys for the training recipe; the same run without them is what to compare with.
    """

    hypothesis: str
    figures: str
    keys: str


def stands_out(score: SliceScore) -> bool:
    """Whether a slice has more errors than the rest, after adjustment for the number of tests."""
    return score.adjusted_p is not None and score.adjusted_p <= LEVEL and (score.excess.value or 0.0) > 0


def suggest(
    scores: Sequence[SliceScore], calibration: CalibrationTest, calibration_p: float | None, temperature: float
) -> tuple[list[Suggestion], list[SliceScore]]:
    """Derive what to try.

    Args:
        scores: All slices, tested and adjusted.
        calibration: Test of the probabilities.
        calibration_p: Its p-value, adjusted with those of the slices.
        temperature: What the margins would have to be divided by.

    Returns:
        The suggestions, and the slices that stand out without any recipe key that answers to them.
    """
    suggestions: dict[tuple[str, str], Suggestion] = {}
    unanswered = []
    worse = [score for score in scores if stands_out(score)]
    for score in sorted(worse, key=lambda score: (score.adjusted_p or 0.0, -(score.excess.value or 0.0))):
        found = _for_slice(score)
        if found is None:
            unanswered.append(score)
        else:  # several slices may speak for one reason
            key = found.hypothesis, found.keys
            figures = f"{suggestions[key].figures}; {found.figures}" if key in suggestions else found.figures
            suggestions[key] = Suggestion(found.hypothesis, figures, found.keys)
    answers = list(suggestions.values())
    if calibration_p is not None and calibration_p <= LEVEL:
        answers.append(_for_calibration(calibration, calibration_p, temperature))
    return answers, unanswered


def _for_slice(score: SliceScore) -> Suggestion | None:
    dark = score.value in (DARK, DIM) or score.value in DARK_DAYTIMES
    if score.dimension in ("brightness", "daytime") and dark:
        reason = "The train photos hold too few dark scenes; stronger changes of brightness and contrast may stand in."
        return Suggestion(reason, _figures(score), AUGMENT)
    if score.dimension == "weather" and score.value in BAD_WEATHER:
        reason = "The train photos hold too little of this weather; drawn rain, fog and shadow may stand in."
        return Suggestion(reason, _figures(score), AUGMENT)
    if score.dimension in ("GPS region", "city") and score.value != NOT_GIVEN:
        reason = "The train photos lie too far from this place; drawing near ones more often may help."
        return Suggestion(reason, _figures(score), "--gps_sampling solved --gps_target dev")
    if score.dimension == "photo size" and score.value in SMALL:
        reason = "Views of small photos are enlarged beyond what the photo holds; smaller views may fit them better."
        return Suggestion(reason, _figures(score), "--view_size 336")
    if score.dimension == "photo size" and score.value in LARGE:
        reason = (
            "Evidence in large photos is few pixels wide after the views are resized; more tokens a view may keep it."
        )
        return Suggestion(reason, _figures(score), "--evidence_grid 7")
    if score.dimension == "scene" and score.value != NOT_GIVEN:
        reason = "The same object means something else in this surrounding; a model that knows the scene may tell."
        return Suggestion(reason, _figures(score), "--metadata_fields scene")
    return None


def _for_calibration(calibration: CalibrationTest, adjusted_p: float, temperature: float) -> Suggestion:
    figures = (
        f"mean probability minus share of roadwork {calibration.bias:+.3f}, best temperature {temperature:.2f}, "
        f"adjusted p {format_p(adjusted_p)}"
    )
    if temperature < 1:
        reason = "The probabilities are too near to .5: the focal term and label smoothing hold them back."
        return Suggestion(reason, figures, "--focal_gamma 0 --label_smoothing 0")
    reason = "The probabilities are too sure: more label smoothing and dropout may hold them back."
    return Suggestion(reason, figures, "--label_smoothing 0.2 --dropout 0.3")


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

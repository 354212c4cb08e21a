"""The quality of masks as one page, in the style of the error report: no network, no script, no other file.

In comes the `MaskQuality` of `mask_quality.py`; out goes the text of the page.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from natix_roadwork.inference.report_charts import AMBER, BLUE, chart_axes, chart_svg
from natix_roadwork.inference.report_page import page_environment
from natix_roadwork.inference.slice_scores import Estimate
from natix_roadwork.labeling.mask_looks import COLOURS, FEW_OBJECTS, MEASURES, RULES, SMALLEST_AREA, USUAL
from natix_roadwork.labeling.mask_pictures import CLASS_COLOURS, GOOD_IOU, HEADINGS
from natix_roadwork.runs import interval_text


if TYPE_CHECKING:
    from natix_roadwork.labeling.mask_quality import MaskQuality


TEMPLATE = "labeling/mask_quality.html.jinja"
MOST_NAMES = 50  # of a problem, on the page
BIN = 0.05  # of the scores' charts


def render(quality: "MaskQuality") -> str:
    """Write the page; every text is escaped, and the same figures give the same page."""
    environment = page_environment()
    environment.filters |= {"percent": format_percent}
    return environment.get_template(TEMPLATE).render(
        data=quality,
        charts={kind: score_chart(kind, *scores) for kind, scores in quality.scores.items()},
        colours={kind: "rgb({}, {}, {})".format(*colour) for kind, colour in CLASS_COLOURS.items()},
        headings=HEADINGS,
        good_iou=GOOD_IOU,
        measures=MEASURES,
        rules=RULES,
        usual=USUAL,
        hues=COLOURS,
        few=FEW_OBJECTS,
        smallest=SMALLEST_AREA,
        most_names=MOST_NAMES,
    )


def format_percent(estimate: Estimate, digits: int = 1) -> str:
    """Write a share in percent with its interval; `undefined` where there is none."""
    return interval_text(
        {name: None if value is None else 100 * value for name, value in asdict(estimate).items()}, digits=digits
    )


def score_chart(kind: str, negatives: list[float], positives: list[float]) -> str:
    """Draw how many objects of a class have which score, on photos without roadwork and with it."""
    figure, axes = chart_axes(250)
    edges = np.arange(0, 1 + BIN / 2, BIN)
    for scores, colour, style in ((positives, BLUE, "-"), (negatives, AMBER, (0, (4, 2)))):
        counts, _ = np.histogram(scores, edges)
        axes.stairs(counts, edges, color=colour, linewidth=2.5, linestyle=style)
    axes.set(xlim=(0, 1.01), xlabel="score", ylabel="objects")
    axes.set_ylim(bottom=0)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=5)
    label = f"Scores of {kind}: {len(positives)} objects on roadwork photos, {len(negatives)} on photos without"
    return chart_svg(figure, f"scores-{kind}", label)

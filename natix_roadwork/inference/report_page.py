"""The error report as one page: HTML that needs no network, no script and no other file.

In comes the `ReportData` of `error_report.py`; out goes the text of the page, which `report_run.py` writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from natix_roadwork.data.natix_columns import LABEL_NAMES
from natix_roadwork.data.view_picture import MIDDLE_GRAY, view_colours
from natix_roadwork.inference import report_charts
from natix_roadwork.inference.error_report import ReportData
from natix_roadwork.inference.report_charts import ErrorMap
from natix_roadwork.inference.slice_scores import MIN_GROUPS, MIN_ROWS, Estimate
from natix_roadwork.inference.suggestions import LEVEL, format_p, stands_out
from natix_roadwork.inference.worst_rows import WorstRow
from natix_roadwork.runs import interval_text


DIGITS = 2  # of figures on the page
TEMPLATE, STYLE = "inference/error_report.html.jinja", "inference/error_report.css"
# Metric: heading, what it is.
HEADLINE = {
    "mcc": ("MCC", "at the share of roadwork in these rows"),
    "accuracy": ("Accuracy", "share of right decisions"),
    "fnr": ("FNR", "share of roadwork that is missed"),
    "auc": ("AUC", "how well the probabilities rank"),
    "ece": ("ECE", "calibration error of the probabilities"),
    "mcc_balanced": ("MCC at 50/50", "as if half of the rows were roadwork"),
}
FONT_SHARE = 0.03  # of the photo's width: 16 pixels where the photo is 540 wide, its smallest size on the page
INSET_SHARE = 0.004
# Where in its box a number stands: a tile's in the middle, the two squares' clear of the tiles' and of each other.
TILE_HEIGHT, SQUARE_HEIGHTS = 0.5, (0.94, 0.06)
LUMINANCE = (0.299, 0.587, 0.114)
GREY, INK, WHITE = "#c9ced3", "#101418", "#ffffff"


@dataclass(frozen=True)
class DrawnView:
    """The box of one view as it is drawn over the photo, in photo pixels; the line's width is in CSS pixels."""

    kept: bool
    x: int
    y: int
    width: int
    height: int
    colour: str
    ink: str
    stroke: float
    text: str
    text_x: int
    text_y: int
    font: int


def render(data: ReportData) -> str:
    """Write the page; every text is escaped, and the same data gives the same page."""
    return (
        page_environment()
        .get_template(TEMPLATE)
        .render(
            data=data,
            ablation=ablation_table(data.ablation),
            headline=HEADLINE,
            boxes=drawn_views,
            one_decision=_one_decision(data.confusion),
            reliability=report_charts.reliability_chart(data.reliability),
            threshold=report_charts.threshold_chart(data.threshold),
            maps=error_maps(data.errors, data.seed) if data.errors else [],
            stands_out=stands_out,
            level=LEVEL,
            min_rows=MIN_ROWS,
            min_groups=MIN_GROUPS,
        )
    )


def page_environment() -> Environment:
    """Make what renders a page: templates by their path in the package, filters for figures, the style as `style`."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("natix_roadwork", "."),
    )
    environment.filters |= {"asdict": asdict, "estimate": partial(interval_text, digits=DIGITS)}
    environment.filters |= {"points": format_points, "p": format_p}
    environment.globals["style"] = files("natix_roadwork").joinpath(STYLE).read_text(encoding="utf-8")
    return environment


def error_maps(errors: ErrorMap, seed: int) -> list[tuple[str, str]]:
    """Draw all rows with coordinates, then each region alone, where there are several; names and SVG text."""
    regions = list(dict.fromkeys(errors.regions.tolist()))
    whole = [("All regions", report_charts.map_chart(errors, "map", seed))]
    parts = []
    for number, region in enumerate(regions if len(regions) > 1 else []):
        here = errors.regions == region
        part = ErrorMap(errors.gps[here], errors.kinds[here], errors.regions[here])
        parts.append((region, report_charts.map_chart(part, f"map{number}", seed)))
    return whole + parts


def drawn_views(row: WorstRow) -> list[DrawnView]:
    """Place the boxes of the views that were not masked and what is written in them, in photo pixels."""
    if row.evidence is None:
        return []
    width, height = row.size
    font = max(1, round(FONT_SHARE * width))
    strongest = max((view.weight for view in row.evidence.views), default=0.0) or 1.0
    colours = view_colours(len(row.evidence.views))
    drawn = []
    for number, view in enumerate(row.evidence.views):
        if view.state == "masked":
            continue
        left, top, right, bottom = view.box
        kept = view.state == "kept"
        inset = round(INSET_SHARE * width * (number % 4))  # so that edges that coincide can be told apart
        share = SQUARE_HEIGHTS[number % 2] if number > 9 else TILE_HEIGHT
        at = (2.6 * font, 0.9 * font) if number == 0 else ((left + right) / 2, top + share * (bottom - top))
        drawn.append(
            DrawnView(
                kept=kept,
                x=left + inset,
                y=top + inset,
                width=max(1, right - left - 2 * inset),
                height=max(1, bottom - top - 2 * inset),
                colour="rgb({}, {}, {})".format(*colours[number]) if kept else GREY,
                ink=INK if not kept or np.dot(colours[number], LUMINANCE) > MIDDLE_GRAY else WHITE,
                stroke=1.5 + 4.5 * view.weight / strongest,
                text=f"{number}: {view.weight:.0%}" if kept else str(number),
                text_x=round(at[0]),
                text_y=round(min(at[1], height - font)),
                font=font,
            )
        )
    return drawn


def format_points(estimate: Estimate) -> str:
    """Write a difference of rates in points of percent with its interval; `undefined` where there is none."""
    points = {name: None if value is None else 100 * value for name, value in asdict(estimate).items()}
    return interval_text(points, "+", digits=1)


def ablation_table(ablation: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Turn the rows of an ablation into text by column."""
    return [
        {
            "Row": row["name"],
            "Component": row["component"],
            "What it is": row["text"],
            "MCC": interval_text(row["mcc"], digits=DIGITS) if row["mcc"] else "",
            "Against": row["against"] or "",
            "The component brings": interval_text(row["difference"], digits=DIGITS) if row["difference"] else "",
            "Verdict": "; ".join(text for text in (row["verdict"], row["note"]) if text),
        }
        for row in ablation
    ]


def _one_decision(confusion: dict[str, int]) -> str | None:
    """Name the decision that all rows got, if they got the same one."""
    if not confusion["tp"] + confusion["fp"]:
        return LABEL_NAMES[0]
    return None if confusion["tn"] + confusion["fn"] else LABEL_NAMES[1]

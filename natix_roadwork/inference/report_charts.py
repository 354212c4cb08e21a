"""Charts of the error report as SVG text to stand inside a page: reliability, MCC over the cut, map of errors.

In come the figures of `curves.py` and coordinates; out goes markup whose colours are the page's own (light or dark) and
whose letters are at least 16 pixels high where the page is as narrow as a phone.
"""

import html
import io
import re
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from natix_roadwork.inference.curves import ReliabilityBin, ThresholdCurve


# Of the SVG's own units, which are CSS pixels at the smallest size the page shows it in.
WIDTH, HEIGHT, FONT = 344, 330, 16
UNITS_PER_INCH = 72  # matplotlib writes SVG in points
# Stand-ins in the drawing for the page's colours, which CSS decides by the reader's colour scheme.
COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--line)",
    "#030303": "var(--blue)",
    "#040404": "var(--red)",
    "#050505": "var(--band)",
    "#060606": "var(--amber)",
    "#070707": "var(--muted)",
}
INK, LINE, BLUE, RED, BAND, AMBER, MUTED = COLOURS
MAP_MARGIN, MIN_SPAN_DEGREES = 1.12, 0.02
MAP_SHAPES = (0.55, 1.2)  # height over width
MAP_BORDER = 64  # for numbers and names of the axes
MOST_RIGHT = 2000  # right decisions drawn on the map; errors are all drawn
KINDS = {  # what it means, marker, colour, size
    "right None": ("o", MUTED, 14),
    "right roadwork": ("o", BLUE, 14),
    "false alarm": ("^", AMBER, 48),
    "missed roadwork": ("X", RED, 60),
}


@dataclass(frozen=True)
class ErrorMap:
    """Rows with coordinates.

    Attributes:
        gps: `(M, 2)` latitude and longitude in degrees.
        kinds: `(M,)` keys of `KINDS`.
        regions: `(M,)` name of the GPS region of each.
    """

    gps: NDArray[np.float64]
    kinds: NDArray[np.str_]
    regions: NDArray[np.str_]


def reliability_chart(bins: list[ReliabilityBin]) -> str:
    """Draw shares of roadwork over probabilities, with intervals; the diagonal is perfect calibration."""
    figure, axes = chart_axes()
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.5)
    probability = [point.probability for point in bins]
    share = np.array([point.share for point in bins])
    spread = np.clip([share - [point.low for point in bins], [point.high for point in bins] - share], 0, None)
    axes.errorbar(
        probability, share, yerr=spread, color=BLUE, marker="o", markersize=6, linewidth=2, elinewidth=1.5, capsize=3
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability of roadwork", ylabel="share of roadwork")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    label = "Share of roadwork over probability: " + ", ".join(
        f"{point.share:.2f} at {point.probability:.2f}" for point in bins
    )
    return chart_svg(figure, "reliability", label)


def threshold_chart(curve: ThresholdCurve) -> str:
    """Draw MCC over the cut, the plateau as a band, and .5 as a line."""
    figure, axes = chart_axes()
    low, high = curve.plateau
    axes.axvspan(low, high, color=BAND, linewidth=0)
    axes.axvline(0.5, color=RED, linewidth=2, linestyle=(0, (5, 3)))
    axes.step([*curve.cuts, 1.0], [*curve.mcc, curve.mcc[-1]], where="post", color=BLUE, linewidth=2)
    bottom = min(0.0, float(curve.mcc.min())) - 0.03
    axes.set(xlim=(0, 1), ylim=(bottom, max(float(curve.mcc.max()) * 1.08, 0.1)), xlabel="cut", ylabel="MCC")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    label = (
        f"MCC over the cut: {curve.at_half:.2f} at .5, at most {curve.best:.2f}; within one standard error of that from "
        f"{low:.2f} to {high:.2f}"
    )
    return chart_svg(figure, "threshold", label)


def map_chart(errors: ErrorMap, name: str = "map", seed: int = 0) -> str:
    """Draw rows where they were taken, by what was decided; the shape of a mark tells as much as its colour.

    Args:
        errors: The rows.
        name: Tells this chart from others on the page.
        seed: Seed of the sample of right decisions, where there are too many to draw.
    """
    low, high = errors.gps.min(axis=0), errors.gps.max(axis=0)
    middle, span = (low + high) / 2, np.maximum((high - low) * MAP_MARGIN, MIN_SPAN_DEGREES)
    # One degree of longitude is as wide as it is on the ground in the middle of the map.
    width = span[1] * max(np.cos(np.radians(middle[0])), 0.2)
    shape = float(np.clip(span[0] / width, *MAP_SHAPES))
    figure, axes = chart_axes(round(MAP_BORDER + shape * (WIDTH - MAP_BORDER)))
    shown = []
    for kind, (marker, colour, size) in KINDS.items():
        rows = np.flatnonzero(errors.kinds == kind)
        if kind.startswith("right") and len(rows) > MOST_RIGHT:
            rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_RIGHT, replace=False))
        points = errors.gps[rows]
        hollow = {"facecolors": "none", "edgecolors": colour, "linewidths": 1.2}
        filled = {"color": colour, "linewidths": 0}
        style = hollow if kind == "right None" else filled
        axes.scatter(points[:, 1], points[:, 0], s=size, marker=marker, **style)
        shown.append(f"{int((errors.kinds == kind).sum())} {kind}")
    span *= np.maximum([shape * width / span[0], span[0] / (shape * width)], 1)
    axes.set_ylim(middle[0] - span[0] / 2, middle[0] + span[0] / 2)
    axes.set_xlim(middle[1] - span[1] / 2, middle[1] + span[1] / 2)
    axes.locator_params(axis="x", nbins=4)
    axes.locator_params(axis="y", nbins=5)
    axes.ticklabel_format(useOffset=False)
    axes.set(xlabel="longitude, degrees", ylabel="latitude, degrees")
    return chart_svg(figure, name, "Rows on a map: " + ", ".join(shown))


def chart_axes(height: int = HEIGHT) -> tuple[Figure, Axes]:
    """Make an empty chart in the page's style, `height` CSS pixels high."""
    figure = Figure(figsize=(WIDTH / UNITS_PER_INCH, height / UNITS_PER_INCH), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=FONT, color=MUTED)
    axes.xaxis.label.set(size=FONT, color=INK)
    axes.yaxis.label.set(size=FONT, color=INK)
    return figure, axes


def chart_svg(figure: Figure, name: str, label: str) -> str:
    """Write a figure as SVG for inside a page; the same figure gives the same text.

    Args:
        figure: Of `chart_axes`.
        name: Tells this chart from others on the page.
        label: What the chart says, for a reader without eyes.
    """
    buffer = io.StringIO()
    # Letters stay letters, in the page's own font; the salt keeps the marks of two charts on one page apart.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": None}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', text))
    # An id is kept where something refers to it, and made the chart's own: a page holds several.
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would speak of the whole page
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    head = f'<svg class="chart" viewBox="0 0 {size[1]} {size[2]}" role="img" aria-label="{html.escape(label)}">'
    return head + text[text.index(">") + 1 :].strip()

"""Shows how train rows are drawn: a table, a map without the network, and the arrays behind them.

In comes a `SamplingPlan`, out go text, `gps_map.png` and `.npy` files in the run's folder.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from natix_roadwork.gps.clusters import EXPECTED_SIZES, NUM_CLUSTERS, TargetCluster, cluster_targets
from natix_roadwork.gps.coordinates import located
from natix_roadwork.gps.gate import SamplingPlan
from natix_roadwork.gps.shares import STRETCH_THRESHOLDS, Shares


MAP_NAME = "gps_map.png"
TRAIN_FILE = "train_gps.npy"
TARGET_FILE = "target_gps.npy"
WEIGHTS_FILE = "gps_weights.npy"
MAX_POINTS = 20_000  # drawn on the map; a seeded sample beyond
MIN_SPAN_DEGREES = 2.0
TRAIN_COLOUR, TARGET_COLOUR, EVEN_COLOUR, GRID_COLOUR = "#2a6f97", "#d1495b", "#8d99ae", "#dfe3e8"
LABEL_RISES = (14, -22, 34, -42, 54, -62, 74, -82)  # points above a region at which its label may stand
LABEL_PADDING = 6  # pixels
COLUMNS = "{:34}{:>12}{:>12}"


def write_report(plan: SamplingPlan, folder: str | Path, num_clusters: int = NUM_CLUSTERS, seed: int = 0) -> str:
    """Write the map and the arrays into a folder, and return the table.

    Args:
        plan: How train rows are drawn.
        folder: The run's folder; it is made.
        num_clusters: Regions of targets to name.
        seed: Seed of the regions and of the points drawn on the map.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clusters = cluster_targets(plan.target_gps, num_clusters, seed)
    np.save(folder / TRAIN_FILE, plan.train_gps)
    np.save(folder / TARGET_FILE, plan.target_gps)
    if plan.weights is not None:
        np.save(folder / WEIGHTS_FILE, plan.weights)
    draw_map(plan, clusters, folder / MAP_NAME, seed)
    return gps_table(plan, clusters)


def gps_table(plan: SamplingPlan, clusters: list[TargetCluster]) -> str:
    """Describe regions, shares and decisions as text."""
    low, high = EXPECTED_SIZES
    lines = [f"{'target region, nearest city':34}{'targets':>12}{'radius km':>12}{'train near':>12}"]
    for cluster in clusters:
        near = np.isin(plan.targets.index, cluster.members) & (plan.targets.km <= 50)
        mark = "" if cluster.has_expected_size else f"   not {low}-{high} as planned"
        lines.append(
            f"{cluster.name:34}{cluster.size:>12}{cluster.radius_km:>12.1f}{np.count_nonzero(near):>12}{mark}"
        )
    plain, drawn = plan.unweighted, plan.check.expected
    lines += ["", COLUMNS.format("distance to the nearest target", "rows", "draws")]
    for km in drawn.within:
        lines.append(COLUMNS.format(f"at most {km:g} km", f"{plain.within[km]:.1%}", f"{drawn.within[km]:.1%}"))
    lines += [
        COLUMNS.format("mean, km", f"{plain.mean_km:.1f}", f"{drawn.mean_km:.1f}"),
        COLUMNS.format("median, km", f"{plain.median_km:.1f}", f"{drawn.median_km:.1f}"),
        COLUMNS.format("without coordinates", f"{plain.missing_share:.1%}", f"{drawn.missing_share:.1%}"),
        COLUMNS.format("effective sample size", "100.0%", f"{plan.check.effective_share:.1%}"),
        COLUMNS.format("rows seen in an epoch", "100.0%", f"{_seen(plan):.1%}"),
    ]
    if plan.positive_share is not None:
        lines.append(COLUMNS.format("label 1", "", f"{plan.positive_share:.1%}"))
    lines += ["", f"planned check: {'; '.join(plan.check.failures) or 'passed'}"]
    lines.append(f"stretch goal: {'; '.join(drawn.failures(STRETCH_THRESHOLDS)) or 'reached'}")
    return "\n".join([*lines, *plan.notes, *(f"warning: {text}" for text in plan.warnings)])


def draw_map(plan: SamplingPlan, clusters: list[TargetCluster], path: str | Path, seed: int = 0) -> None:
    """Draw targets, train rows and named regions on plain axes, and the distances before and after weighting.

    Args:
        plan: How train rows are drawn.
        clusters: Regions to name.
        path: PNG file.
        seed: Seed of the sample of points where there are too many to draw.
    """
    figure = Figure(figsize=(13, 6.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.9, 1))
    _draw_points(left, plan, seed)
    _draw_histogram(right, plan)
    _name_clusters(left, clusters)
    figure.savefig(path)


def _draw_points(axes: Axes, plan: SamplingPlan, seed: int) -> None:
    train, target = _some(plan.train_gps, seed), _some(plan.target_gps, seed)
    rows, targets = np.count_nonzero(located(plan.train_gps)), np.count_nonzero(located(plan.target_gps))
    style = {"linewidths": 0, "rasterized": True}
    axes.scatter(train[:, 1], train[:, 0], s=14, c=TRAIN_COLOUR, alpha=0.35, label=f"{rows:,} train rows", **style)
    axes.scatter(target[:, 1], target[:, 0], s=9, c=TARGET_COLOUR, alpha=0.7, label=f"{targets:,} targets", **style)
    both = np.concatenate([train, target])
    low, high = both.min(axis=0), both.max(axis=0)
    middle, span = (low + high) / 2, np.maximum(high - low, MIN_SPAN_DEGREES) * 1.16
    axes.set_ylim(middle[0] - span[0] / 2, middle[0] + span[0] / 2)
    axes.set_xlim(middle[1] - span[1] / 2, middle[1] + span[1] / 2)
    # One degree of longitude is as wide as it is on the ground in the middle of the map.
    axes.set_aspect(1 / max(np.cos(np.radians(middle[0])), 0.2), adjustable="box")
    axes.set(xlabel="longitude, degrees", ylabel="latitude, degrees")
    axes.set_title("Train rows, targets, and regions of targets (+): nearest city, km to it, number", fontsize=10)
    axes.grid(color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", framealpha=0.9)


def _name_clusters(axes: Axes, clusters: list[TargetCluster]) -> None:
    """Label each region, beside it towards the middle of the map, so that no label leaves it or hides another."""
    box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": TARGET_COLOUR, "alpha": 0.88}
    figure = axes.get_figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # the map's final place, and with it the labels'
    middle = np.mean(axes.get_xlim())
    placed = []
    for cluster in clusters:
        latitude, longitude = cluster.center
        right = longitude > middle
        axes.plot(longitude, latitude, marker="+", markersize=9, markeredgewidth=1.3, color="black")
        label = axes.annotate(
            f"{cluster.name}: {cluster.size}",
            (longitude, latitude),
            xytext=(0, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=9,
            bbox=box,
            arrowprops={"arrowstyle": "-", "color": TARGET_COLOUR},
        )
        for rise in LABEL_RISES:
            label.set_position((-14 if right else 14, rise))
            label.update_positions(renderer)
            extent = Text.get_window_extent(label).padded(LABEL_PADDING)  # of the text, without its arrow
            if axes.bbox.ymin < extent.ymin and extent.ymax < axes.bbox.ymax and not extent.count_overlaps(placed):
                break
        placed.append(extent)


def _draw_histogram(axes: Axes, plan: SamplingPlan) -> None:
    """Share of rows and of draws by distance, one bar pair for each bracket of kilometres."""
    edges = [0.0, 5.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, np.inf]
    names = ["< 5", "5-20", "20-50", "50-100", "100-200", "200-500", "500-1000", "> 1000"]
    known = ~np.isnan(plan.targets.km)
    km = plan.targets.km[known]
    place = np.arange(len(names))
    plain = np.histogram(km, edges)[0] / len(km)
    if plan.weights is None:
        axes.bar(place, plain, width=0.7, color=EVEN_COLOUR, label="every row once an epoch")
    else:
        weights = plan.weights[known]
        axes.bar(place - 0.2, plain, width=0.4, color=EVEN_COLOUR, label="train rows")
        drawn = np.histogram(km, edges, weights=weights)[0] / weights.sum()
        axes.bar(place + 0.2, drawn, width=0.4, color=TRAIN_COLOUR, label=f"draws, {plan.settings.gps_sampling}")
    axes.set_xticks(place, names, rotation=40, ha="right")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set(xlabel="km to the nearest target")
    axes.set_title(f"Draws: {_caption(plan.check.expected)}", fontsize=10)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(framealpha=0.9)


def _caption(shares: Shares) -> str:
    near = f"{shares.within[50.0]:.0%} within 50 km, {shares.within[100.0]:.0%} within 100 km"
    return f"{near}\nmedian {shares.median_km:.0f} km, mean {shares.mean_km:.0f} km"


def _seen(plan: SamplingPlan) -> float:
    return 1.0 if plan.weights is None else plan.check.seen_share


def _some(gps: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """At most `MAX_POINTS` rows that have coordinates."""
    rows = np.flatnonzero(located(gps))
    if len(rows) > MAX_POINTS:
        rows = np.random.default_rng(seed).choice(rows, MAX_POINTS, replace=False)
    return gps[rows]

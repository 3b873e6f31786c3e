"""Curves of a measurement: precision against recall, and both and F1 against the score threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.metrics import ClassMetrics, Metrics
from utils.palette import class_colour
from utils.plot_names import INK, write_name
from utils.types import FloatArray
from utils.voc_metrics import ClassCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRECISION_COLOUR, RECALL_COLOUR, F1_COLOUR = "#1f6fb4", "#d1495b", "#3a7d44"
FAINT, GRID = "#9aa3ad", "#e3e6ea"
MOST_NAMED = 12
"""With more classes their curves are grey, and the table of names is left out."""
BELOW: dict[str, Any] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.13),
    "ncols": 3,
    "frameon": False,
    "labelcolor": INK,
    "fontsize": 9,
    "handlelength": 1.4,
    "columnspacing": 1.4,
}
"""A legend under the axes, where it hides no curve."""
THRESHOLDS = np.linspace(0, 1, 401)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that arranges itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def tidy(axes: Axes, grid: str = "both") -> None:
    """The common look: quiet grid, no frame on top and right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, color=FAINT, labelsize=9)
    axes.set_axisbelow(True)
    if grid != "none":
        axes.grid(axis=grid, color=GRID, lw=0.8)  # type: ignore[arg-type]


def percent(value: float | None) -> str:
    """0.1234 is 12.3%; an undefined value a dash."""
    return "–" if value is None else f"{100 * value:.1f}%"


def ratios(true_positives: Any, false_positives: Any, objects: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of counts [T]; NaN where they are 0/0."""
    found = true_positives + false_positives
    precision = np.divide(true_positives, found, out=np.full(len(true_positives), np.nan), where=found > 0)
    if not objects:
        nothing = np.full(len(true_positives), np.nan)
        return precision, nothing, nothing
    return precision, true_positives / objects, 2 * true_positives / (found + objects)


def class_figure(one: ClassMetrics, class_id: int, score_threshold: float) -> Figure:
    """One class: its precision-recall curve, and precision, recall and F1 against the threshold."""
    figure = new_figure(11, 4.8)
    left, right = figure.subplots(1, 2)
    write_name(left, one.name, class_id, (0, 1), "axes fraction", offset_pt=(0, 25), align=(0, 0), size_pt=14)
    facts = f"AP {percent(one.ap)}, 11-point {percent(one.ap_11pt)}, {one.objects} objects, {one.difficult} difficult"
    left.annotate(facts, (0, 1), xycoords="axes fraction", xytext=(0, 9), textcoords="offset points", color=INK,
                  size=10)  # fmt: skip
    _precision_recall(left, one.curve, score_threshold, one.at_threshold.precision, one.at_threshold.recall)
    true_positives, false_positives = one.curve.counts_at(THRESHOLDS)
    lines = zip(ratios(true_positives, false_positives, one.objects), ("precision", "recall", "F1"), strict=True)
    for (values, label), colour in zip(lines, (PRECISION_COLOUR, RECALL_COLOUR, F1_COLOUR), strict=True):
        right.plot(THRESHOLDS, values, color=colour, lw=2, label=label)
    right.axvline(score_threshold, color=FAINT, lw=1, ls="--")
    _unit_axes(right, "score threshold", "")
    right.legend(**BELOW)
    return figure


def _precision_recall(
    axes: Axes, curve: ClassCurve, score_threshold: float, precision: float | None, recall: float | None
) -> None:
    if curve.objects and len(curve.scores):
        steps, envelope = _envelope(curve)
        axes.fill_between(steps, envelope, color=PRECISION_COLOUR, alpha=0.12, lw=0)
        axes.plot(steps, envelope, color=PRECISION_COLOUR, lw=2, label="envelope: AP is its area")
        axes.plot(curve.recall, curve.precision, color=PRECISION_COLOUR, lw=0.9, alpha=0.55, label="measured")
        if precision is not None and recall is not None:
            point = f"score {score_threshold:g}: P {percent(precision)}, R {percent(recall)}"
            axes.plot(recall, precision, "o", color=RECALL_COLOUR, ms=7, mec="white", label=point, clip_on=False)
        axes.legend(**BELOW)
    else:
        reason = "no detections" if curve.objects else "no objects to find"
        axes.text(0.5, 0.5, reason, ha="center", va="center", color=FAINT, size=13)
    _unit_axes(axes, "recall", "precision")


def _envelope(curve: ClassCurve) -> tuple[FloatArray, FloatArray]:
    """Corners of the staircase whose area is the all-point AP."""
    precision = curve.envelope
    recall = np.concatenate([[0.0], np.repeat(curve.recall, 2)])
    return recall, np.concatenate([np.repeat(precision, 2), [0.0]])


def _unit_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    tidy(axes)


def overview_figure(metrics: Metrics) -> Figure:
    """Precision-recall curves of all classes, best AP first in the list beside them."""
    figure = new_figure(9.5, 6)
    axes = figure.subplots()
    shown = [(i, one) for i, one in enumerate(metrics.classes) if one.ap is not None]
    ranked = sorted(shown, key=lambda pair: -(pair[1].ap or 0))
    named = len(ranked) <= MOST_NAMED
    for class_id, one in reversed(ranked):
        if len(one.curve.scores):
            axes.plot(*_envelope(one.curve), color=line_colour(class_id) if named else FAINT, lw=1.8 if named else 0.8)
    if not named:
        grid = np.linspace(0, 1, 201)
        axes.plot(grid, _mean_envelope([one.curve for _, one in ranked], grid), color=PRECISION_COLOUR, lw=2.6)
        _key(axes, 0, f"mean of {len(ranked)} classes", -1, PRECISION_COLOUR)
        _key(axes, 1, "one class each", -1, FAINT)
    for row, (class_id, one) in enumerate(ranked if named else ()):
        _key(axes, row, one.name, class_id, line_colour(class_id), percent(one.ap))
    _unit_axes(axes, "recall", "precision")
    _title(
        axes,
        "Precision and recall, IoU 0.5",
        f"mAP all-point {percent(metrics.voc_map_50)}, 11-point {percent(metrics.voc_map_50_11pt)}",
    )
    return figure


def _mean_envelope(curves: Sequence[ClassCurve], grid: FloatArray) -> FloatArray:
    """Mean over the classes of the best precision at recall >= each grid value; 0 beyond a class' last recall."""
    total = np.zeros(len(grid))
    for curve in curves:
        best = np.append(curve.envelope, 0.0)
        total += best[np.searchsorted(curve.recall, grid, side="left")]
    return total / max(len(curves), 1)


def line_colour(class_id: int) -> tuple[float, float, float]:
    """The class's colour, darker, so that a line of it shows on white."""
    red, green, blue = (0.78 * value / 255 for value in class_colour(class_id))
    return red, green, blue


def _key(axes: Axes, row: int, name: str, class_id: int, colour: Any, value: str = "") -> None:
    """One line of the list to the right of the axes: a swatch, a name, a number."""
    y = 0.985 - row * 0.05
    axes.plot([1.03, 1.07], [y, y], color=colour, lw=3, solid_capstyle="butt", transform=axes.transAxes, clip_on=False)
    if value:
        axes.annotate(value, (1.165, y), xycoords="axes fraction", ha="right", va="center", size=9, color=INK)
    write_name(axes, name, class_id, (1.18 if value else 1.085, y), "axes fraction")


def _title(axes: Axes, title: str, subtitle: str) -> None:
    axes.annotate(title, (0, 1), xycoords="axes fraction", xytext=(0, 24), textcoords="offset points", size=13,
                  weight="bold", color=INK)  # fmt: skip
    axes.annotate(subtitle, (0, 1), xycoords="axes fraction", xytext=(0, 9), textcoords="offset points", size=10,
                  color=INK)  # fmt: skip


def thresholds_figure(metrics: Metrics) -> Figure:
    """Precision, recall and F1 of all classes together and of each, against the score threshold."""
    figure = new_figure(14, 4.9)
    panels = figure.subplots(1, 3)
    named = len(metrics.classes) <= MOST_NAMED
    counts = [one.curve.counts_at(THRESHOLDS) for one in metrics.classes]
    # One class alone is all of them.
    each = list(enumerate(zip(metrics.classes, counts, strict=True))) if len(counts) > 1 else []
    for class_id, (one, (true_positives, false_positives)) in each:
        colour = line_colour(class_id) if named else FAINT
        for axes, values in zip(panels, ratios(true_positives, false_positives, one.objects), strict=True):
            axes.plot(THRESHOLDS, values, color=colour, lw=1.2 if named else 0.7, alpha=0.9 if named else 0.6)
    objects = sum(one.objects for one in metrics.classes)
    true_positives, false_positives = (np.sum([one[part] for one in counts], axis=0) for part in range(2))
    point = metrics.at_threshold
    together = zip(panels, ratios(true_positives, false_positives, objects), ("Precision", "Recall", "F1"), strict=True)
    at = (point.precision, point.recall, point.f1)
    for (axes, values, title), value in zip(together, at, strict=True):
        axes.plot(THRESHOLDS, values, color=INK, lw=2.4)
        axes.axvline(metrics.score_threshold, color=FAINT, lw=1, ls="--")
        _unit_axes(axes, "score threshold", "")
        subtitle = f"all classes {percent(value)} at {metrics.score_threshold:g}"
        if title == "F1" and objects:
            best = int(np.argmax(values))
            subtitle += f"; best {percent(float(values[best]))} at {THRESHOLDS[best]:.2f}"
        _title(axes, title, subtitle)
    _key(panels[-1], 0, "all classes", -1, INK)
    for class_id, (one, _) in each if named else ():
        _key(panels[-1], class_id + 1, one.name, class_id, line_colour(class_id))
    if not named:
        _key(panels[-1], 1, "one class each", -1, FAINT)
    return figure

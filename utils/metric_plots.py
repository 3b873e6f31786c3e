"""A measurement in pictures. matplotlib is loaded only when something is drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.folders import replacing_folder
from utils.metric_curves import (
    FAINT,
    PRECISION_COLOUR,
    RECALL_COLOUR,
    class_figure,
    new_figure,
    overview_figure,
    percent,
    thresholds_figure,
    tidy,
)
from utils.metrics import Metrics
from utils.plot_names import INK, write_name
from utils.progress import Quiet, Reporter
from utils.types import IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

CLASSES_FOLDER = "classes"
DPI = 120
LONGEST_SIDE_PX = 6000
"""A thousand classes would ask for more pixels than there is memory."""
MOST_COUNTS = 1000
"""Numbers in a chart; each takes milliseconds to draw."""
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
BAR_IN = 0.27
CONFUSION_STYLES = ((12, 0.62, 10.0), (60, 0.3, 8.0), (math.inf, 0.17, 6.5))
"""Up to how many rows: inches of a cell, points of a name."""
_UNSAFE = re.compile(r"[^\w.\-]+")


def draw_plots(metrics: Metrics, folder: str | Path, reporter: Reporter | None = None) -> list[Path]:
    """Draws every plot into ``folder``, which is replaced whole, and returns the files, class by class last.

    ``precision_recall.png``, ``thresholds.png``, ``average_precision.png``, ``miss_rate.png``, ``confusion.png`` and
    one file a class in ``classes/``.
    """
    plots: dict[str, Callable[[], Figure]] = {
        "precision_recall.png": lambda: overview_figure(metrics),
        "thresholds.png": lambda: thresholds_figure(metrics),
        "average_precision.png": lambda: average_precision_figure(metrics),
        "miss_rate.png": lambda: miss_rate_figure(metrics),
        "confusion.png": lambda: confusion_figure(metrics),
    }
    for class_id, one in enumerate(metrics.classes):
        name = f"{CLASSES_FOLDER}/{class_file(class_id, one.name, len(metrics.classes))}"
        plots[name] = lambda one=one, class_id=class_id: class_figure(one, class_id, metrics.score_threshold)  # type: ignore[misc]
    with replacing_folder(folder) as fresh:
        (fresh / CLASSES_FOLDER).mkdir()
        for name, draw in (reporter or Quiet()).track(plots.items(), "drawing", total=len(plots), unit=" plots"):
            save_figure(draw(), fresh / name)
    return [Path(folder) / name for name in plots]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, at the usual sharpness unless that would make it too large."""
    dpi = min(DPI, LONGEST_SIDE_PX / figure.get_size_inches().max())
    figure.savefig(path, dpi=dpi, facecolor="white", bbox_inches="tight", pad_inches=0.15)


def class_file(class_id: int, name: str, classes: int) -> str:
    """A file name that sorts by class id and is safe whatever the class is called."""
    safe = _UNSAFE.sub("_", name)[:50]
    return f"{class_id:0{len(str(classes - 1))}d}_{safe}.png"


def average_precision_figure(metrics: Metrics) -> Figure:
    """All-point AP of every class, the best on top, with the mean."""
    values = [one.ap for one in metrics.classes]
    title = "Average precision, VOC all-point, IoU 0.5"
    return _bars(metrics, values, metrics.voc_map_50, title, "mAP", PRECISION_COLOUR)


def miss_rate_figure(metrics: Metrics) -> Figure:
    """Log-average miss rate of every class, the best on top, with the mean."""
    values = [None if one.lamr is None else -one.lamr for one in metrics.classes]
    title = "Log-average miss rate, 0.01 to 1 false positives an image (lower is better)"
    return _bars(metrics, values, metrics.mean_lamr, title, "mean", RECALL_COLOUR)


def _bars(
    metrics: Metrics, values: Sequence[float | None], mean: float | None, title: str, mean_name: str, colour: str
) -> Figure:
    """Horizontal bars of the magnitudes of ``values``, the highest value on top; undefined ones last."""
    order = sorted(range(len(values)), key=lambda i: (values[i] is None, -(values[i] or 0.0), i))
    figure = new_figure(9, 1.7 + BAR_IN * len(order))
    axes = figure.subplots()
    lengths = [abs(values[i] or 0.0) for i in order]
    axes.barh(np.arange(len(order)), lengths, height=0.68, color=colour)
    for row, class_id in enumerate(order):
        write_name(axes, metrics.classes[class_id].name, class_id, (0, row), "data", offset_pt=(-6, 0), align=(1, 0.5))
        value = values[class_id]
        text = "no objects" if value is None else percent(abs(value))
        axes.annotate(text, (lengths[row], row), xytext=(5, 0), textcoords="offset points", va="center", size=9,
                      color=FAINT if value is None else INK, bbox=BEHIND)  # fmt: skip
    if mean is not None:
        axes.axvline(mean, color=INK, lw=1.2, ls="--")
        axes.annotate(f"{mean_name} {percent(mean)}", (mean, 1), xycoords=("data", "axes fraction"), xytext=(0, 4),
                      textcoords="offset points", ha="center", size=9, color=INK)  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(len(order) - 0.4, -0.6), yticks=[])
    axes.set_title(title, loc="left", size=13, weight="bold", color=INK, pad=24)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    tidy(axes, grid="x")
    return figure


def confusion_figure(metrics: Metrics) -> Figure:
    """Counts of true against predicted classes; the colour is a count's share of the true objects of its row."""
    title = f"Confusion at score >= {metrics.score_threshold:g}, IoU 0.5"
    return draw_confusion(metrics.confusion, metrics.class_names, title, background=True)


def draw_confusion(counts: IntArray, class_names: Sequence[str], title: str, background: bool = False) -> Figure:
    """Counts [true, predicted] as a chart; with ``background`` the last row and column stand for no class."""
    size = len(counts)
    cell_in, font = next(style for most, *style in CONFUSION_STYLES if size <= most)
    side = max(3.2, cell_in * size)
    figure = new_figure(side + 2.6, side + 2.2)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if background:
        shares[-1] = 0  # false alarms are not a share of anything
    axes.imshow(shares, cmap=_shade(), vmin=0, vmax=1, aspect="equal")
    _write_counts(axes, counts, shares, min(11.0, font + 1), 72 * cell_in)
    if background:
        axes.text(size - 1, size - 1, "–", ha="center", va="center", size=9, color=FAINT)  # it cannot be counted
    names = [(name, class_id) for class_id, name in enumerate(class_names)] + (
        [("background", -1)] if background else []
    )
    for position, (name, class_id) in enumerate(names):
        row = ("axes fraction", "data")
        write_name(axes, name, class_id, (0, position), row, offset_pt=(-6, 0), align=(1, 0.5), size_pt=font)
        column = ("data", "axes fraction")
        write_name(axes, name, class_id, (position, 0), column, offset_pt=(0, -6), align=(0.5, 1), size_pt=font,
                   upright=True)  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    note = "rows: true, columns: predicted; colour: share of a class"
    if np.count_nonzero(counts) > MOST_COUNTS:
        note += f"; the {MOST_COUNTS} highest counts"
    axes.annotate(note, (0, 1), xycoords="axes fraction",
                  xytext=(0, 8), textcoords="offset points", size=10, color=INK)  # fmt: skip
    axes.set_title(title, loc="left", size=13, weight="bold", color=INK, pad=26)
    return figure


def _shade() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("share", ["#f1f4f7", "#9cc3e4", "#1f6fb4", "#0b355c"])


def _write_counts(axes: Axes, counts: IntArray, shares: np.ndarray, largest_pt: float, cell_pt: float) -> None:
    """Every count that is not 0, as large as its cell allows; of very many the highest."""
    font = min(largest_pt, cell_pt / (0.62 * len(str(counts.max(initial=0)))))
    places = np.argwhere(counts > 0)
    highest = np.argsort(-counts[tuple(places.T)], kind="stable")[:MOST_COUNTS]
    for row, column in places[highest]:
        ink = "white" if shares[row, column] > 0.5 else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", size=font, color=ink)

"""One picture of a dataset: boxes per class, and how large they are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.files import replacing
from utils.health import LARGE_PX, SMALL_PX, Health

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 20_000
"""More points only hide each other; a fixed sample of them is drawn."""
MAX_CLASSES = 60
"""More bars cannot be read; the commonest are drawn."""
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC")
_COLOURS = ("#2f6db3", "#e39a35", "#4da375", "#b25a8a", "#8377c4", "#777777")
_TICKS_PX = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def draw_health(health: Health, path: str | Path) -> None:
    """Writes a PNG: bars of the boxes per class, parted by list, beside a log-log scatter of widths and heights."""
    import matplotlib as mpl
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    installed = set(font_manager.get_font_names())
    style: dict[Any, Any] = {"font.family": [name for name in _FONTS if name in installed], "font.size": 10}
    bars = min(len(health.class_names), MAX_CLASSES)
    with warnings.catch_warnings(), mpl.rc_context(style):
        # A class name in a script that no installed font has shows as boxes, which is no reason for noise.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(13, max(5.6, 1.8 + 0.27 * bars)), layout="constrained", dpi=110)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
        _draw_classes(left, health)
        if len(health.boxes_wh):
            _draw_sizes(right, health)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")


def _draw_classes(axes: Axes, health: Health) -> None:
    # It draws letters by itself too, with what takes long to load.
    from utils.plot_names import shortened

    counts = np.array([split.boxes_per_class for split in health.splits]).reshape(-1, len(health.class_names))
    totals = counts.sum(axis=0)
    order = np.argsort(-totals, kind="stable")[:MAX_CLASSES]
    start = np.zeros(len(order), np.int64)
    places = np.arange(len(order))
    for number, split in enumerate(health.splits):
        axes.barh(places, counts[number, order], left=start, label=split.name, color=_COLOURS[number % len(_COLOURS)])
        start += counts[number, order]
    for place, total in zip(places, start, strict=True):
        axes.annotate(f"{total:,}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, [shortened(health.class_names[i]).replace("$", r"\$") for i in order])
    # Few classes get no thicker bars than six would.
    axes.set_ylim(max(len(order), 6) - 0.4, -0.6)
    axes.margins(x=0.12)
    hidden = len(health.class_names) - len(order)
    more = f", the {len(order)} commonest of {len(health.class_names)} classes" if hidden else ""
    axes.set_title(f"Boxes per class: {int(totals.sum()):,} in all{more}", loc="left")
    axes.set_xlabel("boxes")
    axes.spines[["top", "right"]].set_visible(False)
    if health.splits:
        axes.legend(frameon=False, loc="lower right")


def _draw_sizes(axes: Axes, health: Health) -> None:
    sizes = health.sizes
    small, large = float((sizes < SMALL_PX).mean()), float((sizes >= LARGE_PX).mean())
    chosen = np.arange(len(sizes))
    if len(chosen) > MAX_POINTS:
        chosen = np.random.default_rng(0).choice(chosen, MAX_POINTS, replace=False)
    widths, heights = health.boxes_wh[chosen].T
    alpha = float(np.clip(25 / np.sqrt(len(chosen)), 0.15, 0.9))
    axes.scatter(widths, heights, s=9, alpha=alpha, color=_COLOURS[0], linewidths=0, rasterized=True)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low = min(8.0, float(health.boxes_wh.min()) / 1.3)
    high = max(128.0, float(health.boxes_wh.max()) * 1.3)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    ticks = [tick for tick in _TICKS_PX if low <= tick <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    line = np.array([low, high])
    for limit, style, meaning in ((SMALL_PX, ":", "small below"), (LARGE_PX, "--", "large from here")):
        label = f"area {limit} x {limit}: {meaning}"
        axes.plot(line, limit**2 / line, color="#c26a00", lw=1.5, ls=style, label=label)
    axes.plot(line, line, color="grey", lw=0.8, label="square")
    axes.grid(alpha=0.2)
    axes.set_aspect("equal", anchor="N")
    axes.legend(loc="lower right", fontsize=8.5, framealpha=0.9)
    axes.set_xlabel("box width, px of the photo")
    axes.set_ylabel("box height, px of the photo")
    axes.set_title(f"Box sizes: {small:.0%} small, {1 - small - large:.0%} medium, {large:.0%} large", loc="left")
    axes.spines[["top", "right"]].set_visible(False)

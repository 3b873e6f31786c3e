"""One picture of box sizes and of the anchors that stand for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.anchors import LEVEL_COUNT, best_iou, mean_best_iou
from utils.config import LEVELS
from utils.files import replacing
from utils.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 20_000
"""More points only hide each other; a fixed sample of them is drawn."""
_LEVEL_COLOURS = ("#2f6db3", "#3f9a6b", "#d9822b")
_OLD = "#555555"
_TICKS_PX = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


def draw_anchors(
    boxes_wh: FloatArray, old_wh: FloatArray, new_wh: FloatArray, input_size: int, path: str | Path
) -> None:
    """Writes a PNG: box sizes with both sets of anchors, log-log, beside the anchors to scale. All in input pixels."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(13, 6.2), layout="constrained", dpi=110)
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        _scatter(left, boxes_wh, old_wh, new_wh)
        _to_scale(right, boxes_wh, old_wh, new_wh, input_size)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")


def _scatter(axes: Axes, boxes_wh: FloatArray, old_wh: FloatArray, new_wh: FloatArray) -> None:
    if len(boxes_wh) > MAX_POINTS:
        boxes_wh = boxes_wh[np.random.default_rng(0).choice(len(boxes_wh), MAX_POINTS, replace=False)]
    _, nearest = best_iou(boxes_wh, new_wh)
    per_level = len(new_wh) // LEVEL_COUNT
    dot = float(np.clip(6000 / len(boxes_wh), 3, 18))
    for number, (level, colour) in enumerate(zip(LEVELS, _LEVEL_COLOURS, strict=True)):
        own, anchors = boxes_wh[nearest // per_level == number], new_wh[number * per_level : (number + 1) * per_level]
        axes.scatter(own[:, 0], own[:, 1], dot, colour, alpha=0.4, linewidths=0)
        drawn = axes.scatter(anchors[:, 0], anchors[:, 1], 75, colour, marker="s", zorder=4)
        drawn.set(edgecolors="black", linewidths=1.2, label=f"new anchors, {level}")
    axes.scatter(old_wh[:, 0], old_wh[:, 1], 85, _OLD, marker="x", linewidths=2, zorder=3, label="old anchors")
    everything = np.concatenate([boxes_wh, old_wh, new_wh])
    low, high = everything.min() / 1.15, everything.max() * 1.15
    axes.plot([low, high], [low, high], color="#bbbbbb", linewidth=1, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    ticks = [tick for tick in _TICKS_PX if low <= tick <= high]
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.set_yticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.grid(color="#e8e8e8")
    axes.set_axisbelow(True)
    axes.set(xlabel="width in the input (px)", ylabel="height in the input (px)")
    axes.set_title(f"{len(boxes_wh):,} boxes, coloured by the level of their best new anchor", loc="left")
    axes.legend(loc="upper left", framealpha=0.95)


def _to_scale(axes: Axes, boxes_wh: FloatArray, old_wh: FloatArray, new_wh: FloatArray, input_size: int) -> None:
    from matplotlib.patches import Rectangle

    per_level = len(new_wh) // LEVEL_COUNT
    for width, height in old_wh:
        corner = (-width / 2, -height / 2)
        axes.add_patch(Rectangle(corner, width, height, fill=False, color=_OLD, linestyle=(0, (4, 3)), linewidth=1))
    for number, (width, height) in enumerate(new_wh):
        colour = _LEVEL_COLOURS[number // per_level]
        axes.add_patch(Rectangle((-width / 2, -height / 2), width, height, fill=False, color=colour, linewidth=2.2))
    axes.add_patch(Rectangle((-input_size / 2,) * 2, input_size, input_size, facecolor="#f6f6f6", zorder=0))
    reach = max(input_size, old_wh.max(), new_wh.max()) * 0.52
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    before, after = mean_best_iou(boxes_wh, old_wh), mean_best_iou(boxes_wh, new_wh)
    how = f"Anchors to scale in the {input_size} px input: old dashed, new solid"
    axes.set_title(f"{how}\nmean best IoU: old {before:.3f}, new {after:.3f}", loc="left")

"""Curves of a training run, drawn from its metrics file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from utils.files import replacing

TRAIN_COLOUR, VAL_COLOUR, OTHER_COLOUR = "#1f6fb4", "#d1495b", "#3a7d44"
PANEL_INCHES = 3.5


def plot_curves(
    history: Sequence[dict[str, Any]], path: Path, parts: Sequence[str], measures: Mapping[str, str]
) -> None:
    """The loss with its ``parts``, ``measures`` (key -> title), learning rate and speed by epoch, as a PNG.

    ``history``: one dict per epoch. A measure that no epoch has, such as the top-5 of three classes, gets no panel.
    """
    from matplotlib.figure import Figure

    measures = {key: title for key, title in measures.items() if any(one.get(key) is not None for one in history)}
    # One part alone is the total, but for the L2 term.
    losses = {"loss": "loss, total", **{part: f"loss, {part}" for part in parts if len(parts) > 1}}
    others = {**measures, "learning_rate": "learning rate", "images_per_second": "training, images/s"}
    columns = -(-(len(losses) + len(others)) // 2)
    figure = Figure(figsize=(PANEL_INCHES * columns, 2 * PANEL_INCHES), layout="constrained")
    axes = figure.subplots(2, columns).ravel()
    for axis, (key, title) in zip(axes, losses.items(), strict=False):
        _curve(axis, history, f"train_{key}", TRAIN_COLOUR, "training")
        _curve(axis, history, f"val_{key}", VAL_COLOUR, "validation")
        _frame(axis, history, title)
        axis.legend(frameon=False)
    for axis, (key, title) in zip(axes[len(losses) :], others.items(), strict=False):
        _curve(axis, history, key, OTHER_COLOUR)
        _frame(axis, history, title)
    for axis in axes[len(losses) + len(others) :]:
        axis.set_axis_off()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _curve(axis: Any, history: Sequence[dict[str, Any]], key: str, colour: str, label: str = "") -> None:
    known = [entry for entry in history if entry.get(key) is not None]
    marker = "o" if len(known) < 40 else None
    epochs, values = [entry["epoch"] + 1 for entry in known], [entry[key] for entry in known]
    axis.plot(epochs, values, color=colour, label=label, marker=marker, ms=4)


def _frame(axis: Any, history: Sequence[dict[str, Any]], title: str) -> None:
    axis.set_title(title)
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    axis.set_xlabel("epoch")
    axis.set_xlim(0.5, history[-1]["epoch"] + 1.5)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    for before, entry in pairwise(history):
        if before["frozen_backbone"] != entry["frozen_backbone"]:
            axis.axvline(entry["epoch"] + 0.5, color="grey", lw=1, ls=":")

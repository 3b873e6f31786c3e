"""Curves of a training run, drawn from its metrics file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.files import replacing

PARTS = ("loss", "box", "objectness", "class")
TRAIN_COLOUR, VAL_COLOUR, OTHER_COLOUR = "#1f6fb4", "#d1495b", "#3a7d44"


def plot_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss parts, mAP, learning rate and speed by epoch, as a PNG. ``history``: one dict per epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    axes = figure.subplots(2, 4)
    epochs = [entry["epoch"] + 1 for entry in history]
    for axis, part in zip(axes[0], PARTS, strict=True):
        axis.plot(epochs, [entry[f"train_{part}"] for entry in history], color=TRAIN_COLOUR, label="training")
        axis.plot(epochs, [entry[f"val_{part}"] for entry in history], color=VAL_COLOUR, label="validation")
        axis.set_title("loss, total" if part == "loss" else f"loss, {part}")
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
    measured = [entry for entry in history if entry.get("map_50") is not None]
    for axis, key, title in zip(
        axes[1],
        ("map_50", "coco_ap", "learning_rate", "images_per_second"),
        ("mAP@0.5, VOC all-point", "AP, COCO", "learning rate", "training, images/s"),
        strict=True,
    ):
        rows = measured if key in ("map_50", "coco_ap") else history
        marker = "o" if len(rows) < 40 else None
        axis.plot([r["epoch"] + 1 for r in rows], [r.get(key) for r in rows], color=OTHER_COLOUR, marker=marker, ms=4)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
    for axis in axes.flat:
        _frame(axis, history)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _frame(axis: Any, history: Sequence[dict[str, Any]]) -> None:
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    frozen = sum(bool(entry["frozen_backbone"]) for entry in history)
    if 0 < frozen < len(history):
        axis.axvline(frozen + 0.5, color="grey", lw=1, ls=":")

"""A measurement of a classifier for people: tables, the confusion chart, the surest mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from utils.classification_metrics import ClassificationMetrics, worst_mistakes
from utils.contact_sheet import contact_sheet
from utils.files import replacing
from utils.images import preparing, read_image
from utils.metric_plots import draw_confusion, save_figure
from utils.types import FloatArray, ImageArray, IntArray

UNDEFINED = "-"
MOST_MISTAKES = 20
COLUMNS, CELL_PX = 5, 260


def in_words(metrics: ClassificationMetrics) -> str:
    """``top-1 0.8123, top-5 0.9911, loss 0.5510``."""
    top5 = "" if metrics.top5 is None else f", top-5 {metrics.top5:.4f}"
    return f"top-1 {metrics.top1:.4f}{top5}, loss {metrics.loss:.4f}"


def class_table(metrics: ClassificationMetrics) -> Table:
    """One row a class, and the whole."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, caption_justify="left")
    table.caption = f"{metrics.images} images: {in_words(metrics)}"
    table.add_column("class", overflow="fold", min_width=16)
    for heading in ("images", "predicted", "precision", "recall", "F1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in metrics.classes:
        ratios = map(_shown, (one.precision, one.recall, one.f1))
        # Text, so that a name such as "[red]" is not taken for markup.
        table.add_row(Text(one.name), str(one.images), str(one.predicted), *ratios)
    return table


def save_confusion(metrics: ClassificationMetrics, path: Path) -> None:
    """The confusion matrix as a PNG."""
    title = f"Confusion of {metrics.images} images, top-1 {100 * metrics.top1:.1f}%"
    with replacing(path) as temporary:
        save_figure(draw_confusion(metrics.confusion, metrics.class_names, title), temporary)


def mistakes_sheet(
    paths: Sequence[str],
    probabilities: FloatArray,
    true_ids: IntArray,
    class_names: Sequence[str],
    ignore_exif: bool = False,
) -> ImageArray:
    """The surest mistakes, each under what it is and what it was taken for. RGB [H, W, 3] uint8.

    ``paths`` N image files, ``probabilities`` [N, C], ``true_ids`` [N]. A blank sheet where there is none.
    """
    chosen = worst_mistakes(probabilities, true_ids, MOST_MISTAKES)
    titles = []
    for index in chosen.tolist():
        taken = int(np.argmax(probabilities[index]))
        sure = 100 * probabilities[index, taken]
        titles.append(f"{class_names[true_ids[index]]}: taken for {class_names[taken]}, {sure:.0f}%")
    pictures = []
    for index in chosen.tolist():
        with preparing(paths[index]):
            pictures.append(read_image(paths[index], ignore_exif=ignore_exif))
    return contact_sheet(pictures, titles, COLUMNS, CELL_PX)


def _shown(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.4f}"

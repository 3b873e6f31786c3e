"""Metrics as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from utils.metrics import Metrics
from utils.voc_metrics import OperatingPoint

UNDEFINED = "-"


def summary_table(metrics: Metrics) -> Table:
    """Every number of the whole set, named."""
    table = _table(f"{metrics.images} images, {sum(one.objects for one in metrics.classes)} objects to find")
    table.add_column("measure")
    table.add_column("value", justify="right")
    coco, point = metrics.coco, metrics.at_threshold
    above = f"at score >= {metrics.score_threshold:g}, IoU 0.5"
    sections = (
        (
            ("VOC mAP@0.5, all-point (VOC 2010 and later)", metrics.voc_map_50),
            ("VOC mAP@0.5, 11-point (VOC 2007)", metrics.voc_map_50_11pt),
        ),
        (
            ("COCO AP, IoU 0.50:0.95", coco.ap),
            ("COCO AP50", coco.ap50),
            ("COCO AP75", coco.ap75),
            ("COCO AP small / medium / large", (coco.ap_small, coco.ap_medium, coco.ap_large)),
            ("COCO AR with 1 / 10 / 100 detections", (coco.ar_1, coco.ar_10, coco.ar_100)),
            ("COCO AR small / medium / large", (coco.ar_small, coco.ar_medium, coco.ar_large)),
        ),
        (
            (f"precision {above}", point.precision),
            (f"recall {above}", point.recall),
            (f"F1 {above}", point.f1),
        ),
        (("log-average miss rate, mean (lower is better)", metrics.mean_lamr),),
    )
    for section in sections:
        for name, value in section:
            table.add_row(name, " / ".join(map(_shown, value)) if isinstance(value, tuple) else _shown(value))
        table.add_section()
    return table


def class_table(metrics: Metrics) -> Table:
    """One row a class; precision, recall and F1 at the score threshold."""
    table = _table(f"per class; P, R, F1 at score >= {metrics.score_threshold:g}")
    table.caption = (
        "AP VOC all-point, 11pt VOC 2007, both at IoU 0.5; COCO AP 0.50:0.95;\n"
        "LAMR log-average miss rate; objects without the difficult ones;\n"
        f"{UNDEFINED} is 0/0, and no part of a mean"
    )
    table.add_column("class", overflow="fold", min_width=16)
    for heading in ("objects", "AP", "11pt", "COCO", "P", "R", "F1", "LAMR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in metrics.classes:
        # Text, so that a name such as "[red]" is not taken for markup.
        values = (one.ap, one.ap_11pt, one.coco_ap, *_ratios(one.at_threshold), one.lamr)
        table.add_row(Text(one.name), str(one.objects), *map(_shown, values))
    table.add_section()
    means = (metrics.voc_map_50, metrics.voc_map_50_11pt, metrics.coco_ap)
    total = str(sum(one.objects for one in metrics.classes))
    table.add_row("all", total, *map(_shown, (*means, *_ratios(metrics.at_threshold), metrics.mean_lamr)))
    return table


def _table(title: str) -> Table:
    # A terminal has 80 columns, and names should get what the numbers leave.
    return Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=0)


def _ratios(point: OperatingPoint) -> tuple[float | None, float | None, float | None]:
    return point.precision, point.recall, point.f1


def _shown(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.4f}"

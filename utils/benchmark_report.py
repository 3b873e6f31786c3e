"""A benchmark as a table, as JSON and as a chart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.files import replacing, write_atomically
from utils.metric_curves import new_figure, tidy
from utils.metric_plots import BEHIND, save_figure
from utils.plot_names import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

UNDEFINED = "-"
COLOURS = {"float32": "#1f6fb4", "int8": "#d9822b"}
OTHER_COLOUR = "#3f9a6b"
BAR_IN = 0.5


@dataclass(frozen=True)
class Row:
    """One detector: times from photo to boxes, alone; throughput in batches; the most memory its process held.

    ``cpu_ms`` and ``cpu_alone_ms`` are processor time an image, in batches and alone, which other work on the machine
    moves less. ``map_50`` is VOC mAP@0.5. ``problem`` says why there are no numbers, ``note`` what the export's report
    found.
    """

    name: str
    path: Path
    runtime: str = ""
    precision: str = ""
    median_ms: float | None = None
    p95_ms: float | None = None
    images_per_s: float | None = None
    cpu_ms: float | None = None
    peak_mb: float | None = None
    map_50: float | None = None
    problem: str = ""
    note: str = ""
    cpu_alone_ms: float | None = None


def benchmark_table(rows: Sequence[Row], title: str, batch_size: int) -> Table:
    """Numbers by detector; what could not run says why."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("format", overflow="fold")
    for heading in ("runtime", "precision"):
        table.add_column(heading, no_wrap=True)
    batch = f"by {batch_size}"
    for heading in ("median\nms", "p95\nms", f"img/s\n{batch}", f"CPU ms\n{batch}", "peak\nMB", "mAP\n@0.5"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        tenths = (row.median_ms, row.p95_ms, row.images_per_s, row.cpu_ms)
        cells = [_shown(value, ".1f") for value in tenths] + [_shown(row.peak_mb, ".0f"), _shown(row.map_50, ".4f")]
        table.add_row(row.name, row.runtime or UNDEFINED, row.precision or UNDEFINED, *cells)
    remarks = [f"{row.name}: {text}" for row in rows for text in (row.problem, row.note) if text]
    if remarks:
        table.caption = "\n".join(remarks)
        table.caption_justify = "left"
    return table


def write_benchmark(rows: Sequence[Row], about: dict[str, Any], path: Path) -> None:
    """Writes the numbers as JSON. ``about`` says what was measured where."""
    rows_json = [{**dataclasses.asdict(row), "path": str(row.path)} for row in rows]
    write_atomically(path, json.dumps({**about, "rows": rows_json}, indent=2, ensure_ascii=False) + "\n")


def draw_benchmark(rows: Sequence[Row], title: str, subtitle: str, path: Path) -> None:
    """Writes the chart as PNG: a bar of throughput a detector, the fastest on top, its mAP beside it."""
    with replacing(path) as temporary:
        save_figure(benchmark_figure(rows, title, subtitle), temporary)


def benchmark_figure(rows: Sequence[Row], title: str, subtitle: str) -> Figure:
    """The chart; only rows with a throughput are in it."""
    measured = sorted((row for row in rows if row.images_per_s), key=lambda row: -(row.images_per_s or 0))
    figure = new_figure(9, 1.6 + BAR_IN * max(1, len(measured)))
    axes = figure.subplots()
    for place, row in enumerate(measured):
        _draw_bar(axes, place, row, rows[0])
    names = [row.name if row.runtime in row.name else f"{row.name}\n{row.runtime}" for row in measured]
    axes.set_yticks(range(len(measured)), names)
    longest = max((row.images_per_s or 0 for row in measured), default=1)
    axes.set(xlim=(0, 1.34 * longest), ylim=(max(1, len(measured)) - 0.4, -0.6), xlabel="images a second")
    axes.set_title(title, loc="left", size=13, weight="bold", color=INK, pad=26)
    axes.annotate(subtitle, (0, 1), (0, 9), "axes fraction", "offset points", size=9.5, color=INK)
    axes.xaxis.label.set_color(INK)
    tidy(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    return figure


def _draw_bar(axes: Axes, place: int, row: Row, first: Row) -> None:
    rate = row.images_per_s or 0
    axes.barh(place, rate, height=0.66, color=COLOURS.get(row.precision, OTHER_COLOUR))
    times = f"  ({rate / first.images_per_s:.1f}x)" if first.images_per_s and row is not first else ""
    told = f"{rate:.1f}{times}\n{row.precision}" + ("" if row.map_50 is None else f", mAP {row.map_50:.3f}")
    label = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "size": 9, "color": INK, "bbox": BEHIND}
    axes.annotate(told, (rate, place), **label)  # type: ignore[arg-type]


def _shown(value: float | None, form: str) -> str:
    return UNDEFINED if value is None else format(value, form)

"""The health of a dataset: what it holds, counted, and shown as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from utils.annotate import Dataset, Sample
from utils.types import FloatArray, IntArray

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

SMALL_PX, LARGE_PX = 32, 96
"""COCO's limits: small is an area below 32x32 px, large one of 96x96 px or more."""
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class SplitHealth:
    """Counts of one list. The class counts are [classes]; boxes are those that are trained on, difficult ones apart."""

    name: str
    images: int
    empty_images: int
    boxes_per_class: IntArray
    images_per_class: IntArray
    difficult: int


@dataclass(frozen=True, eq=False)
class Health:
    """Counts of a dataset. ``boxes_wh`` [N, 2] pixels of the photos and ``class_ids`` [N] of all lists together."""

    class_names: tuple[str, ...]
    splits: tuple[SplitHealth, ...]
    boxes_wh: FloatArray
    class_ids: IntArray
    smallest_in: str
    image_sizes: Counter[tuple[int, int]]

    @property
    def sizes(self) -> FloatArray:
        """Square roots of the areas [N]."""
        roots: FloatArray = np.sqrt(self.boxes_wh.prod(axis=1))
        return roots


def measure(dataset: Dataset, class_names: Sequence[str]) -> Health:
    """Counts what the lists of ``dataset`` hold; objects of other classes are left out."""
    class_ids = {name: number for number, name in enumerate(class_names)}
    splits, corners, ids, images = [], [], [], []
    sizes: Counter[tuple[int, int]] = Counter()
    for (year, split), samples in dataset.samples.items():
        splits.append(_measure_split(f"{year} {split}", samples, class_ids))
        for sample in samples:
            if sample.annotation.size_hw:
                sizes[sample.annotation.size_hw] += 1
            for item in sample.annotation.objects:
                if not item.difficult and item.name in class_ids:
                    corners.append(item.box_xyxy)
                    ids.append(class_ids[item.name])
                    images.append(sample.image_path)
    boxes = np.array(corners, np.float64).reshape(-1, 4)
    boxes_wh = boxes[:, 2:] - boxes[:, :2]
    smallest_in = images[int(boxes_wh.prod(axis=1).argmin())] if images else ""
    return Health(tuple(class_names), tuple(splits), boxes_wh, np.array(ids, np.int64), smallest_in, sizes)


def _measure_split(name: str, samples: Sequence[Sample], class_ids: dict[str, int]) -> SplitHealth:
    boxes, images = np.zeros(len(class_ids), np.int64), np.zeros(len(class_ids), np.int64)
    empty = difficult = 0
    for sample in samples:
        known = [item for item in sample.annotation.objects if item.name in class_ids]
        here = [class_ids[item.name] for item in known if not item.difficult]
        difficult += len(known) - len(here)
        empty += not here
        np.add.at(boxes, here, 1)
        images[list(set(here))] += 1
    return SplitHealth(name, len(samples), empty, boxes, images, difficult)


def health_parts(health: Health) -> list[RenderableType]:
    """Tables and lines for a rich console: lists, classes, box sizes, image sizes."""
    if not len(health.boxes_wh):
        return [_split_table(health), _image_size_table(health)]
    return [
        _split_table(health),
        _class_table(health),
        _size_table(health),
        _size_summary(health),
        _image_size_table(health),
    ]


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _row(table: Table, name: str, values: Sequence[object]) -> None:
    from rich.text import Text

    table.add_row(Text(name), *(f"{value:,}" if isinstance(value, int) else str(value) for value in values))


def _split_table(health: Health) -> Table:
    table = _table("Lists", ("list", "images", "without objects", "boxes", "boxes/image", "difficult (left out)"))
    for split in health.splits:
        boxes = int(split.boxes_per_class.sum())
        mean = f"{boxes / split.images:.1f}" if split.images else "-"
        _row(table, split.name, (split.images, split.empty_images, boxes, mean, split.difficult))
    return table


def _class_table(health: Health) -> Table:
    columns = ("class", "boxes", "share", "images", "median size px", *(f"in {split.name}" for split in health.splits))
    table = _table("Classes (boxes)", columns)
    total = max(1, len(health.class_ids))
    for number, name in enumerate(health.class_names):
        mine = health.sizes[health.class_ids == number]
        images = sum(int(split.images_per_class[number]) for split in health.splits)
        median = f"{np.median(mine):.0f}" if len(mine) else "-"
        per_split = (int(split.boxes_per_class[number]) for split in health.splits)
        _row(table, name, (len(mine), f"{len(mine) / total:.1%}", images, median, *per_split))
    return table


def _size_table(health: Health) -> Table:
    table = _table("Box sizes, px of the photo", ("", "smallest", *(f"{q}%" for q in QUANTILES[1:-1]), "largest"))
    rows = (("width", health.boxes_wh[:, 0]), ("height", health.boxes_wh[:, 1]), ("root of area", health.sizes))
    for name, values in rows:
        _row(table, name, [f"{value:.4g}" for value in np.percentile(values, QUANTILES)])
    return table


def _size_summary(health: Health) -> Text:
    from rich.text import Text

    small, large = (health.sizes < SMALL_PX).mean(), (health.sizes >= LARGE_PX).mean()
    lines = (
        f"  small (area below {SMALL_PX} x {SMALL_PX}) {small:.1%}, medium {1 - small - large:.1%}, "
        f"large (from {LARGE_PX} x {LARGE_PX}) {large:.1%}",
        f"  smallest box: {health.smallest_in}",
    )
    return Text("\n".join(lines) + "\n", no_wrap=True, overflow="ignore")


def _image_size_table(health: Health) -> Table:
    table = _table(f"Image sizes ({len(health.image_sizes)} different)", ("width x height", "images"))
    for (height, width), count in health.image_sizes.most_common(5):
        _row(table, f"{width} x {height}", (count,))
    return table

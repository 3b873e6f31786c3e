"""Box sizes as training will see them, and how well anchors fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.anchors import LEVEL_COUNT, best_iou, mean_best_iou, recall
from utils.augment import MIN_SIDE_PX
from utils.image_headers import probe
from utils.letterbox import ResizeRule, place
from utils.progress import Quiet, Reporter
from utils.types import FloatArray, Record


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors fit boxes. ``level_shares``: the share of boxes whose best anchor belongs to P3, P4, P5."""

    mean_best_iou: float
    recall: float
    level_shares: tuple[float, ...]


def input_sizes(
    records: Sequence[Record],
    input_size: int,
    rule: ResizeRule,
    ignore_exif: bool = False,
    progress: Reporter | None = None,
) -> tuple[FloatArray, int]:
    """Widths and heights of all boxes once their photos lie in the input, photos read up to their headers.

    Returns:
        [N, 2] float64 pixels of the input, and how many boxes were left out because training leaves them out too: no
        side longer than ``MIN_SIDE_PX``.

    Raises:
        DataError: a photo that is missing or no photo.
    """
    sizes = [np.zeros((0, 2))]
    for record in (progress or Quiet()).track(records, "reading image sizes", len(records), " images"):
        if len(record.boxes_xyxy):
            size_hw = probe(record.image_path, ignore_exif).size_hw
            placement = place(size_hw, input_size, rule, record.image_path)
            sizes.append((record.boxes_xyxy[:, 2:] - record.boxes_xyxy[:, :2]) * placement.scale_xy)
    found = np.concatenate(sizes)
    kept = found[(found > MIN_SIDE_PX).all(axis=1)]
    return kept, len(found) - len(kept)


def measure_fit(boxes_wh: FloatArray, anchors_wh: FloatArray) -> AnchorFit:
    """Scores anchors in file order, levels in turn, on boxes of the same unit. [N, 2], [A, 2], N at least 1."""
    _, nearest = best_iou(boxes_wh, anchors_wh)
    levels = np.bincount(nearest // (len(anchors_wh) // LEVEL_COUNT), minlength=LEVEL_COUNT) / len(boxes_wh)
    return AnchorFit(mean_best_iou(boxes_wh, anchors_wh), recall(boxes_wh, anchors_wh), tuple(levels.tolist()))

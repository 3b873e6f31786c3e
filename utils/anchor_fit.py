"""Box sizes as training will see them, how well anchors fit them, and whether fitted ones are better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.anchors import LEVEL_COUNT, RECALL_THRESHOLD, best_iou, kmeans_anchors, mean_best_iou, recall
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


def better_anchors(
    boxes_wh: FloatArray, given_wh: FloatArray, least_recall: float, seed: int, progress: Reporter | None = None
) -> tuple[FloatArray | None, str]:
    """Anchors fitted to the boxes, where the given ones reach too few of them and the fitted ones more.

    Args:
        boxes_wh: [N, 2] widths and heights above 0, pixels of the input.
        given_wh: [A, 2] in the same unit.
        least_recall: the recall, 0..1, from which on the given ones stay.
        seed: of k-means, which alone decides with the boxes: the same on all workers.
        progress: told of every start of k-means.

    Returns:
        The fitted anchors [A, 2], None for the given ones; and what to say of it, nothing when all is well.
    """
    if not len(boxes_wh):
        return None, "no boxes to measure anchors by: the given ones stay"
    before = recall(boxes_wh, given_wh)
    if before >= least_recall:
        return None, ""
    low = f"the given anchors have a recall of {before:.4f} at IoU {RECALL_THRESHOLD}, under {least_recall:g}"
    different = len(np.unique(boxes_wh, axis=0))
    if different < len(given_wh):
        return None, f"{low}; {different} different box sizes are too few to fit {len(given_wh)}: the given ones stay"
    fitted = kmeans_anchors(boxes_wh, len(given_wh), seed, progress=progress)
    after = recall(boxes_wh, fitted)
    if after <= before:
        return None, f"{low}; fitted ones have {after:.4f}, which is no better: the given ones stay"
    return fitted, f"{low}; fitted ones have {after:.4f} and are used"

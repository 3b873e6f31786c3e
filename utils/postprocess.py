"""Decoding and non-maximum suppression in NumPy, for runtimes that give raw outputs: the twin of nets.decode, nets.nms.

Slots that cannot reach the score threshold are left out first, so that the work follows what there is to see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from utils.boxes import pairwise_iou
from utils.config import LEVELS, OBJECTNESS, DetectorSpec
from utils.types import FloatArray, IntArray

MAX_PER_CLASS = 100


class Found(NamedTuple):
    """What one image holds, best first: [N, 4] fractions of the input's side, [N] scores, [N] class ids."""

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray


def find_boxes(outputs: Mapping[str, FloatArray], spec: DetectorSpec, score: float, iou: float) -> list[Found]:
    """What each image of a batch holds; the rules and numbers of ``nets.nms.suppress(nets.decode.decode(...))``.

    Args:
        outputs: level -> raw logits [B, H, W, anchors * (5 + classes)].
        spec: the detector's.
        score: threshold.
        iou: threshold.
    """
    found = []
    for image in range(len(outputs[LEVELS[0]])):
        # exp(-t) of a very negative logit overflows to infinity, which makes the sigmoid the 0 that it should be.
        with np.errstate(over="ignore", invalid="ignore"):
            boxes, scores = candidates({level: outputs[level][image] for level in LEVELS}, spec, score)
            found.append(suppress(boxes, scores, score, iou))
    return found


def candidates(outputs: Mapping[str, FloatArray], spec: DetectorSpec, score: float) -> tuple[FloatArray, FloatArray]:
    """Boxes [N, 4] and scores [N, classes] of the slots whose objectness is above ``score``. Outputs [H, W, D]."""
    boxes, scores = [], []
    all_anchors = np.array(spec.anchors_wh_px, np.float32) / np.float32(spec.input_size)
    for level, mask in zip(LEVELS, spec.masks, strict=True):
        height, width = outputs[level].shape[:2]
        raw = outputs[level].astype(np.float32).reshape(height * width * len(mask), -1)
        (kept,) = np.nonzero(sigmoid(raw[:, OBJECTNESS]) > score)
        raw = raw[kept]
        row, column, anchor = np.unravel_index(kept, (height, width, len(mask)))
        sides = np.array([width, height], np.float32)
        corners = np.stack([column, row], axis=-1).astype(np.float32) / sides
        boxes.append(_decoded(raw[:, :OBJECTNESS], corners, 1 / sides, all_anchors[list(mask)][anchor], spec))
        scores.append(sigmoid(raw[:, OBJECTNESS, None]) * sigmoid(raw[:, OBJECTNESS + 1 :]))
    return np.concatenate(boxes), np.concatenate(scores)


def suppress(boxes_xyxy: FloatArray, scores: FloatArray, score: float, iou: float) -> Found:
    """Keeps, for each class, the boxes that no better box of the class overlaps by more than ``iou``.

    Boxes [N, 4], scores [N, classes]; at most ``MAX_PER_CLASS`` of a class.
    """
    kept = []
    for of_class in scores.T:
        (above,) = np.nonzero(of_class > score)
        order = above[np.argsort(-of_class[above], kind="stable")]
        kept.append(order[_greedy(boxes_xyxy[order], iou)])
    slots, class_ids = np.concatenate(kept), np.repeat(np.arange(len(kept)), [len(slots) for slots in kept])
    best_first = np.argsort(-scores[slots, class_ids], kind="stable")
    slots, class_ids = slots[best_first], class_ids[best_first]
    return Found(boxes_xyxy[slots], scores[slots, class_ids], class_ids)


def _greedy(boxes_xyxy: FloatArray, iou: float) -> IntArray:
    """Indices to keep of boxes that come best first."""
    kept: list[int] = []
    remaining = np.arange(len(boxes_xyxy))
    while len(remaining) and len(kept) < MAX_PER_CLASS:
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        overlaps = pairwise_iou(boxes_xyxy[best : best + 1], boxes_xyxy[remaining])[0]
        remaining = remaining[~(overlaps > iou)]
    return np.array(kept, np.int64)


def _decoded(
    raw: FloatArray, corners: FloatArray, cell_wh: FloatArray, anchors_wh: FloatArray, spec: DetectorSpec
) -> FloatArray:
    """``nets.decode.decode_boxes``: raw (tx, ty, tw, th) [N, 4] to corners, fractions of the input."""
    if spec.decode == "exp":
        offset, size = sigmoid(raw[:, :2]), np.exp(raw[:, 2:]) * anchors_wh
    else:
        bounded = 2 * sigmoid(raw)
        offset, size = bounded[:, :2] - np.float32(0.5), np.square(bounded[:, 2:]) * anchors_wh
    centre = corners + offset * cell_wh
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), any shape."""
    return 1 / (1 + np.exp(-logits))

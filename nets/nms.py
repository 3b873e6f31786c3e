"""Non-maximum suppression per class, for a whole batch at once, inside the graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from nets.decode import Slots
from utils.postprocess import MAX_PER_CLASS


class PaddedDetections(NamedTuple):
    """[B, M, 4] fractions of the input, [B, M] scores, [B, M] class ids (float), [B] counts; zeros pad the end."""

    boxes_xyxy: Any
    scores: Any
    class_ids: Any
    counts: Any


def suppress(slots: Slots, score: Any, iou: Any) -> PaddedDetections:
    """Keeps, for each class, the boxes that no better box of the class overlaps by more than ``iou``.

    Score = sigmoid(objectness) * sigmoid(class), every class above ``score`` (multi-label). Detections of
    an image come best first over all classes, at most ``MAX_PER_CLASS`` of each.

    Args:
        slots: decoded outputs of any number of images.
        score: threshold, scalar float.
        iou: threshold, scalar float.
    """
    scores = tf.sigmoid(slots.objectness)[..., None] * tf.sigmoid(slots.class_logits)
    classes = slots.class_logits.shape[-1]
    kept = tf.image.combined_non_max_suppression(
        slots.boxes_xyxy[:, :, None, :],
        scores,
        max_output_size_per_class=MAX_PER_CLASS,
        max_total_size=MAX_PER_CLASS * classes,
        iou_threshold=iou,
        score_threshold=score,
        pad_per_class=False,
        clip_boxes=False,
    )
    return PaddedDetections(*kept)

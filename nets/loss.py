"""The YOLO loss, vectorised over images, levels, slots and true boxes. Its numbers are explained in docs/design.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from nets.decode import Slots, decode_slots, raw_slots, slot_geometry
from utils.config import LEVELS, DetectorSpec
from utils.recipe_config import LossConfig

Tensor = Any
REFERENCE_SIDE = 416
REFERENCE_CLASSES = 80
FOCAL_EPSILON = 1e-7


class LossParts(NamedTuple):
    """Scalars whose sum is the loss."""

    box: Tensor
    objectness: Tensor
    classes: Tensor


def pairwise_iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """[B, N, 4], [B, M, 4] -> [B, N, M]; 0 for boxes without area, so padding never overlaps anything."""
    left, top, right, bottom = tf.unstack(first_xyxy[:, :, None, :], axis=-1)
    other_left, other_top, other_right, other_bottom = tf.unstack(second_xyxy[:, None, :, :], axis=-1)
    width = tf.nn.relu(tf.minimum(right, other_right) - tf.maximum(left, other_left))
    overlap = width * tf.nn.relu(tf.minimum(bottom, other_bottom) - tf.maximum(top, other_top))
    area = (right - left) * (bottom - top)
    other_area = (other_right - other_left) * (other_bottom - other_top)
    return tf.math.divide_no_nan(overlap, area + other_area - overlap)


def ciou(pred_xyxy: Tensor, true_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Complete IoU, arXiv:1911.08287 eq. 10, and plain IoU. [..., 4], [..., 4] -> two of [...].

    The weight alpha of the aspect term is not differentiated, as the paper's text after eq. 12 has it.
    """
    epsilon = 1e-9
    pred_wh, true_wh = pred_xyxy[..., 2:] - pred_xyxy[..., :2], true_xyxy[..., 2:] - true_xyxy[..., :2]
    overlap_wh = tf.nn.relu(
        tf.minimum(pred_xyxy[..., 2:], true_xyxy[..., 2:]) - tf.maximum(pred_xyxy[..., :2], true_xyxy[..., :2])
    )
    overlap = overlap_wh[..., 0] * overlap_wh[..., 1]
    union = pred_wh[..., 0] * pred_wh[..., 1] + true_wh[..., 0] * true_wh[..., 1] - overlap
    iou = overlap / (union + epsilon)
    hull_wh = tf.maximum(pred_xyxy[..., 2:], true_xyxy[..., 2:]) - tf.minimum(pred_xyxy[..., :2], true_xyxy[..., :2])
    centres = (pred_xyxy[..., :2] + pred_xyxy[..., 2:] - true_xyxy[..., :2] - true_xyxy[..., 2:]) / 2.0
    distance = tf.reduce_sum(tf.square(centres), -1) / (tf.reduce_sum(tf.square(hull_wh), -1) + epsilon)
    # The epsilon keeps the gradient a number where a predicted box has shrunk to nothing.
    pred_angle = tf.atan2(pred_wh[..., 0] + epsilon, pred_wh[..., 1] + epsilon)
    angles = tf.atan2(true_wh[..., 0], true_wh[..., 1]) - pred_angle
    aspect = 4.0 / math.pi**2 * tf.square(angles)
    alpha = tf.stop_gradient(aspect / (1.0 - iou + aspect + epsilon))
    return iou - distance - alpha * aspect, iou


def yolo_loss(
    outputs: dict[str, Tensor],
    targets: dict[str, Tensor],
    spec: DetectorSpec,
    config: LossConfig,
    sum_over_replicas: Callable[[Tensor], Tensor] = tf.identity,
) -> LossParts:
    """Box, objectness and class loss of a batch.

    Args:
        outputs: level -> [B, H, W, anchors * (5 + classes)] raw.
        targets: ``slots`` [B, P] int32, -1 pads; ``slot_boxes`` [B, P, 4] fractions of the input, what each slot must
            predict; ``slot_classes`` [B, P] int32; ``boxes`` [B, M, 4] all true boxes of the image, zeros pad.
        spec: classes, anchors, masks, decode.
        config: recipe of the loss.
        sum_over_replicas: sums the counts that the parts are divided by over all replicas; the parts of N replicas then
            add up to those of one device with the whole batch.
    """
    raw = raw_slots(outputs, spec)
    cells, anchors = slot_geometry(outputs, spec)
    per_level = [
        tf.shape(outputs[level])[1] * tf.shape(outputs[level])[2] * len(mask)
        for level, mask in zip(LEVELS, spec.masks, strict=True)
    ]

    real = tf.cast(targets["slots"] >= 0, tf.float32)
    places = tf.maximum(targets["slots"], 0)
    # What padding points at may have overflowed, which times 0 is no number.
    at_slots = tf.gather(raw, places, batch_dims=1) * real[..., None]
    slot_cells, slot_anchors = tf.gather(cells, places), tf.gather(anchors, places)
    assigned = decode_slots(at_slots, slot_cells, slot_anchors, spec)
    score, iou = ciou(assigned.boxes_xyxy, targets["slot_boxes"])
    class_bce = _class_bce(assigned.class_logits, targets["slot_classes"], config.label_smoothing)

    goal = tf.ones_like(iou) if config.objectness_target == "one" else tf.stop_gradient(iou)
    slots = decode_slots(raw, cells, anchors, spec)
    positive, negative, wanted = _objectness_targets(slots, targets, goal * real, config.ignore_iou)
    bce = _objectness_bce(slots.objectness, wanted, config.focal_gamma) * (positive + negative)

    sums = _LevelSums(per_level, targets["slots"], real)
    images = tf.fill([len(per_level)], tf.cast(tf.shape(raw)[0], tf.float32))
    counts = sum_over_replicas(tf.stack([sums.dense(positive), sums.dense(negative), images]))
    parts = [sums.at_slots((1.0 - score) * real), sums.dense(bce), sums.at_slots(class_bce * real)]
    return _weigh(parts, counts, outputs, spec, config)


def _class_bce(logits: Tensor, class_ids: Tensor, smoothing: float) -> Tensor:
    """Summed over classes. [B, P, C], [B, P] -> [B, P]."""
    classes = logits.shape[-1]
    wanted = tf.one_hot(class_ids, classes, dtype=logits.dtype) * (1.0 - smoothing) + smoothing / classes
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits), axis=-1)


def _objectness_targets(
    slots: Slots, targets: dict[str, Tensor], goal: Tensor, ignore_iou: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Which slots are positive, which negative, and what each should say. Three of [B, N]."""
    shape = tf.shape(slots.objectness)
    # Padding is written to one slot beyond the last, which is then cut off.
    places = tf.where(targets["slots"] >= 0, targets["slots"], shape[1])
    images = tf.broadcast_to(tf.range(shape[0])[:, None], tf.shape(places))
    index = tf.stack([images, places], axis=-1)
    room = tf.stack([shape[0], shape[1] + 1])
    positive = tf.scatter_nd(index, tf.ones_like(goal), room)[:, :-1]
    wanted = tf.scatter_nd(index, goal, room)[:, :-1]
    overlap = pairwise_iou(tf.stop_gradient(slots.boxes_xyxy), targets["boxes"])
    best = tf.reduce_max(tf.pad(overlap, [[0, 0], [0, 0], [0, 1]]), axis=-1)
    negative = tf.cast(best < ignore_iou, tf.float32) * (1.0 - positive)
    return positive, negative, wanted


def _objectness_bce(logits: Tensor, wanted: Tensor, focal_gamma: float) -> Tensor:
    """[B, N], [B, N] in 0..1 -> [B, N], scaled by |wanted - sigmoid(logits)|^focal_gamma.

    That is the focal loss (arXiv:1708.02002 eq. 4) where ``wanted`` is 0 or 1, and its extension to what lies between
    (arXiv:2006.04388 eq. 3).
    """
    bce = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits)
    if focal_gamma == 0:
        return bce
    # The bound keeps the gradient a number where nothing is left to learn and gamma is below 1.
    return bce * tf.maximum(tf.abs(wanted - tf.sigmoid(logits)), FOCAL_EPSILON) ** focal_gamma


class _LevelSums:
    """Sums by level, over the whole batch: [3] for P3, P4, P5."""

    def __init__(self, per_level: list[Tensor], slots: Tensor, real: Tensor) -> None:
        self.per_level = tf.stack(per_level)
        ends = tf.cumsum(self.per_level)
        level = tf.reduce_sum(tf.cast(slots[..., None] >= ends, tf.int32), axis=-1)
        self.slot_level = tf.one_hot(level, len(per_level), dtype=real.dtype) * real[..., None]

    def dense(self, values: Tensor) -> Tensor:
        """[B, N] -> [3]."""
        return tf.stack([tf.reduce_sum(part) for part in tf.split(values, self.per_level, axis=1)])

    def at_slots(self, values: Tensor) -> Tensor:
        """[B, P] -> [3]."""
        return tf.reduce_sum(values[..., None] * self.slot_level, axis=[0, 1])


def _weigh(
    sums: list[Tensor], counts: Tensor, outputs: dict[str, Tensor], spec: DetectorSpec, config: LossConfig
) -> LossParts:
    box, objectness, classes = sums
    balance = tf.constant(config.balance, tf.float32)
    if config.normalisation == "positives":
        # A batch of photos without objects, where the sum is large and nearly all there is, would outweigh the others.
        positives = tf.maximum(tf.reduce_sum(counts[0]), counts[2, 0])
        box_share, class_share = box / positives, classes / positives
        objectness_share = objectness * balance / positives
    else:
        shape = tf.shape(outputs["P3"])
        area = tf.cast(shape[1] * shape[2], tf.float32) * 64.0 / REFERENCE_SIDE**2
        class_count = len(spec.class_names)
        positives, negatives = tf.maximum(counts[0], 1.0), tf.maximum(counts[1], 1.0)
        box_share = box / positives
        objectness_share = objectness * balance * area / (positives + negatives)
        class_share = classes / (positives * class_count) * (class_count / REFERENCE_CLASSES)
    return LossParts(
        config.box_weight * tf.reduce_sum(box_share),
        config.objectness_weight * tf.reduce_sum(objectness_share),
        config.class_weight * tf.reduce_sum(class_share),
    )

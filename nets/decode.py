"""From the head's raw outputs to boxes. Everything here is a tensor function without state."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from utils.config import LEVELS, OBJECTNESS, DetectorSpec

Tensor = Any


class Slots(NamedTuple):
    """The outputs of all levels, flattened in the order of utils.targets: [B, N, 4], [B, N], [B, N, classes].

    ``boxes_xyxy`` are fractions of the input's side; the other two are logits.
    """

    boxes_xyxy: Tensor
    objectness: Tensor
    class_logits: Tensor


def decode(outputs: dict[str, Tensor], spec: DetectorSpec) -> Slots:
    """Decodes every slot of every level. ``outputs``: level -> [B, H, W, anchors * (5 + classes)]."""
    return decode_slots(raw_slots(outputs, spec), *slot_geometry(outputs, spec), spec)


def raw_slots(outputs: dict[str, Tensor], spec: DetectorSpec) -> Tensor:
    """All levels' raw outputs as slots, in the order of utils.targets: [B, N, 5 + classes] in float32."""
    levels = [tf.reshape(outputs[level], [tf.shape(outputs[level])[0], -1, spec.slot_values]) for level in LEVELS]
    return tf.concat([tf.cast(level, tf.float32) for level in levels], axis=1)


def decode_slots(raw: Tensor, cells: Tensor, anchors_wh: Tensor, spec: DetectorSpec) -> Slots:
    """Raw slots [B, N, 5 + classes] with their ``slot_geometry``, the boxes decoded."""
    boxes_xyxy = decode_boxes(raw[..., :OBJECTNESS], cells, anchors_wh, spec)
    return Slots(boxes_xyxy, raw[..., OBJECTNESS], raw[..., OBJECTNESS + 1 :])


def slot_geometry(outputs: dict[str, Tensor], spec: DetectorSpec) -> tuple[Tensor, Tensor]:
    """Cell corner and cell size of each slot [N, 4] as fractions (x, y, w, h), and its anchor's size [N, 2]."""
    cells, anchors = [], []
    all_anchors = tf.constant(spec.anchors_wh_px, tf.float32) / spec.input_size
    for level, mask in zip(LEVELS, spec.masks, strict=True):
        height, width = tf.shape(outputs[level])[1], tf.shape(outputs[level])[2]
        x, y = tf.meshgrid(tf.range(width), tf.range(height))
        sides = tf.cast(tf.stack([width, height]), tf.float32)
        corners = tf.cast(tf.reshape(tf.stack([x, y], axis=-1), [-1, 2]), tf.float32) / sides
        corners = tf.concat([corners, tf.broadcast_to(1.0 / sides, tf.shape(corners))], axis=-1)
        cells.append(tf.repeat(corners, len(mask), axis=0))
        anchors.append(tf.tile(tf.gather(all_anchors, mask), [height * width, 1]))
    return tf.concat(cells, axis=0), tf.concat(anchors, axis=0)


def decode_boxes(raw: Tensor, cells: Tensor, anchors_wh: Tensor, spec: DetectorSpec) -> Tensor:
    """Raw (tx, ty, tw, th) to corners, fractions of the input.

    "exp" is YOLOv3's own (arXiv:1804.02767): centre = cell + sigmoid(t), size = anchor * exp(t). "bounded" lets the
    centre reach half a cell beyond (2 sigmoid(t) - 0.5) and the size lie in 0..4 anchors ((2 sigmoid(t))^2).

    Args:
        raw: [..., 4].
        cells: [..., 4] as slot_geometry gives them, or gathered alike.
        anchors_wh: [..., 2] fractions.
        spec: says which decode.
    """
    if spec.decode == "exp":
        offset, size = tf.sigmoid(raw[..., :2]), tf.exp(raw[..., 2:]) * anchors_wh
    else:
        bounded = 2.0 * tf.sigmoid(raw)
        offset, size = bounded[..., :2] - 0.5, tf.square(bounded[..., 2:]) * anchors_wh
    centre = cells[..., :2] + offset * cells[..., 2:]
    return tf.concat([centre - size / 2.0, centre + size / 2.0], axis=-1)

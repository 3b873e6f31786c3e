"""From the head's raw outputs to boxes. Everything here is a tensor function without state."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from utils.config import LEVELS, DetectorSpec

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
    flat = [flatten_level(outputs[level]) for level in LEVELS]
    slots = len(spec.class_names) + 5
    raw = tf.concat([tf.reshape(o, [tf.shape(o)[0], -1, slots]) for o in flat], axis=1)
    cells, anchors = slot_geometry(outputs, spec)
    return Slots(decode_boxes(raw[..., :4], cells, anchors, spec), raw[..., 4], raw[..., 5:])


def flatten_level(output: Tensor) -> Tensor:
    """[B, H, W, D] -> [B, H * W, D] in float32."""
    shape = tf.shape(output)
    return tf.cast(tf.reshape(output, [shape[0], shape[1] * shape[2], output.shape[-1]]), tf.float32)


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


def encode_boxes(boxes_xyxy: Tensor, cells: Tensor, anchors_wh: Tensor, spec: DetectorSpec) -> Tensor:
    """The raw values that decode to ``boxes_xyxy``: the inverse of decode_boxes, same shapes."""
    size = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    offset = ((boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2.0 - cells[..., :2]) / cells[..., 2:]
    if spec.decode == "exp":
        return tf.concat([_logit(offset), tf.math.log(size / anchors_wh)], axis=-1)
    return tf.concat([_logit((offset + 0.5) / 2.0), _logit(tf.sqrt(size / anchors_wh) / 2.0)], axis=-1)


def _logit(probability: Tensor) -> Tensor:
    return tf.math.log(probability) - tf.math.log1p(-probability)

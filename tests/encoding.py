"""What tests know of slots: their number, and which raw values decode to a box."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from utils.config import LEVELS, DetectorSpec
from utils.targets import level_grids

Tensor = Any


def slot_count(spec: DetectorSpec) -> int:
    """Slots of all levels together."""
    grids = level_grids(spec.input_size)
    return sum(grids[level] ** 2 * len(mask) for level, mask in zip(LEVELS, spec.masks, strict=True))


def encode_boxes(boxes_xyxy: Tensor, cells: Tensor, anchors_wh: Tensor, spec: DetectorSpec) -> Tensor:
    """The raw values that decode to ``boxes_xyxy``: the inverse of decode_boxes, same shapes."""
    size = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    offset = ((boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2.0 - cells[..., :2]) / cells[..., 2:]
    if spec.decode == "exp":
        return tf.concat([_logit(offset), tf.math.log(size / anchors_wh)], axis=-1)
    return tf.concat([_logit((offset + 0.5) / 2.0), _logit(tf.sqrt(size / anchors_wh) / 2.0)], axis=-1)


def _logit(probability: Tensor) -> Tensor:
    return tf.math.log(probability) - tf.math.log1p(-probability)

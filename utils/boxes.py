"""Box arithmetic in NumPy. Boxes are [..., 4] float, corner form (x1, y1, x2, y2), unless a name says otherwise."""

from __future__ import annotations

import numpy as np

from utils.types import FloatArray


def area(boxes_xyxy: FloatArray) -> FloatArray:
    """Areas, 0 for boxes turned inside out. [..., 4] -> [...]."""
    sides = np.maximum(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(first_xyxy: FloatArray, second_xyxy: FloatArray) -> FloatArray:
    """IoU of every pair. [N, 4], [M, 4] -> [N, M]; two empty boxes have IoU 0."""
    top_left = np.maximum(first_xyxy[:, None, :2], second_xyxy[None, :, :2])
    bottom_right = np.minimum(first_xyxy[:, None, 2:], second_xyxy[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0.0)
    overlap = sides[..., 0] * sides[..., 1]
    union = area(first_xyxy)[:, None] + area(second_xyxy)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def shape_iou(first_wh: FloatArray, second_wh: FloatArray) -> FloatArray:
    """IoU of boxes that share a centre. Widths and heights [N, 2], [M, 2] -> [N, M]."""
    widths = np.minimum(first_wh[:, None, 0], second_wh[None, :, 0])
    overlap = widths * np.minimum(first_wh[:, None, 1], second_wh[None, :, 1])
    union = first_wh.prod(-1)[:, None] + second_wh.prod(-1)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def clip(boxes_xyxy: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Boxes cut to the image. [..., 4] pixels -> [..., 4]."""
    height, width = size_hw
    return np.clip(boxes_xyxy, 0.0, np.array([width, height, width, height], boxes_xyxy.dtype))


def xyxy_to_cxcywh(boxes_xyxy: FloatArray) -> FloatArray:
    """Corners to centre and size. [..., 4] -> [..., 4]."""
    sizes = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    return np.concatenate([boxes_xyxy[..., :2] + sizes / 2, sizes], axis=-1)

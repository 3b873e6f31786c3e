"""Several photos in one training input: four side by side, or two blended. Pure NumPy and OpenCV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from utils.augment import augment_sample
from utils.letterbox import ResizeRule
from utils.recipe_config import AugmentConfig
from utils.types import FloatArray, ImageArray, IntArray

MIN_VISIBLE = 0.1
"""A box of which the mosaic shows less than this share of its area is left out, as YOLOv5 does."""
BLEND = 32.0


class LabelledView(NamedTuple):
    """An image [H, W, 3] uint8 with its boxes [N, 4] in its own pixels and their classes [N]."""

    image_rgb: ImageArray
    boxes_xyxy: FloatArray
    class_ids: IntArray


def mosaic(
    photos: Sequence[LabelledView], input_size: int, rule: ResizeRule, config: AugmentConfig, rng: np.random.Generator
) -> LabelledView:
    """Four photos around a point of the input's middle half (arXiv:2004.10934 section 3.4).

    Each fills its quarter with a random view, as ``augment_sample`` makes of a photo alone but ``config.mosaic_scale``
    times as large. Boxes are cut to their quarter; one is left out when less than MIN_VISIBLE of its area is there, or
    no more than a pixel of a side.

    Args:
        photos: four.
        input_size: side of the square that is returned.
        rule: as for ``augment_sample``.
        config: the ranges.
        rng: where all chance comes from.
    """
    scale = config.mosaic_scale
    ranges = dataclasses.replace(config, scale_min=config.scale_min * scale, scale_max=config.scale_max * scale)
    x, y = rng.integers(input_size // 4, input_size - input_size // 4, 2, endpoint=True).tolist()
    canvas = np.empty((input_size, input_size, 3), np.uint8)
    boxes, class_ids = [], []
    quarters = ((0, 0, x, y), (x, 0, input_size, y), (0, y, x, input_size), (x, y, input_size, input_size))
    for photo, (left, top, right, bottom) in zip(photos, quarters, strict=True):
        window_hw = bottom - top, right - left
        part = LabelledView(*augment_sample(*photo, input_size, rule, ranges, rng, window_hw, MIN_VISIBLE))
        canvas[top:bottom, left:right] = part.image_rgb
        boxes.append(part.boxes_xyxy + np.array([left, top, left, top]))
        class_ids.append(part.class_ids)
    return LabelledView(canvas, np.concatenate(boxes), np.concatenate(class_ids))


def blend(first: LabelledView, second: LabelledView, rng: np.random.Generator) -> LabelledView:
    """Mixup (arXiv:1710.09412) for detection: both views through each other, with the boxes of both.

    The share of the first is drawn from Beta(32, 32), nearly a half, as YOLOv5 does.
    """
    share = rng.beta(BLEND, BLEND)
    image = cv2.addWeighted(first.image_rgb, share, second.image_rgb, 1.0 - share, 0.0)
    return LabelledView(
        image,  # type: ignore[arg-type]
        np.concatenate([first.boxes_xyxy, second.boxes_xyxy]),
        np.concatenate([first.class_ids, second.class_ids]),
    )

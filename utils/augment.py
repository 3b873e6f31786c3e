"""How a training photo becomes a varied network input. Pure NumPy and OpenCV; all chance comes from one generator."""

from __future__ import annotations

import cv2
import numpy as np

from utils.boxes import area, clip
from utils.letterbox import ResizeRule, place, resize_into
from utils.recipe_config import AugmentConfig
from utils.types import FloatArray, ImageArray, IntArray
from utils.warp import random_tilt, warp_boxes, warp_image

_STEPS = np.arange(256.0)[:, None]
MIN_SIDE_PX = 1.0
"""A box whose visible part is no wider or higher than this is left out."""


def fit_sample(
    image_rgb: ImageArray, boxes_xyxy: FloatArray, class_ids: IntArray, input_size: int, rule: ResizeRule
) -> tuple[ImageArray, FloatArray, IntArray]:
    """The plain network input of a photo and its boxes in input pixels, as validation and prediction see it.

    [H, W, 3] uint8, [N, 4] pixels of the photo, [N] -> [input_size, input_size, 3] uint8, [M, 4] pixels of the input,
    [M]; boxes that are no wider or higher than ``MIN_SIDE_PX`` there are left out.
    """
    placement = place((image_rgb.shape[0], image_rgb.shape[1]), input_size, rule)
    whole = placement.to_input(boxes_xyxy)
    boxes, class_ids = _visible(whole, clip(whole, (input_size, input_size)), class_ids)
    return resize_into(image_rgb, placement, input_size), boxes, class_ids


def augment_sample(
    image_rgb: ImageArray,
    boxes_xyxy: FloatArray,
    class_ids: IntArray,
    input_size: int,
    rule: ResizeRule,
    config: AugmentConfig,
    rng: np.random.Generator,
    window_hw: tuple[int, int] | None = None,
    min_visible: float = 0.0,
) -> tuple[ImageArray, FloatArray, IntArray]:
    """A random view of a photo: scaled, stretched, shifted, flipped, turned, sheared, tilted and recoloured.

    Args:
        image_rgb: [H, W, 3] uint8.
        boxes_xyxy: [N, 4] image pixels.
        class_ids: [N].
        input_size: side of the network's input, which scales refer to.
        rule: "letterbox" starts from the photo's own proportions, "stretch" from the square's.
        config: the ranges.
        rng: where all chance comes from.
        window_hw: size of the view; the whole input unless given.
        min_visible: share of its area that a box must show.

    Returns:
        The view [*window_hw, 3] uint8, the boxes still visible in its pixels [M, 4], their classes [M].
    """
    window_hw = window_hw or (input_size, input_size)
    size_hw = image_rgb.shape[0], image_rgb.shape[1]
    matrix = _random_view(size_hw, input_size, window_hw, rule, config, rng)
    view = warp_image(image_rgb, matrix, window_hw)
    gains = 1 + rng.uniform(-1, 1, 3) * (config.hue, config.saturation, config.value)
    view = recolour(view, gains)
    whole, shown = warp_boxes(boxes_xyxy, size_hw, matrix, window_hw)
    return view, *_visible(whole, shown, class_ids, min_visible)


def _random_view(
    size_hw: tuple[int, int],
    input_size: int,
    window_hw: tuple[int, int],
    rule: ResizeRule,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> FloatArray:
    """[3, 3] matrix from image to window coordinates (both measured from the corner of the first pixel)."""
    height, width = size_hw
    jitter = config.aspect_jitter
    aspect = width / height if rule == "letterbox" else 1.0
    aspect *= rng.uniform(1 - jitter, 1 + jitter) / rng.uniform(1 - jitter, 1 + jitter)
    longest = input_size * rng.uniform(config.scale_min, config.scale_max)
    new_w, new_h = (longest, longest / aspect) if aspect >= 1 else (longest * aspect, longest)
    # A larger view is shifted within the photo, a smaller one within the padding.
    left, top = rng.uniform(0, 1, 2) * (window_hw[1] - new_w, window_hw[0] - new_h)
    centre_xy, size_wh = (left + new_w / 2, top + new_h / 2), (max(new_w, 1.0), max(new_h, 1.0))
    scale_x, scale_y = size_wh[0] / width, size_wh[1] / height
    if rng.random() < config.flip:
        scale_x, left = -scale_x, left + new_w
    if rng.random() < config.flip_vertical:
        scale_y, top = -scale_y, top + new_h
    view = np.array([[scale_x, 0.0, left], [0.0, scale_y, top], [0.0, 0.0, 1.0]])
    if config.degrees or config.shear or config.translate or config.perspective:
        view = random_tilt(centre_xy, size_wh, window_hw, config, rng) @ view
    return view


def recolour(image_rgb: ImageArray, gains: FloatArray) -> ImageArray:
    """Scales hue, saturation and value by ``gains`` [3]."""
    if (gains == 1).all():
        return image_rgb
    scaled = _STEPS * gains
    scaled[:, 0] %= 180
    table = np.minimum(scaled, 255).astype(np.uint8)[None]
    hsv = cv2.LUT(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV), table)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # type: ignore[return-value]


def _visible(
    whole_xyxy: FloatArray, shown_xyxy: FloatArray, class_ids: IntArray, min_visible: float = 0.0
) -> tuple[FloatArray, IntArray]:
    keep = ((shown_xyxy[:, 2:] - shown_xyxy[:, :2]) > MIN_SIDE_PX).all(axis=1)
    keep &= area(shown_xyxy) >= min_visible * area(whole_xyxy)
    return shown_xyxy[keep], class_ids[keep]

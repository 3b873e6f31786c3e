"""What a classifier sees of a photo: one fixed view to be measured by, random ones to learn from.

Pure NumPy and OpenCV. A random view is a function of the photo and of CHANCES uniform numbers, since a generator for
each small image would take longer than all that is done to it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from utils.augment import recolour
from utils.classifier_config import ClassifierAugmentConfig, ViewRule
from utils.letterbox import PADDING_GREY, place, resize_image, resize_into
from utils.types import FloatArray, ImageArray

CHANCES = 13
"""How many numbers in 0..1 decide a random view."""


def fixed_view(
    image_rgb: ImageArray, input_size: int, rule: ViewRule, crop_fraction: float, name: str = "image"
) -> ImageArray:
    """The view that validation and prediction see. [H, W, 3] uint8 -> [input_size, input_size, 3] uint8.

    ``crop_fraction`` counts for the rule "crop" alone. DataError when a letterboxed side would become 0 px; ``name``
    stands for the photo in the message.
    """
    height, width = image_rgb.shape[:2]
    if rule == "crop":
        side = max(1, round(crop_fraction * min(height, width)))
        top, left = (height - side) // 2, (width - side) // 2
        return resize_image(image_rgb[top : top + side, left : left + side], (input_size, input_size))
    return resize_into(image_rgb, place((height, width), input_size, rule, name), input_size)


def random_view(
    image_rgb: ImageArray,
    input_size: int,
    rule: ViewRule,
    crop_fraction: float,
    config: ClassifierAugmentConfig,
    chances: FloatArray,
) -> ImageArray:
    """A view to learn from: a part of the photo, flipped, shifted, recoloured, with a piece cut out.

    Args:
        image_rgb: [H, W, 3] uint8.
        input_size: side of the square that is returned.
        rule: the fixed view's, which is what is varied when ``config.area_min`` is 1.
        crop_fraction: the fixed view's.
        config: the ranges.
        chances: [CHANCES] in 0..1, 1 excluded, each for one thing.
    """
    area, aspect, across, down, mirror, flip, shift_x, shift_y, hole_x, hole_y = chances[:10].tolist()
    if config.area_min < 1:
        view = _part(image_rgb, input_size, config, area, aspect, across, down)
    else:
        view = fixed_view(image_rgb, input_size, rule, crop_fraction)
    if mirror < config.flip:
        view = view[:, ::-1]
    if flip < config.flip_vertical:
        view = view[::-1]
    if config.shift_px:
        steps = 2 * config.shift_px + 1
        view = _shifted(view, int(shift_x * steps) - config.shift_px, int(shift_y * steps) - config.shift_px)
    view = np.ascontiguousarray(view)
    if config.hue or config.saturation or config.value:
        view = recolour(view, 1 + (2 * chances[10:] - 1) * (config.hue, config.saturation, config.value))
    return _cut_out(view, config.cutout, hole_x, hole_y) if config.cutout else view


def mix(
    images: ImageArray, labels: FloatArray, alpha: float, rng: np.random.Generator
) -> tuple[ImageArray, FloatArray]:
    """Mixup, arXiv:1710.09412: every image and its label mixed with another of the batch, by shares from Beta(a, a).

    [B, S, S, 3] uint8 and [B, C] -> the same shapes and types; every label still sums to what it did.
    """
    shares = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    shares = np.maximum(shares, 1 - shares)
    partners = rng.permutation(len(images))
    mixed = np.empty_like(images)
    for i, (share, partner) in enumerate(zip(shares.tolist(), partners.tolist(), strict=True)):
        cv2.addWeighted(images[i], share, images[partner], 1 - share, 0, dst=mixed[i])
    return mixed, shares[:, None] * labels + (1 - shares[:, None]) * labels[partners]


def _part(
    image_rgb: ImageArray,
    input_size: int,
    config: ClassifierAugmentConfig,
    area: float,
    aspect: float,
    across: float,
    down: float,
) -> ImageArray:
    """A rectangle of the photo, as large and as oblong as ``config`` allows, as the square input."""
    height, width = image_rgb.shape[:2]
    side = math.sqrt((config.area_min + area * (1 - config.area_min)) * height * width)
    stretch = config.aspect_max ** (aspect - 0.5)
    # In a long photo a square of that area may not fit; it then shows all of the shorter side.
    part_w = min(max(1, round(side * stretch)), width)
    part_h = min(max(1, round(side / stretch)), height)
    left, top = int(across * (width - part_w + 1)), int(down * (height - part_h + 1))
    return resize_image(image_rgb[top : top + part_h, left : left + part_w], (input_size, input_size))


def _shifted(view: ImageArray, right: int, down: int) -> ImageArray:
    side = len(view)
    moved = np.full_like(view, PADDING_GREY)
    moved[_kept(down, side), _kept(right, side)] = view[_kept(-down, side), _kept(-right, side)]
    return moved


def _kept(shift: int, side: int) -> slice:
    """The part of a line of ``side`` pixels that the line covers after it was moved by ``shift``."""
    return slice(max(shift, 0), max(side + min(shift, 0), 0))


def _cut_out(view: ImageArray, share: float, centre_x: float, centre_y: float) -> ImageArray:
    """A grey square of ``share`` times the side, its centre anywhere in the view, so that it may reach out of it."""
    side = len(view)
    hole = max(1, round(share * side))
    left, top = int(centre_x * side) - hole // 2, int(centre_y * side) - hole // 2
    cut = view.copy()
    cut[max(top, 0) : top + hole, max(left, 0) : left + hole] = PADDING_GREY
    return cut

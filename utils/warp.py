"""A photo seen through one 3x3 matrix: its pixels, resampled once, and its boxes. Pure NumPy and OpenCV.

A matrix takes (x, y, 1) of the photo to (u, v, w), which is the point (u / w, v / w) of the view. Both are measured
from the corner of the first pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from utils.boxes import clip
from utils.letterbox import PADDING_GREY
from utils.recipe_config import AugmentConfig
from utils.types import FloatArray, ImageArray


def random_tilt(
    centre_xy: tuple[float, float],
    size_wh: tuple[float, float],
    window_hw: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> FloatArray:
    """Perspective, shear, rotation and shift, in this order, of a photo that lies in a view. [3, 3], view to view.

    Args:
        centre_xy: the photo's centre in the view, which all but the shift leave where it is.
        size_wh: the photo's size in the view, pixels above 0.
        window_hw: the view's size, pixels.
        config: the ranges ``degrees``, ``shear``, ``translate`` and ``perspective``.
        rng: where all chance comes from; seven numbers are drawn.
    """
    turned = np.radians([config.degrees, config.shear, config.shear])
    ranges = (*turned, config.translate, config.translate, config.perspective, config.perspective)
    angle, shear_x, shear_y, shift_x, shift_y, tilt_x, tilt_y = rng.uniform(-1, 1, 7) * ranges
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    shear = np.array([[1.0, np.tan(shear_x), 0.0], [np.tan(shear_y), 1.0, 0.0], [0.0, 0.0, 1.0]])
    # Over the photo, which is 1 high and wide here, w stays within 1 - perspective and 1 + perspective: above 0.
    perspective = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [tilt_x / size_wh[0], tilt_y / size_wh[1], 1.0]])
    x, y = centre_xy
    back = _shift(x + shift_x * window_hw[1], y + shift_y * window_hw[0])
    matrix: FloatArray = back @ rotation @ shear @ perspective @ _shift(-x, -y)
    return matrix


def warp_image(image_rgb: ImageArray, matrix: FloatArray, window_hw: tuple[int, int]) -> ImageArray:
    """The view [*window_hw, 3] uint8 of a photo [H, W, 3] uint8; grey where there is no photo."""
    height, width = image_rgb.shape[:2]
    scales = _scales(matrix, (width / 2, height / 2))
    # Bilinear sampling skips pixels when it shrinks by more than two; averaging first keeps small objects visible.
    if scales.min() < 0.5:
        shrunk_wh = [max(1, round(side * min(1.0, 2 * s))) for side, s in zip((width, height), scales, strict=True)]
        image_rgb = cv2.resize(image_rgb, shrunk_wh, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        matrix = matrix * [width / shrunk_wh[0], height / shrunk_wh[1], 1]
    # OpenCV measures from pixel centres, half a pixel in from the corner that our coordinates start at.
    centred = matrix.copy()
    half = 0.5 * matrix[:, :2].sum(axis=1)
    centred[:2, 2] += half[:2] - 0.5 * (matrix[2, 2] + half[2])
    centred[:2, :2] -= 0.5 * matrix[2, :2]
    centred[2, 2] += half[2]
    grey = (PADDING_GREY,) * 3
    if matrix[2, :2].any():
        return cv2.warpPerspective(image_rgb, centred, window_hw[::-1], borderValue=grey)  # type: ignore[return-value]
    return cv2.warpAffine(image_rgb, centred[:2], window_hw[::-1], borderValue=grey)  # type: ignore[return-value]


def warp_boxes(
    boxes_xyxy: FloatArray, size_hw: tuple[int, int], matrix: FloatArray, window_hw: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """The upright boxes around warped boxes [N, 4], and those around what the view shows of them, zeros for nothing.

    Of a box that leans, what the view shows is cut first and boxed then: the corners of a box around the whole may lie
    in the view when nothing else of it does.

    Args:
        boxes_xyxy: [N, 4] pixels of the photo.
        size_hw: the photo's size.
        matrix: [3, 3]; w is above 0 all over the photo.
        window_hw: the view's size.
    """
    upright = matrix[0, 1] == matrix[1, 0] == 0 and not matrix[2, :2].any()
    if upright:
        pairs = (boxes_xyxy.reshape(-1, 2) * matrix.diagonal()[:2] + matrix[:2, 2]).reshape(-1, 2, 2)
        whole = _around(pairs)
        return whole, clip(whole, window_hw)
    # There are no pixels outside the photo, and perspective may see those places from behind.
    inside = clip(boxes_xyxy, size_hw)
    corners = inside[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    depths = corners @ matrix[2, :2] + matrix[2, 2]
    quadrangles = (corners @ matrix[:2, :2].T + matrix[:2, 2]) / depths[..., None]
    whole = _around(quadrangles)
    shown = clip(whole, window_hw)
    for i in np.flatnonzero((shown != whole).any(axis=1)):
        polygon = _cut(quadrangles[i], window_hw)
        # The points that it was cut at are rounded.
        shown[i] = clip(_around(polygon[None])[0], window_hw) if len(polygon) else 0.0
    shown[(inside[:, :2] >= inside[:, 2:]).any(axis=1)] = 0.0
    return whole, shown


def _shift(x: float, y: float) -> FloatArray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _scales(matrix: FloatArray, at_xy: tuple[float, float]) -> FloatArray:
    """How much a step along x and along y of the photo is lengthened at ``at_xy``. [2]."""
    x, y, w = matrix @ [*at_xy, 1.0]
    steps = (matrix[:2, :2] - np.outer((x / w, y / w), matrix[2, :2])) / w
    scales: FloatArray = np.hypot(steps[0], steps[1])
    return scales


def _around(points: FloatArray) -> FloatArray:
    """The upright boxes around groups of points. [N, P, 2] -> [N, 4]."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def _cut(polygon: FloatArray, window_hw: tuple[int, int]) -> FloatArray:
    """A convex polygon [P, 2] cut to the window (Sutherland and Hodgman, doi:10.1145/360767.360802). [Q, 2]."""
    height, width = window_hw
    for axis, sign, limit in ((0, 1, 0), (0, -1, -width), (1, 1, 0), (1, -1, -height)):
        distance = sign * polygon[:, axis] - limit
        kept: list[FloatArray] = []
        for i in range(len(polygon)):
            before, here = distance[i - 1], distance[i]
            if (before < 0) != (here < 0):
                share = before / (before - here)
                kept.append(polygon[i - 1] + share * (polygon[i] - polygon[i - 1]))
            if here >= 0:
                kept.append(polygon[i])
        polygon = np.array(kept).reshape(-1, 2)
    return polygon

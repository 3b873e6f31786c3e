"""What lies behind the things of the drawn dataset: textured grounds with stains, streaks and small clutter."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from utils.synthetic_canvas import blend, contrasting, fractal, mix, random_colour
from utils.types import FloatArray

Ground = Callable[[np.random.Generator, tuple[int, int]], FloatArray]


def draw_background(rng: np.random.Generator, size_hw: tuple[int, int], difficulty: float) -> FloatArray:
    """A ground, or two that meet at a horizon, with clutter on top. [h, w, 3] float32 RGB 0..255."""
    image = _ground(rng, size_hw)
    if rng.random() < 0.4:
        other = _ground(rng, size_hw)
        height, width = size_hw
        slope = rng.uniform(-0.25, 0.25) * np.linspace(-0.5, 0.5, width, dtype=np.float32) * height
        edge = rng.uniform(0.25, 0.75) * height + slope
        below = np.clip(np.arange(height, dtype=np.float32)[:, None] - edge + 0.5, 0, 1)
        image += (other * rng.uniform(0.8, 1.1) - image) * below[..., None]
    _clutter(rng, image, round(rng.uniform(0, 14) * (0.4 + 1.2 * difficulty)))
    return np.clip(image, 0, 255)


def _ground(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatArray:
    image = _GROUNDS[rng.integers(len(_GROUNDS))](rng, size_hw)
    grain = fractal(rng, size_hw, rng.uniform(3, 12), 2) - 0.5
    return image * (1 + rng.uniform(0.05, 0.3) * grain[..., None])


def _ramp(rng: np.random.Generator, field: FloatArray) -> FloatArray:
    """Colours for a field of 0..1: from one colour over a related one to a third, as calm as a photo's ground."""
    first = random_colour(rng, (0.25, 0.95))
    second = mix(first, random_colour(rng, (0.2, 0.95)), rng.uniform(0.2, 0.7))
    third = mix(second, random_colour(rng, (0.1, 1.0)), rng.uniform(0.2, 0.8))
    steps = np.linspace(0, 1, 256)
    channels = [np.interp(steps, (0, 0.55, 1), stops) for stops in zip(first, second, third, strict=True)]
    table = np.stack(channels, axis=1).astype(np.float32)
    levels = cv2.convertScaleAbs(np.maximum(field, 0), alpha=255)
    return cv2.LUT(cv2.merge([levels] * 3), table[None])  # type: ignore[return-value]


def _clouds(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatArray:
    return _ramp(rng, fractal(rng, size_hw, rng.uniform(20, 160), int(rng.integers(2, 7)), rng.uniform(0.4, 0.75)))


def _wood(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatArray:
    x, y = _turned_axes(rng, size_hw)
    warp = fractal(rng, size_hw, rng.uniform(50, 140), 3)
    rings = np.sin(y * rng.uniform(0.05, 0.3) + warp * rng.uniform(4, 14))
    over = y / rng.uniform(30, 90)
    board = np.floor(over)
    seams = np.abs(over - board - 0.5) > 0.48
    return _ramp(rng, 0.5 + 0.2 * rings + 0.35 * (_hash(board) - 0.5) + 0.0004 * x) * (1 - 0.45 * seams[..., None])


def _tiles(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatArray:
    x, y = _turned_axes(rng, size_hw)
    high = rng.uniform(16, 70)
    wide, joint = high * rng.uniform(1, 2.4), rng.uniform(1, 4)
    down = y / high
    row = np.floor(down)
    over = x / wide + row * float(rng.choice([0.0, 0.5]))
    column = np.floor(over)
    tone = _hash(row * 127 + column * 311)
    down_edge = (0.5 - np.abs(down - row - 0.5)) * high
    over_edge = (0.5 - np.abs(over - column - 0.5)) * wide
    face = _ramp(rng, 0.35 + 0.45 * (tone - 0.5) + 0.4 * fractal(rng, size_hw, 30))
    blend(face, random_colour(rng), np.clip(joint - np.minimum(down_edge, over_edge), 0, 1))
    return face


def _fabric(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatArray:
    x, y = _turned_axes(rng, size_hw)
    pitch, check = rng.uniform(2.2, 6), rng.uniform(12, 60)
    weave = 0.5 + 0.22 * np.sin(x * (2 * np.pi / pitch)) * np.sin(y * (2 * np.pi / pitch))
    tartan = 0.2 * (np.sin(x * (2 * np.pi / check)) > rng.uniform(-0.5, 0.9))
    tartan += 0.2 * (np.sin(y * (2 * np.pi / check)) > rng.uniform(-0.5, 0.9))
    folds = fractal(rng, size_hw, rng.uniform(60, 150), 2)
    return _ramp(rng, weave + tartan - 0.2) * (0.7 + 0.5 * folds[..., None])


def _gravel(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatArray:
    height, width = size_hw
    image = _clouds(rng, size_hw) * 0.6
    size = rng.uniform(6, 16)
    base = random_colour(rng, (0.4, 0.9))
    stones = [mix(base, random_colour(rng), rng.uniform(0, 0.45)) for _ in range(16)]
    canvas = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(min(260, int(height * width / size**2))):
        colour = stones[rng.integers(16)]
        axes = (int(size * rng.uniform(0.35, 0.9)), int(size * rng.uniform(0.3, 0.6)))
        centre, angle = (int(rng.uniform(0, width)), int(rng.uniform(0, height))), rng.uniform(0, 180)
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, mix(colour, (0, 0, 0), 0.45), -1, cv2.LINE_AA)
        lit = (max(1, axes[0] - 2), max(1, axes[1] - 2))
        cv2.ellipse(canvas, (centre[0] - 1, centre[1] - 1), lit, angle, 0, 360, colour, -1, cv2.LINE_AA)
    return canvas.astype(np.float32)


def _lights(rng: np.random.Generator, size_hw: tuple[int, int]) -> FloatArray:
    """An unsharp room: soft discs of light on a dim gradient."""
    height, width = size_hw
    image = _ramp(rng, 0.5 * fractal(rng, size_hw, 120, 2)) * 0.8
    glow = np.zeros_like(image)
    for _ in range(rng.integers(8, 30)):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.circle(glow, centre, int(rng.uniform(4, 30)), random_colour(rng, (0.2, 0.7)), -1, cv2.LINE_AA)
    return image + 0.7 * cv2.GaussianBlur(glow, (0, 0), rng.uniform(1.5, 5)).astype(np.float32)


_GROUNDS: tuple[Ground, ...] = (_clouds, _wood, _tiles, _fabric, _gravel, _lights)


def _hash(cell: FloatArray) -> FloatArray:
    """A number in 0..1 for each whole number, without pattern to the eye."""
    scrambled = (cell.astype(np.int32).astype(np.uint32) * np.uint32(2654435761)) >> np.uint32(16)
    return scrambled.astype(np.float32) / np.float32(65536)


def _turned_axes(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Pixel coordinates in a frame that is turned, and sheared as if seen at a slant."""
    angle, slant = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3)
    y, x = np.arange(size_hw[0], dtype=np.float32)[:, None], np.arange(size_hw[1], dtype=np.float32)[None]
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    across = cos * x + sin * y
    return across, cos * y - sin * x + slant * across


def _clutter(rng: np.random.Generator, image_rgb: FloatArray, count: int) -> None:
    """Stains, streaks, scraps and scribbles, half transparent, painted in place."""
    height, width = image_rgb.shape[:2]
    for _ in range(count):
        mask = np.zeros((height, width), np.uint8)
        start = rng.uniform(0, 1, 2) * (width, height)
        size = 10 ** rng.uniform(0.5, 1.9)
        style = rng.integers(4)
        if style == 0:
            steps = np.cumsum(rng.normal(0, size / 3, (rng.integers(3, 12), 2)), axis=0)
            path = (start + steps).astype(np.int32)
            cv2.polylines(mask, [path], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA)  # type: ignore[call-overload]
        elif style == 1:
            corners = (start + rng.normal(0, size / 2, (rng.integers(3, 6), 2))).astype(np.int32)
            cv2.fillConvexPoly(mask, cv2.convexHull(corners), 255, cv2.LINE_AA)  # type: ignore[call-overload]
        elif style == 2:
            reach = rng.normal(0, 3 * size, 2)
            ends = [tuple(int(v) for v in point) for point in (start - reach, start + reach)]
            cv2.line(mask, ends[0], ends[1], 255, int(rng.integers(1, 6)), cv2.LINE_AA)  # type: ignore[call-overload]
        else:
            axes = (int(size * rng.uniform(0.2, 1)) + 1, int(size * rng.uniform(0.2, 1)) + 1)
            centre = (int(start[0]), int(start[1]))
            cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)  # type: ignore[call-overload]
        under = image_rgb[min(int(start[1]), height - 1), min(int(start[0]), width - 1)]
        colour = contrasting(rng, (int(under[0]), int(under[1]), int(under[2])))
        left, top, wide, high = cv2.boundingRect(mask)
        part = np.s_[top : top + high, left : left + wide]
        blend(image_rgb[part], colour, mask[part] * np.float32(rng.uniform(0.15, 0.8) / 255))

"""The things that the drawn dataset teaches. They differ in shape and structure, and mostly in colour."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from utils.synthetic_canvas import (
    Canvas,
    Colour,
    contrasting,
    ellipse_points,
    mix,
    random_colour,
    rounded,
    typical_colour,
)
from utils.types import FloatArray, ImageArray

Draw = Callable[[np.random.Generator, int, FloatArray], Canvas]
"""(generator, side of the canvas in px, direction to the light [3]) -> the drawn thing."""

WHITE, BLACK = (255, 255, 255), (12, 12, 14)


def _ball(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    body = typical_colour(rng, (0.75, 0.92), (0.5, 1.0))
    canvas = Canvas(side_px, body)
    radius = np.sqrt(canvas.x**2 + canvas.y**2) / 0.97
    normal = np.stack(np.broadcast_arrays(canvas.x, canvas.y, np.sqrt(np.clip(1 - radius**2, 0, 1))), axis=-1)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned: FloatArray = cv2.transform(normal, turn.T)  # type: ignore[assignment]
    canvas.rgb = _ball_pattern(rng, turned, body)
    diffuse = np.clip(normal @ light.astype(np.float32), 0, 1)
    canvas.shade(0.42 + 0.72 * diffuse)
    shine = (rng.uniform(60, 170) * diffuse ** rng.integers(18, 50)).astype(np.uint8)
    canvas.rgb = cv2.add(canvas.rgb, cv2.merge([shine] * 3))  # type: ignore[assignment]
    canvas.alpha = (np.clip((1 - radius) * side_px / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
    return canvas


def _ball_pattern(rng: np.random.Generator, point: FloatArray, body: Colour) -> ImageArray:
    """Colours of a beach ball, a seamed ball or a spotted ball at points of the unit sphere. [s, s, 3] -> the same."""
    accent = contrasting(rng, body)
    style = rng.integers(3)
    if style == 0:
        sectors = int(rng.choice([6, 8]))
        index = ((np.arctan2(point[..., 1], point[..., 0]) / (2 * np.pi) + 0.5) * sectors).astype(int) % sectors
        third = WHITE if rng.random() < 0.5 else random_colour(rng)
        palette = np.array([(body, accent, body, third)[i % 4] for i in range(sectors)], np.uint8)
        colours = palette[index]
        colours[np.abs(point[..., 2]) > 0.94] = accent
        return colours
    if style == 1:
        curve = np.abs(np.abs(point[..., 2]) - 0.55 - 0.2 * point[..., 0] ** 2)
        seams = np.minimum(np.abs(point[..., 0]), np.abs(point[..., 1]))
        is_accent = np.minimum(seams, curve) < 0.045
    else:
        golden = (1 + 5**0.5) / 2
        axes = [np.roll((0, 1, sign * golden), turn) / np.hypot(1, golden) for sign in (-1, 1) for turn in range(3)]
        is_accent = np.abs(cv2.transform(point, np.array(axes))).max(axis=-1) > 0.925
    return np.where(is_accent[..., None], np.array(accent, np.uint8), np.array(body, np.uint8))


def _mug(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    body = typical_colour(rng, (0.52, 0.66), (0.45, 1.0))
    accent = contrasting(rng, body)
    canvas = Canvas(side_px, body)
    middle, half, tilt = -0.24, rng.uniform(0.54, 0.66), rng.uniform(0.14, 0.36)
    top, bottom, foot = rng.uniform(-0.72, -0.5), rng.uniform(0.66, 0.8), half * rng.uniform(0.72, 1.0)
    deep = tilt * half
    # The handle springs from the wall, so its centre lies on it whatever the width.
    grip = (middle + (half + foot) / 2, (top + bottom) / 2 + deep / 2)
    reach = (rng.uniform(0.34, 0.42), (bottom - top) * rng.uniform(0.28, 0.36))
    canvas.stroke(ellipse_points(grip, reach), rng.uniform(0.14, 0.2), mix(body, BLACK, 0.15))
    wall = ellipse_points((middle, bottom), (foot, tilt * foot), 0, np.pi)
    canvas.polygon(np.concatenate([[(middle + half, top)], wall, [(middle - half, top)]]), body)
    for height in rng.uniform(0.15, 0.8, rng.integers(0, 3)):
        width = half + (foot - half) * height
        band = ellipse_points((middle, top + height * (bottom - top)), (width, tilt * width), 0.0, np.pi)
        canvas.stroke(band, rng.uniform(0.06, 0.2), accent, None)
    across = np.clip((canvas.x - middle) / half, -1, 1)
    canvas.shade(0.5 + 0.62 * np.cos((across - 0.55 * light[0]) * 1.25) - 0.08 * canvas.y)
    canvas.ellipse((middle, top), (half, deep), mix(body, WHITE, 0.45))
    canvas.ellipse((middle, top), (half * 0.88, deep * 0.86), mix(body, BLACK, 0.62), None)
    drink = rng.uniform(0.1, 0.5)
    inside = (half * (0.86 - 0.25 * drink), deep * (0.8 - 0.3 * drink))
    canvas.ellipse((middle, top + deep * 0.5 * drink), inside, random_colour(rng, (0.2, 0.6)), None)
    return canvas


def _key(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    metal = typical_colour(rng, (0.1, 0.16), (0.55, 0.95), (0.7, 1.0))
    dark = mix(metal, BLACK, 0.6)
    canvas = Canvas(side_px, metal)
    bow, radius, thick = (0.0, -0.5), rng.uniform(0.4, 0.46), rng.uniform(0.11, 0.16)
    sides = int(rng.choice([5, 6, 8, 40]))
    angles = np.arange(sides) * 2 * np.pi / sides + np.pi / sides
    ring = np.stack([bow[0] + radius * np.cos(angles), bow[1] + radius * np.sin(angles)], axis=1)
    canvas.polygon([(-thick, -0.3), (thick, -0.3), (thick, 0.88), (0, 0.97), (-thick, 0.88)], metal)
    for start in np.arange(0.32, 0.86, rng.uniform(0.15, 0.22)):
        length = thick + rng.uniform(0.12, 0.3)
        canvas.polygon([(0, start), (length, start), (length, start + 0.1), (0, start + 0.1)], metal)
    canvas.polygon(rounded(ring, 0.25), metal)
    along = canvas.x * light[0] + canvas.y * light[1]
    canvas.shade(
        0.85 + 0.2 * np.sin(5 * along + rng.uniform(0, 6)) + 0.25 * (canvas.x * light[0] > 0) * (canvas.y > -0.2)
    )
    canvas.stroke([(thick * 0.2, -0.12), (thick * 0.2, 0.8)], 0.04, dark, None)
    canvas.stroke(rounded(np.concatenate([ring, ring[:1]]), 0.25), 0.03, dark, None)
    hole = (radius * rng.uniform(0.4, 0.58),) * 2
    canvas.ellipse(bow, (hole[0] + 0.05, hole[1] + 0.05), dark, None)
    canvas.ellipse(bow, hole, metal, 0)
    return canvas


def _leaf(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    blade = typical_colour(rng, (0.2, 0.42), (0.4, 0.95))
    vein = contrasting(rng, blade) if rng.random() < 0.5 else mix(blade, WHITE, 0.55)
    canvas = Canvas(side_px, blade)
    t = np.linspace(0, 1, 120)
    width = rng.uniform(0.42, 0.62) * np.sin(np.pi * t ** rng.uniform(0.7, 1.25)) ** rng.uniform(0.8, 1.1)
    teeth = rng.integers(7, 13)
    width *= 1 + rng.uniform(0, 0.22) * (t * teeth % 1 - 0.5)
    bend = rng.uniform(-0.25, 0.25) * np.sin(np.pi * t)
    height = 0.68 - 1.62 * t
    spine = np.stack([bend, height], axis=1)
    canvas.stroke([(rng.uniform(-0.12, 0.12), 0.97), *spine[:8:4]], 0.08, mix(vein, BLACK, 0.3))
    outline = np.concatenate([np.stack([bend - width, height], 1), np.stack([bend + width, height], 1)[::-1]])
    canvas.polygon(outline, blade)
    blotches = canvas.noise(rng, 5)
    canvas.shade(
        1.1
        - 0.5 * blotches
        + 0.22 * np.tanh(12 * (canvas.x - np.interp(canvas.y, height[::-1], bend[::-1]))) * light[0]
    )
    for start in np.linspace(6, 88, int(rng.integers(5, 8))).astype(int):
        for sign in (-1, 1):
            reach = 0.86 * width[min(start + 18, 119)]
            tip = (bend[min(start + 18, 119)] + sign * reach, height[start] - 0.75 * reach - 0.04)
            canvas.stroke([(bend[start], height[start]), tip], 0.028, vein, None)
    canvas.stroke(spine[:112], 0.055, vein, None)
    return canvas


def _sign(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    border = typical_colour(rng, (-0.03, 0.04), (0.75, 1.0), (0.5, 1.0))
    field = contrasting(rng, border)
    glyph = mix(border, BLACK, 0.3) if rng.random() < 0.5 else contrasting(rng, field)
    canvas = Canvas(side_px, border)
    triangle = np.array([(0.0, -0.86), (0.98, 0.82), (-0.98, 0.82)])
    centre = triangle.mean(axis=0)
    canvas.polygon(rounded(triangle, 0.1), mix(border, WHITE, 0.6) if rng.random() < 0.5 else border)
    canvas.polygon(rounded(centre + 0.94 * (triangle - centre), 0.1), border, None)
    canvas.polygon(rounded(centre + rng.uniform(0.56, 0.68) * (triangle - centre), 0.08), field, None)
    style = rng.integers(4)
    if style == 0:
        canvas.polygon([(-0.1, -0.22), (0.1, -0.22), (0.05, 0.32), (-0.05, 0.32)], glyph, None)
        canvas.ellipse((0.0, 0.47), (0.09, 0.09), glyph, None)
    elif style == 1:
        canvas.stroke([(0.0, 0.5), (0.0, 0.0)], 0.13, glyph, None)
        canvas.polygon([(-0.2, 0.05), (0.2, 0.05), (0.0, -0.25)], glyph, None)
    elif style == 2:
        canvas.stroke([(-0.12, 0.52), (0.12, 0.3), (-0.12, 0.1), (0.1, -0.15)], 0.13, glyph, None)
    else:
        canvas.stroke([(-0.33, 0.46), (0.33, 0.46)], 0.15, glyph, None)
        canvas.stroke([(0.0, -0.15), (0.0, 0.46)], 0.15, glyph, None)
    canvas.shade(1.0 + 0.22 * (canvas.x * light[0] + canvas.y * light[1]) - 0.18 * canvas.noise(rng, 4))
    return canvas


OBJECTS: dict[str, Draw] = {"ball": _ball, "key": _key, "leaf": _leaf, "mug": _mug, "sign": _sign}

"""Things that the drawn dataset shows but does not label: as rich as the labelled ones, and none of them."""

from __future__ import annotations

import numpy as np

from utils.synthetic_canvas import Canvas, contrasting, ellipse_points, mix, random_colour, rounded
from utils.synthetic_objects import BLACK, WHITE, Draw
from utils.types import FloatArray


def _crate(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    front = random_colour(rng)
    canvas = Canvas(side_px, front)
    depth, rise = rng.uniform(0.2, 0.45), rng.uniform(0.15, 0.4)
    left, right, top, bottom = -0.9, 0.9 - depth, -0.9 + rise, 0.9
    canvas.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], front)
    lid = [(left, top), (left + depth, top - rise), (right + depth, top - rise), (right, top)]
    canvas.polygon(lid, mix(front, WHITE, 0.35))
    side = [(right, top), (right + depth, top - rise), (right + depth, bottom - rise), (right, bottom)]
    canvas.polygon(side, mix(front, BLACK, 0.4))
    for row in np.linspace(top, bottom, int(rng.integers(3, 7)))[1:-1]:
        canvas.stroke([(left, row), (right, row)], 0.03, mix(front, BLACK, 0.5), None)
    if rng.random() < 0.5:
        canvas.stroke([(left, top), (right, bottom)], 0.12, contrasting(rng, front), None)
    canvas.shade(1 + 0.15 * (canvas.x * light[0] + canvas.y * light[1]))
    return canvas


def _star(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    body = random_colour(rng)
    canvas = Canvas(side_px, body)
    points = int(rng.integers(4, 8))
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2, rng.uniform(0.35, 0.6), 0.95)[:, None]
    canvas.polygon(radii * np.stack([np.cos(angles), np.sin(angles)], axis=1), body)
    canvas.shade(0.9 + 0.25 * np.cos(points * np.arctan2(canvas.y, canvas.x)) + 0.1 * canvas.x * light[0])
    return canvas


def _hoop(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    body = random_colour(rng)
    canvas = Canvas(side_px, body)
    canvas.stroke(ellipse_points((0, 0), (0.75, rng.uniform(0.5, 0.75))), rng.uniform(0.12, 0.3), body)
    canvas.shade(0.85 + 0.3 * np.cos(np.arctan2(canvas.y, canvas.x) - np.arctan2(light[1], light[0])))
    return canvas


def _cross(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    body = random_colour(rng)
    canvas = Canvas(side_px, body)
    thick = rng.uniform(0.18, 0.35)
    bar = [(-0.9, -thick), (0.9, -thick), (0.9, thick), (-0.9, thick)]
    canvas.polygon(bar, body)
    canvas.polygon([(y, x) for x, y in bar], mix(body, WHITE, 0.2))
    canvas.shade(1 + 0.2 * (canvas.x * light[0] + canvas.y * light[1]))
    return canvas


def _bottle(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    glass = random_colour(rng)
    canvas = Canvas(side_px, glass)
    half, neck, shoulder = rng.uniform(0.25, 0.4), rng.uniform(0.08, 0.14), rng.uniform(-0.4, -0.1)
    right = np.array([(neck, -0.95), (neck, shoulder - 0.2), (half, shoulder), (half, 0.95)])
    canvas.polygon(rounded(np.concatenate([right, (right * [-1, 1])[::-1]]), 0.12), glass)
    label = [(-half, 0.1), (half, 0.1), (half, 0.6), (-half, 0.6)]
    canvas.polygon(label, contrasting(rng, glass), None)
    canvas.shade(0.6 + 0.5 * np.cos((canvas.x / half - 0.5 * light[0]) * 1.2))
    return canvas


def _book(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    cover = random_colour(rng)
    ink = contrasting(rng, cover)
    canvas = Canvas(side_px, cover)
    half = rng.uniform(0.55, 0.8)
    canvas.polygon([(-half, -0.9), (half, -0.9), (half, 0.9), (-half, 0.9)], cover)
    for row in np.linspace(-0.7, 0.7, int(rng.integers(4, 9))):
        canvas.stroke([(-half * 0.7, row), (half * rng.uniform(-0.2, 0.7), row)], 0.07, ink, None)
    canvas.shade(1 + 0.2 * (canvas.x * light[0] + canvas.y * light[1]) - 0.3 * (canvas.x < -half + 0.12))
    return canvas


def _pebble(rng: np.random.Generator, side_px: int, light: FloatArray) -> Canvas:
    stone = random_colour(rng)
    canvas = Canvas(side_px, stone)
    corners = int(rng.integers(5, 9))
    angles = np.sort(rng.uniform(0, 0.8, corners) + np.arange(corners)) * 2 * np.pi / corners
    radii = rng.uniform(0.55, 0.95, (corners, 1))
    canvas.polygon(rounded(radii * np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.4), stone)
    canvas.shade(0.9 + 0.45 * (canvas.x * light[0] + canvas.y * light[1]))
    return canvas


DISTRACTORS: tuple[Draw, ...] = (_crate, _star, _hoop, _cross, _bottle, _book, _pebble)

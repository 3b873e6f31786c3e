"""What the drawn dataset is painted with: a canvas for one thing, colours, noise and light. NumPy and OpenCV only."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.types import FloatArray, ImageArray

Colour = tuple[int, int, int]
USUAL_SHARE = 0.9
Point = tuple[float, float]

_SHIFT = 4
_FIXED = 1 << _SHIFT


@dataclass(frozen=True, eq=False)
class Patch:
    """A cut-out picture: ``rgb`` [h, w, 3] float32 0..255, ``alpha`` [h, w] float32 0..1."""

    rgb: FloatArray
    alpha: FloatArray


class Canvas:
    """A square to draw one thing on, in coordinates from -1 to 1 with y down.

    ``rgb`` starts as one colour everywhere, so that the soft edge of ``alpha`` never mixes in a foreign one.
    """

    def __init__(self, side_px: int, colour: Colour) -> None:
        self.side_px = side_px
        self.rgb: ImageArray = np.full((side_px, side_px, 3), colour, np.uint8)
        self.alpha: ImageArray = np.zeros((side_px, side_px), np.uint8)
        axis = (np.arange(side_px, dtype=np.float32) + 0.5) * (2 / side_px) - 1
        self.x, self.y = axis[None, :], axis[:, None]

    def polygon(self, points: FloatArray | Sequence[Point], colour: Colour, alpha: int | None = 255) -> None:
        """A filled polygon; ``alpha`` None paints on what is there, 0 cuts a hole."""
        corners = np.round(((np.asarray(points) + 1) * self.side_px / 2 - 0.5) * _FIXED).astype(np.int32)
        cv2.fillPoly(self.rgb, [corners], colour, cv2.LINE_AA, _SHIFT)
        if alpha is not None:
            cv2.fillPoly(self.alpha, [corners], alpha, cv2.LINE_AA, _SHIFT)  # type: ignore[call-overload]

    def ellipse(self, centre: Point, radii: Point, colour: Colour, alpha: int | None = 255) -> None:
        """A filled upright ellipse."""
        self.polygon(ellipse_points(centre, radii), colour, alpha)

    def stroke(
        self, points: FloatArray | Sequence[Point], width: float, colour: Colour, alpha: int | None = 255
    ) -> None:
        """An open line with round ends, ``width`` in canvas units."""
        corners = np.round(((np.asarray(points) + 1) * self.side_px / 2 - 0.5) * _FIXED).astype(np.int32)
        thickness = max(1, round(width * self.side_px / 2))
        cv2.polylines(self.rgb, [corners], False, colour, thickness, cv2.LINE_AA, _SHIFT)
        if alpha is not None:
            cv2.polylines(self.alpha, [corners], False, alpha, thickness, cv2.LINE_AA, _SHIFT)  # type: ignore[call-overload]

    def noise(self, rng: np.random.Generator, cells: float) -> FloatArray:
        """Smooth noise with about ``cells`` blotches along a side. [side, side] float32, 0..1."""
        coarse = fractal(rng, (64, 64), 64 / cells, 3)
        return cv2.resize(coarse, self.alpha.shape, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]

    def shade(self, factor: FloatArray) -> None:
        """Multiplies the colours by ``factor``, [side, side] or anything that broadcasts to it."""
        gain = np.ascontiguousarray(np.broadcast_to(factor, self.alpha.shape), np.float32)
        self.rgb = cv2.multiply(self.rgb, cv2.merge([gain] * 3), dtype=cv2.CV_8U)  # type: ignore[assignment]


def ellipse_points(centre: Point, radii: Point, start: float = 0.0, stop: float = 2 * np.pi) -> FloatArray:
    """[48, 2] points along an elliptic arc; angles in radians, clockwise from +x."""
    angles = np.linspace(start, stop, 48)
    return np.stack([centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], axis=1)


def rounded(corners: FloatArray, share: float) -> FloatArray:
    """A polygon with its corners replaced by quadratic curves that begin ``share`` of the way along each side."""
    t = np.linspace(0, 1, 9)[:, None]
    arcs = []
    for before, corner, after in zip(np.roll(corners, 1, 0), corners, np.roll(corners, -1, 0), strict=True):
        start, stop = corner + share * (before - corner), corner + share * (after - corner)
        arcs.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * stop)
    return np.concatenate(arcs)


def random_colour(rng: np.random.Generator, value: tuple[float, float] = (0.3, 1.0)) -> Colour:
    """Any hue, any saturation, brightness within ``value``."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.beta(1.6, 1.2), rng.uniform(*value))
    return int(255 * red), int(255 * green), int(255 * blue)


def typical_colour(
    rng: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float] = (0.55, 1.0),
) -> Colour:
    """Mostly a colour of these ranges, sometimes any: things have usual colours, but colour alone never decides."""
    usual = rng.random() < USUAL_SHARE
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    other = random_colour(rng, value)
    return (int(255 * red), int(255 * green), int(255 * blue)) if usual else other


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` with ``share`` of ``second`` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def contrasting(rng: np.random.Generator, colour: Colour) -> Colour:
    """A colour clearly lighter or darker than ``colour``."""
    lightness = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    return (
        random_colour(rng, (0.1, 0.35))
        if lightness > 120
        else mix(random_colour(rng, (0.9, 1.0)), (255, 255, 255), 0.5)
    )


def fractal(
    rng: np.random.Generator, size_hw: tuple[int, int], cell_px: float, octaves: int = 4, persistence: float = 0.55
) -> FloatArray:
    """Smooth noise summed over octaves, each half as coarse as the one before. [h, w] float32, 0..1."""
    height, width = size_hw
    total = np.zeros(size_hw, np.float32)
    weight = 1.0
    for _ in range(octaves):
        rows, columns = int(height / cell_px) + 3, int(width / cell_px) + 3
        grid = rng.random((rows, columns), np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        weight *= persistence
        cell_px /= 2
        if cell_px < 1.5:
            break
    low, high, _, _ = cv2.minMaxLoc(total)
    scale = 1 / max(high - low, 1e-6)
    return cv2.addWeighted(total, scale, total, 0.0, -low * scale)  # type: ignore[return-value]


def blend(image_rgb: FloatArray, colour: Colour | FloatArray, alpha: FloatArray) -> None:
    """Lays ``colour`` over ``image_rgb`` [h, w, 3] float32 in place, as opaque as ``alpha`` [h, w] says."""
    difference = np.asarray(colour, np.float32) - image_rgb
    difference *= alpha[..., None]
    image_rgb += difference

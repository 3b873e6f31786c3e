"""A colour for every class: the same for the same class id everywhere, far apart for neighbouring ids."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from utils.types import FloatArray

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""

GOLDEN_ANGLE_DEG = 137.50776
"""Turning by it spreads any number of hues evenly, whichever number that turns out to be."""
LIGHTNESSES = (0.74, 0.63, 0.83)
"""Neighbours differ in lightness too, for those who tell hues apart less well."""
BLACK: Colour = (18, 18, 18)
WHITE: Colour = (255, 255, 255)


@lru_cache(maxsize=4096)
def class_colour(class_id: int) -> Colour:
    """A vivid colour, of even brightness to the eye, for a class id of 0 or more."""
    hue = np.deg2rad((145.0 + GOLDEN_ANGLE_DEG * class_id) % 360)
    lightness = LIGHTNESSES[class_id % len(LIGHTNESSES)]
    chroma = 0.22
    linear = _oklch_to_linear_rgb(lightness, chroma, hue)
    while chroma > 0 and not ((linear >= 0) & (linear <= 1)).all():
        chroma -= 0.005
        linear = _oklch_to_linear_rgb(lightness, chroma, hue)
    linear = linear.clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(255 * value) for value in srgb.tolist())
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever contrasts more with ``background`` (relative luminance of WCAG 2)."""
    srgb = np.array(background) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    # Contrast is (lighter + 0.05) / (darker + 0.05); the two are equal at sqrt(1.05 * 0.05) - 0.05.
    return BLACK if luminance > 0.179 else WHITE


def _oklch_to_linear_rgb(lightness: float, chroma: float, hue_rad: float) -> FloatArray:
    """Oklab's polar form to linear sRGB, which may lie outside 0..1 (https://bottosson.github.io/posts/oklab/)."""
    a, b = chroma * np.cos(hue_rad), chroma * np.sin(hue_rad)
    lms = (
        np.array(
            [
                lightness + 0.3963377774 * a + 0.2158037573 * b,
                lightness - 0.1055613458 * a - 0.0638541728 * b,
                lightness - 0.0894841775 * a - 1.2914855480 * b,
            ]
        )
        ** 3
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    return to_rgb @ lms

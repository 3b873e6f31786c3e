"""What a camera makes of a drawn scene: uneven light, cast shadows, colour casts, blur, noise and JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from utils.types import FloatArray, ImageArray


def light_scene(rng: np.random.Generator, image_rgb: FloatArray, difficulty: float) -> FloatArray:
    """Light that falls off across the scene, and sometimes a shadow from outside it. [h, w, 3] -> the same."""
    height, width = image_rgb.shape[:2]
    strength = rng.uniform(0.1, 0.3 + 0.6 * difficulty)
    coarse = rng.random((3, 4), np.float32)
    field = 1 + strength * (cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) - 0.5)
    tint = rng.uniform(1 - 0.2 * difficulty, 1 + 0.2 * difficulty, 3).astype(np.float32)
    if rng.random() < 0.2 + 0.4 * difficulty:
        corners = rng.uniform(-0.4, 1.4, (4, 2)) * (width, height)
        mask = np.zeros((height // 2 + 1, width // 2 + 1), np.float32)
        cv2.fillConvexPoly(mask, cv2.convexHull((corners / 2).astype(np.int32)), 1.0)  # type: ignore[call-overload]
        mask = cv2.resize(cv2.GaussianBlur(mask, (0, 0), rng.uniform(1, 8)), (width, height)).astype(np.float32)
        field *= 1 - rng.uniform(0.15, 0.5) * mask
    return image_rgb * field[..., None] * tint


def take_photo(rng: np.random.Generator, image_rgb: FloatArray, difficulty: float) -> bytes:
    """The scene as a JPEG file: exposure, blur, sensor noise, compression. [h, w, 3] float32 RGB -> bytes."""
    shape = image_rgb.shape
    contrast, brightness = rng.uniform(0.8, 1.15), rng.uniform(-14, 14)
    curve = 255 * contrast * np.linspace(0, 1, 256, dtype=np.float32) ** rng.uniform(0.75, 1.3) + brightness
    exposed: FloatArray = cv2.LUT(cv2.convertScaleAbs(np.maximum(image_rgb, 0)), curve)  # type: ignore[assignment]
    blurred = _blur(rng, exposed, difficulty)
    sigma = rng.uniform(1, 4 + 16 * difficulty)
    noise = rng.standard_normal(shape, np.float32)
    # Photon noise grows with the square root of the light, read noise does not.
    noise *= 0.6 * sigma + 0.035 * sigma * cv2.sqrt(np.maximum(blurred, 0))
    photo: ImageArray = cv2.add(blurred, noise, dtype=cv2.CV_8U)  # type: ignore[assignment]
    quality = int(rng.uniform(92 - 55 * difficulty, 97))
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def _blur(rng: np.random.Generator, image_rgb: FloatArray, difficulty: float) -> FloatArray:
    if rng.random() < 0.2 * difficulty:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        ends = [tuple(int(v) for v in np.round(length / 2 - 0.5 + sign * reach)) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)  # type: ignore[call-overload]
        return cv2.filter2D(image_rgb, -1, kernel / max(kernel.sum(), 1)).astype(np.float32)
    sigma = rng.uniform(0, 0.5 + difficulty)
    return cv2.GaussianBlur(image_rgb, (0, 0), sigma).astype(np.float32) if sigma > 0.3 else image_rgb

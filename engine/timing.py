"""How fast a detector is, measured after it has warmed up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from utils.types import Detections, ImageArray


class Predicts(Protocol):
    """What is timed: see ``engine.inference.Predictor``."""

    def predict_batch(self, images: Sequence[ImageArray], score: float = ..., iou: float = ...) -> list[Detections]:
        """Detections of each image."""
        ...


@dataclass(frozen=True)
class Speed:
    """Times in milliseconds from decoded photos to detections, one batch; ``images_per_s`` over all of them."""

    batch_size: int
    batches: int
    median_ms: float
    p95_ms: float
    images_per_s: float


def measure_speed(
    predictor: Predicts,
    images: Sequence[ImageArray],
    batch_size: int,
    score: float = 0.5,
    iou: float = 0.3,
    batches: int = 30,
    limit_s: float = 20.0,
) -> Speed:
    """Times ``predict_batch`` on ``images`` (at least one, used in turn) after three batches that do not count.

    Fewer than ``batches`` are timed where ``limit_s`` seconds are over before, but always three.
    """
    supply = itertools.cycle(images)
    seconds: list[float] = []
    start = time.perf_counter()
    for turn in range(3 + batches):
        batch = list(itertools.islice(supply, batch_size))
        before = time.perf_counter()
        predictor.predict_batch(batch, score=score, iou=iou)
        now = time.perf_counter()
        if turn >= 3:
            seconds.append(now - before)
        if len(seconds) >= 3 and now - start > limit_s:
            break
    median_ms, p95_ms = 1000 * np.percentile(seconds, (50, 95))
    return Speed(batch_size, len(seconds), float(median_ms), float(p95_ms), batch_size * len(seconds) / sum(seconds))


def speed_table(
    predictor: Predicts, images: Sequence[ImageArray], batch_size: int, score: float = 0.5, iou: float = 0.3
) -> str:
    """``measure_speed`` one by one and in batches, as text."""
    lines = ["  batch  batches  median ms    p95 ms  images/s"]
    for size in sorted({1, batch_size}):
        speed = measure_speed(predictor, images, size, score, iou)
        lines.append(
            f"{size:7d}{speed.batches:9d}{speed.median_ms:11.1f}{speed.p95_ms:10.1f}{speed.images_per_s:10.1f}"
        )
    return "\n".join(lines)

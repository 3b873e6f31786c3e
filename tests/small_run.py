"""A run directory with a small detector that says something: not trained, but with scores and boxes of all sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from utils.config import DetectorSpec

ANCHORS = ((6, 8), (12, 10), (10, 20), (20, 24), (30, 20), (28, 40), (50, 40), (40, 60), (60, 60))


def small_spec(**changes: Any) -> DetectorSpec:
    values: dict[str, Any] = {
        "class_names": ("red", "blue", "白细胞"),
        "backbone": "mobilenet_v1_0.25_shallow",
        "input_size": 64,
        "anchors_wh_px": ANCHORS,
        "separable_head": True,
        "prior_probability": 0.0,
        "batch_norm_momentum": 0.0,
    }
    return DetectorSpec(**{**values, **changes})


def noise(count: int, seed: int = 0, size_hw: tuple[int, int] = (50, 70)) -> list[np.ndarray]:
    """Photos of random rectangles, which look different to a network everywhere."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    tall, wide = size_hw[0] // 5, size_hw[1] // 7
    return list(small.repeat(tall, axis=1).repeat(wide, axis=2))


def lively_detector(spec: DetectorSpec) -> Any:
    """A seeded detector whose batch statistics fit ``noise`` and whose logits are spread over several units."""
    from nets.detector import build_detector
    from utils.letterbox import place, resize_into

    model = build_detector(spec, seed=3)
    size = spec.input_size
    images = np.stack([resize_into(one, place(one.shape[:2], size, spec.resize), size) for one in noise(8, 1)])
    model(images, training=True)  # momentum 0: the moving statistics become those of this batch
    for level, output in model(images, training=False).items():
        layer = model.get_layer(f"head_{level}_logits")
        layer.kernel.assign(layer.kernel * (1.5 / np.std(output)))
    return model


def write_run(folder: Path, **changes: Any) -> Path:
    """``folder`` with the checkpoint ``best``."""
    from engine.checkpoint import Checkpoint, model_tensors, save_checkpoint

    spec = small_spec(**changes)
    save_checkpoint(folder / "best", Checkpoint(spec, model_tensors(lively_detector(spec))))
    return folder

"""Stands in for the network: finds the one red rectangle of a picture, so that doors are tested without TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import cv2
import numpy as np
import pytest

from engine.photo_detector import Ready
from utils.config import DetectorSpec
from utils.letterbox import place
from utils.types import Detections, FloatArray, ImageArray

SPEC = DetectorSpec(
    class_names=("red thing", "红细胞"),
    backbone="efficientnet_b0",
    input_size=64,
    anchors_wh_px=((10, 13), (16, 30), (33, 23)),
    masks=((0,), (1,), (2,)),
)


class FakePredictor:
    spec = SPEC

    def __init__(self, on_batch: Callable[[int], None] | None = None) -> None:
        self.batch_sizes: list[int] = []
        self.thresholds: list[tuple[float, float]] = []
        self._on_batch = on_batch

    def predict_batch(self, images: Sequence[ImageArray], score: float = 0.5, iou: float = 0.3) -> list[Detections]:
        return self.detect([self.ready(image) for image in images], score, iou)

    def ready(self, image: ImageArray, name: str = "image") -> Ready:
        return Ready(place((image.shape[0], image.shape[1]), SPEC.input_size, SPEC.resize, name), image)

    def detect(self, photos: Sequence[Ready], score: float, iou: float) -> list[Detections]:
        self.batch_sizes.append(len(photos))
        self.thresholds.append((score, iou))
        if self._on_batch:
            self._on_batch(len(self.batch_sizes))
        return [_find_red(photo.square) for photo in photos]

    def objectness_map(self, image: ImageArray) -> FloatArray:
        return _red(image).astype(np.float32)


def _red(image: ImageArray) -> np.ndarray:
    return (image[..., 0] > 150) & (image[..., 1] < 100) & (image[..., 2] < 100)


def _find_red(image: ImageArray) -> Detections:
    ys, xs = np.nonzero(_red(image))
    if not len(xs):
        return Detections.empty()
    box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    return Detections(box, np.array([0.875], np.float32), np.array([0]), ("red thing",))


def picture(
    size_hw: tuple[int, int] = (60, 80), box: tuple[int, int, int, int] | None = (10, 20, 40, 50)
) -> ImageArray:
    """Grey, with a red rectangle (x1, y1, x2, y2)."""
    image = np.full((*size_hw, 3), 120, np.uint8)
    if box:
        image[box[1] : box[3], box[0] : box[2]] = (220, 20, 20)
    return image


def write_picture(path: object, image: ImageArray) -> None:
    cv2.imwrite(str(path), image[..., ::-1])


def install(monkeypatch: pytest.MonkeyPatch, predictor: FakePredictor) -> list[object]:
    """Puts ``predictor`` in place of what ``engine.inference`` loads; returns the list of paths it is asked for."""
    asked: list[object] = []

    class Predictor:
        @classmethod
        def load(cls, path: object) -> FakePredictor:
            asked.append(path)
            return predictor

    module = ModuleType("engine.inference")
    module.Predictor = Predictor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "engine.inference", module)
    import engine

    monkeypatch.setattr(engine, "inference", module, raising=False)
    return asked

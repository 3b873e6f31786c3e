"""The Python API: a checkpoint in, detections out.

from yolo import Detector

detector = Detector("logs/first/best")
found = detector.detect("street.jpg")
for name, score, box in zip(found.names, found.scores, found.boxes_xyxy):
    print(name, score, box)

photos = ["a.jpg", "b.jpg"]
for photo, found in zip(photos, detector.detect(photos)):
    print(photo, len(found))
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np

from utils.config import DetectorSpec
from utils.errors import ConfigError
from utils.images import any_pixels, is_pillow
from utils.types import Detections, ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from engine.photo_detector import PhotoDetector

__all__ = ["Detections", "Detector"]

OneImage: TypeAlias = "str | Path | Image | ImageArray"


class Detector:
    """A trained detector.

    Args:
        weights: a checkpoint such as ``logs/first/best``, a run directory (its best, else its last), or what export.py
            wrote: an .onnx or .tflite file, the folder of an OpenVINO model or of a SavedModel.
        score: detections below this score are left out, 0..1.
        iou: of two detections of one class that overlap by more than this, the weaker is left out, 0..1.
        batch_size: images given to the network at once.
        ignore_exif: leave the EXIF orientation of photos alone; None does as in training.
        runtime: onnxruntime, openvino, litert or tensorflow; None: the one made for these weights; no other loads.
        input_size: side of the square that photos are fed in, a multiple of 32; None: that of the training. Exported
            files take another only where they were made with --dynamic-size.

    ConfigError for values out of range and for a runtime that is missing or does not fit, FileError when the weights
    are missing, foreign or damaged.
    """

    def __init__(
        self,
        weights: str | Path,
        score: float = 0.5,
        iou: float = 0.3,
        batch_size: int = 8,
        ignore_exif: bool | None = None,
        runtime: str | None = None,
        input_size: int | None = None,
    ) -> None:
        for name, value in (("score", score), ("iou", iou)):
            if not 0 <= value <= 1:  # NaN fails, too
                raise ConfigError(f"{name}: {value}: must lie in 0..1")
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size}: must be at least 1")
        from engine.runtimes.choice import load_detector

        self.predictor: PhotoDetector = load_detector(weights, runtime, input_size)
        self.score = score
        self.iou = iou
        self.batch_size = batch_size
        self.ignore_exif = self.spec.ignore_exif if ignore_exif is None else ignore_exif

    @property
    def spec(self) -> DetectorSpec:
        """What the detector is: classes, input size, backbone, resize rule."""
        return self.predictor.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it finds, by class id."""
        return self.spec.class_names

    @overload
    def detect(self, images: OneImage) -> Detections: ...
    @overload
    def detect(self, images: list[OneImage] | tuple[OneImage, ...]) -> list[Detections]: ...
    @overload
    def detect(self, images: Iterable[OneImage]) -> Detections | list[Detections]: ...
    def detect(self, images: OneImage | Iterable[OneImage]) -> Detections | list[Detections]:
        """Detections of one image, or a list of them for many, boxes in pixels of each image as it is shown.

        An image is a path, a Pillow image of any mode, or an RGB uint8 array [H, W, 3] (grey [H, W] works, too).
        Many are any iterable, read as needed. DataError for an image that cannot be used.
        """
        if _is_one(images):
            return self.predictor.predict_batch(
                [any_pixels(images, self.spec, self.ignore_exif)], score=self.score, iou=self.iou
            )[0]
        return list(self._detect_many(iter(images)))  # type: ignore[arg-type]

    def _detect_many(self, images: Iterator[OneImage]) -> Iterator[Detections]:
        from engine.pipeline import batches

        pixels = (any_pixels(image, self.spec, self.ignore_exif) for image in images)
        for batch in batches(pixels, self.batch_size):
            yield from self.predictor.predict_batch(batch, score=self.score, iou=self.iou)


def _is_one(images: object) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, str | os.PathLike) or is_pillow(images) or not isinstance(images, Iterable)

"""From photos to detections: the one path that validation, prediction and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import detector_spec_of, read_checkpoint, rebuild
from nets.decode import decode
from nets.nms import PaddedDetections, suppress
from utils.boxes import clip
from utils.config import LEVELS, DetectorSpec
from utils.letterbox import Placement, place, resize_into
from utils.types import Detections, FloatArray, ImageArray


class Predictor:
    """A detector ready to use. ``spec`` says what it finds and how photos are fed to it."""

    def __init__(self, model: keras.Model, spec: DetectorSpec) -> None:
        self.model = model
        self.spec = spec
        scalar = tf.TensorSpec([], tf.float32)
        images = tf.TensorSpec([None, None, None, 3], tf.uint8)
        self._detect = tf.function(self._detect_graph, input_signature=[images, scalar, scalar])
        self._objectness = tf.function(self._objectness_graph, input_signature=[images])

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Rebuilds the detector of a checkpoint. FileError when the file is missing, foreign or damaged."""
        checkpoint = read_checkpoint(path)
        return cls(rebuild(checkpoint, path), detector_spec_of(checkpoint, path))

    def predict_batch(self, images: Sequence[ImageArray], score: float = 0.5, iou: float = 0.3) -> list[Detections]:
        """Detections of each RGB uint8 image [H, W, 3] of any size, boxes in its own pixels, best first.

        Args:
            images: at least one.
            score: lowest score to report.
            iou: overlap above which the weaker of two boxes of a class goes.
        """
        placements, inputs = self._inputs(images)
        found = PaddedDetections(*(part.numpy() for part in self._detect(inputs, score, iou)))
        return [self._detections(found, i, placement) for i, placement in enumerate(placements)]

    def objectness_map(self, image: ImageArray) -> FloatArray:
        """Where the detector sees any object: [H, W] float32 in 0..1, aligned with ``image`` [H, W, 3]."""
        (placement,), inputs = self._inputs([image])
        squares = [level.numpy()[0] for level in self._objectness(inputs)]
        return _aligned(squares, placement, self.spec.input_size)

    def _inputs(self, images: Sequence[ImageArray]) -> tuple[list[Placement], ImageArray]:
        size = self.spec.input_size
        placements = [place((image.shape[0], image.shape[1]), size, self.spec.resize) for image in images]
        pairs = zip(images, placements, strict=True)
        return placements, np.stack([resize_into(image, placement, size) for image, placement in pairs])

    def _detect_graph(self, images: Any, score: Any, iou: Any) -> PaddedDetections:
        return suppress(decode(self.model(images, training=False), self.spec), score, iou)

    def _objectness_graph(self, images: Any) -> list[Any]:
        outputs = self.model(images, training=False)
        depth = 5 + len(self.spec.class_names)
        return [tf.sigmoid(tf.reduce_max(outputs[level][..., 4::depth], axis=-1)) for level in LEVELS]

    def _detections(self, found: PaddedDetections, index: int, placement: Placement) -> Detections:
        count = int(found.counts[index])
        boxes = placement.to_image(found.boxes_xyxy[index, :count].astype(np.float64) * self.spec.input_size)
        boxes = clip(boxes, placement.size_hw).astype(np.float32)
        # What lay wholly in the padding is nothing in the photo.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        class_ids = found.class_ids[index, :count].astype(np.int64)[inside]
        names = tuple(self.spec.class_names[i] for i in class_ids)
        return Detections(boxes[inside], found.scores[index, :count][inside], class_ids, names)


def _aligned(squares: Sequence[FloatArray], placement: Placement, input_size: int) -> FloatArray:
    """The strongest of the levels at each pixel of the photo. [G, G] each -> [H, W]."""
    side = (input_size, input_size)
    enlarged = [cv2.resize(s.astype(np.float32), side, interpolation=cv2.INTER_LINEAR) for s in squares]
    (left, top), (height, width) = placement.offset_xy, placement.resized_hw
    inner = np.max(enlarged, axis=0)[top : top + height, left : left + width]
    return cv2.resize(inner, placement.size_hw[::-1], interpolation=cv2.INTER_LINEAR)

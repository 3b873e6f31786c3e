"""The detector of a checkpoint: what validation, prediction and evaluation run, and exported files are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from engine.checkpoint import detector_spec_of, read_checkpoint, rebuild
from engine.devices import forward, share_gpu_memory
from engine.memory import SMALLER, within_memory
from engine.photo_detector import PhotoDetector, unpadded
from nets.decode import decode
from nets.nms import PaddedDetections, suppress
from utils.config import LEVELS, OBJECTNESS, DetectorSpec
from utils.postprocess import Found
from utils.types import FloatArray, ImageArray


class Predictor(PhotoDetector):
    """A Keras model as a detector."""

    def __init__(self, model: keras.Model, spec: DetectorSpec) -> None:
        super().__init__(spec)
        self.model = model
        scalar = tf.TensorSpec([], tf.float32)
        images = tf.TensorSpec([None, None, None, 3], tf.uint8)
        self._detect = tf.function(self.detect_graph, input_signature=[images, scalar, scalar], autograph=False)
        self._objectness = tf.function(self._objectness_graph, input_signature=[images], autograph=False)

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Rebuilds the detector of a checkpoint. FileError when the file is missing, foreign or damaged."""
        share_gpu_memory()
        checkpoint = read_checkpoint(path)
        return cls(rebuild(checkpoint, path), detector_spec_of(checkpoint, path))

    def find(self, inputs: ImageArray, score: float, iou: float) -> list[Found]:
        """What each of the prepared inputs [B, S, S, 3] holds. MemoryRanOutError where they are too many at once."""
        with within_memory("finding objects", len(inputs), SMALLER):
            return unpadded(*(part.numpy() for part in self._detect(inputs, score, iou)))

    def objectness(self, inputs: ImageArray) -> list[FloatArray]:
        """Of each level the best objectness of a cell, [B, G, G]. MemoryRanOutError as for ``find``."""
        with within_memory("finding objects", len(inputs), SMALLER):
            return [level.numpy() for level in self._objectness(inputs)]

    def raw_graph(self, images: Any) -> dict[str, Any]:
        """Raw logits by level of images [B, S, S, 3], as tensors."""
        return forward(self.model, images)

    def detect_graph(self, images: Any, score: Any, iou: Any) -> PaddedDetections:
        """Boxes after suppression of images [B, S, S, 3], as tensors."""
        return suppress(decode(self.raw_graph(images), self.spec), score, iou)

    def _objectness_graph(self, images: Any) -> list[Any]:
        outputs = self.raw_graph(images)
        of_slots = slice(OBJECTNESS, None, self.spec.slot_values)
        return [tf.sigmoid(tf.reduce_max(outputs[level][..., of_slots], axis=-1)) for level in LEVELS]

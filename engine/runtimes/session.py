"""What an exported file becomes once a runtime has loaded it, and the detector around it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from engine.photo_detector import PhotoDetector, unpadded
from utils.artifact import Artifact
from utils.config import LEVELS, OBJECTNESS
from utils.errors import ConfigError
from utils.postprocess import Found, find_boxes, sigmoid
from utils.types import FloatArray, ImageArray

NMS_RESULTS = ("boxes_xyxy", "scores", "class_ids", "counts")
Arrays = Mapping[str, np.ndarray]


class Session(Protocol):
    """A loaded file. ``artifact`` is what it says of itself."""

    artifact: Artifact

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name for inputs by name: ``images``, and with suppression inside also ``score`` and ``iou``."""
        ...


class ArtifactPredictor(PhotoDetector):
    """An exported file as a detector; TensorFlow is not needed for it."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.artifact.spec)
        self.session = session

    @property
    def artifact(self) -> Artifact:
        """What the file says of itself."""
        return self.session.artifact

    def use_size(self, input_size: int) -> None:
        """As every detector, where the file leaves the side open."""
        if input_size != self.spec.input_size and not self.artifact.any_size:
            fixed = self.spec.input_size
            raise ConfigError(f"input size: {input_size}: this file takes {fixed}: export it with --dynamic-size")
        super().use_size(input_size)

    def find(self, inputs: ImageArray, score: float, iou: float) -> list[Found]:
        """What each of the prepared inputs [B, S, S, 3] holds."""
        if not self.artifact.nms:
            return find_boxes(self.raw(inputs), self.spec, score, iou)
        thresholds = {"score": np.array(score, np.float32), "iou": np.array(iou, np.float32)}
        outputs = self.session.run({"images": inputs, **thresholds})
        return unpadded(*(outputs[name] for name in NMS_RESULTS))

    def raw(self, inputs: ImageArray) -> dict[str, FloatArray]:
        """Raw logits by level. ConfigError where only boxes come out."""
        if self.artifact.nms:
            raise ConfigError("raw outputs: only boxes come out of this file: export it without --nms")
        outputs = self.session.run({"images": inputs})
        return {level: outputs[level] for level in LEVELS}

    def objectness(self, inputs: ImageArray) -> list[FloatArray]:
        """Of each level the best objectness of a cell, [B, G, G]."""
        of_slots = slice(OBJECTNESS, None, self.spec.slot_values)
        return [sigmoid(output[..., of_slots].max(axis=-1)) for output in self.raw(inputs).values()]


def require(module: str, package: str) -> Any:
    """Imports an optional runtime. ConfigError that says how to install it where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ConfigError(f"{package}: is not installed: pip install -r requirements-export.txt") from error

"""From photos to detections, whatever computes the network: the one path that all runtimes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from utils.boxes import clip
from utils.config import LEVELS, STRIDES, DetectorSpec
from utils.errors import ConfigError
from utils.letterbox import Placement, place, resize_into
from utils.postprocess import Found
from utils.types import Detections, FloatArray, ImageArray, IntArray


class Ready(NamedTuple):
    """A photo as the network takes it, [S, S, 3] uint8, and where it lies in there."""

    placement: Placement
    square: ImageArray


class PhotoDetector(ABC):
    """A detector ready to use. ``spec`` says what it finds and how photos are fed to it."""

    def __init__(self, spec: DetectorSpec) -> None:
        self.spec = spec

    def use_size(self, input_size: int) -> None:
        """Feeds squares of another side than that of the training from now on. ConfigError for one that cannot be."""
        stride = STRIDES[LEVELS[-1]]
        if input_size < stride or input_size % stride:
            raise ConfigError(f"input size: {input_size}: must be a multiple of {stride}")
        self.spec = self.spec.at_size(input_size)

    @abstractmethod
    def find(self, inputs: ImageArray, score: float, iou: float) -> list[Found]:
        """What each of the prepared inputs [B, S, S, 3] holds."""

    @abstractmethod
    def objectness(self, inputs: ImageArray) -> list[FloatArray]:
        """Of each level the best objectness of a cell, [B, G, G] in 0..1, for inputs [B, S, S, 3].

        ConfigError where only boxes come out of the network.
        """

    def predict_batch(self, images: Sequence[ImageArray], score: float = 0.5, iou: float = 0.3) -> list[Detections]:
        """Detections of each RGB uint8 image [H, W, 3] of any size, boxes in its own pixels, best first.

        Args:
            images: at least one.
            score: lowest score to report.
            iou: overlap above which the weaker of two boxes of a class goes.
        """
        return self.detect([self.ready(image) for image in images], score, iou)

    def ready(self, image: ImageArray, name: str = "image") -> Ready:
        """The first half of ``predict_batch``, for one image; several threads may do it at once.

        DataError, with ``name`` for the image, for one too thin.
        """
        size = self.spec.input_size
        placement = place((image.shape[0], image.shape[1]), size, self.spec.resize, name)
        return Ready(placement, resize_into(image, placement, size))

    def detect(self, photos: Sequence[Ready], score: float, iou: float) -> list[Detections]:
        """The second half of ``predict_batch``; one thread at a time."""
        found = self.find(np.stack([photo.square for photo in photos]), score, iou)
        return [self._detections(one, photo.placement) for one, photo in zip(found, photos, strict=True)]

    def objectness_map(self, image: ImageArray) -> FloatArray:
        """Where the detector sees any object: [H, W] float32 in 0..1, aligned with ``image`` [H, W, 3]."""
        (placement,), inputs = self.prepare([image])
        squares = [level[0] for level in self.objectness(inputs)]
        return _aligned(squares, placement, self.spec.input_size)

    def prepare(self, images: Sequence[ImageArray]) -> tuple[list[Placement], ImageArray]:
        """The network's input [B, S, S, 3] uint8, and where each image lies in it."""
        photos = [self.ready(image) for image in images]
        return [photo.placement for photo in photos], np.stack([photo.square for photo in photos])

    def _detections(self, found: Found, placement: Placement) -> Detections:
        boxes = placement.to_image(found.boxes_xyxy.astype(np.float64) * self.spec.input_size)
        boxes = clip(boxes, placement.size_hw).astype(np.float32)
        # What lay wholly in the padding is nothing in the photo.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        class_ids = found.class_ids.astype(np.int64)[inside]
        names = tuple(self.spec.class_names[i] for i in class_ids)
        return Detections(boxes[inside], found.scores[inside], class_ids, names)


def unpadded(boxes_xyxy: FloatArray, scores: FloatArray, class_ids: FloatArray, counts: IntArray) -> list[Found]:
    """Splits a batch as ``nets.nms.PaddedDetections`` holds it into its images."""
    return [
        Found(boxes_xyxy[i, :count], scores[i, :count], class_ids[i, :count].astype(np.int64))
        for i, count in enumerate(counts.tolist())
    ]


def _aligned(squares: Sequence[FloatArray], placement: Placement, input_size: int) -> FloatArray:
    """The strongest of the levels at each pixel of the photo. [G, G] each -> [H, W]."""
    side = (input_size, input_size)
    enlarged = [cv2.resize(s.astype(np.float32), side, interpolation=cv2.INTER_LINEAR) for s in squares]
    (left, top), (height, width) = placement.offset_xy, placement.resized_hw
    inner = np.max(enlarged, axis=0)[top : top + height, left : left + width]
    return cv2.resize(inner, placement.size_hw[::-1], interpolation=cv2.INTER_LINEAR)

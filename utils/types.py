"""The facts that travel between rooms. Each checks its shapes once, when made; nobody downstream does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
ImageArray = NDArray[np.uint8]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class AnnotatedObject:
    """One ``object`` of a VOC XML. ``box_xyxy`` is in image pixels, as written (floats kept, no -1)."""

    name: str
    box_xyxy: tuple[float, float, float, float]
    difficult: bool = False


@dataclass(frozen=True)
class Annotation:
    """One VOC XML file. ``size_hw`` is None where the XML states no usable size."""

    xml_path: Path
    size_hw: tuple[int, int] | None
    objects: tuple[AnnotatedObject, ...]

    @property
    def image_id(self) -> str:
        """The XML's stem, whole: ``a.b.xml`` is the image ``a.b``."""
        return self.xml_path.name.removesuffix(self.xml_path.suffix)


@dataclass(frozen=True, eq=False)
class Record:
    """One line of an annotation list: an image and its training boxes.

    ``boxes_xyxy`` [N, 4] float64 image pixels; ``class_ids`` [N] int64. N may be 0 (a negative).
    """

    image_path: str
    boxes_xyxy: FloatArray
    class_ids: IntArray

    def __post_init__(self) -> None:
        _require(self.boxes_xyxy.ndim == 2 and self.boxes_xyxy.shape[1] == 4, "boxes_xyxy must be [N, 4]")
        _require(self.class_ids.shape == (len(self.boxes_xyxy),), "class_ids must be [N]")


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What an image holds, for evaluation: ``boxes_xyxy`` [N, 4] pixels, ``class_ids`` [N], ``difficult`` [N]."""

    image_id: str
    boxes_xyxy: FloatArray
    class_ids: IntArray
    difficult: BoolArray

    def __post_init__(self) -> None:
        count = len(self.boxes_xyxy)
        _require(self.boxes_xyxy.shape == (count, 4), "boxes_xyxy must be [N, 4]")
        _require(self.class_ids.shape == (count,), "class_ids must be [N]")
        _require(self.difficult.shape == (count,), "difficult must be [N]")


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image; a predictor gives the best score first, of all classes together.

    ``boxes_xyxy`` [N, 4] image pixels, float32 from a predictor; ``scores`` [N] in 0..1; ``class_ids`` [N]; ``names`` N
    class names.
    """

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.boxes_xyxy)
        _require(self.boxes_xyxy.shape == (count, 4), "boxes_xyxy must be [N, 4]")
        _require(self.scores.shape == (count,), "scores must be [N]")
        _require(self.class_ids.shape == (count,), "class_ids must be [N]")
        _require(len(self.names) == count, "names must hold one name per detection")

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ())

    def above(self, score: float) -> Detections:
        """Those with a score of at least ``score``."""
        keep = np.flatnonzero(self.scores >= score)
        names = tuple(self.names[i] for i in keep)
        return Detections(self.boxes_xyxy[keep], self.scores[keep], self.class_ids[keep], names)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {
            "boxes_xyxy": self.boxes_xyxy.tolist(),
            "scores": self.scores.tolist(),
            "class_ids": self.class_ids.tolist(),
            "names": list(self.names),
        }

    def draw(self, image_rgb: ImageArray, in_place: bool = False) -> ImageArray:
        """A copy of ``image_rgb`` [H, W, 3] uint8 with the boxes and their labels drawn in.

        ``in_place``: draw onto ``image_rgb`` itself where it can be written to.
        """
        from utils.draw import draw_detections  # drawing needs OpenCV and fonts; holding results does not

        return draw_detections(image_rgb, self, in_place)

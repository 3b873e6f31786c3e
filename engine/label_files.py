"""What a detector found in one image, as a file beside it: text, Pascal VOC XML, YOLO text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.types import AnnotatedObject, Annotation, Detections, FloatArray
from utils.voc_writing import format_annotation


def detection_text(detections: Detections) -> str:
    """Lines ``name score left top right bottom``, floats in full precision; to be read from the right."""
    return "".join(
        f"{name} {score!r} {' '.join(map(repr, box))}\n"
        for name, score, box in zip(
            detections.names, detections.scores.tolist(), detections.boxes_xyxy.tolist(), strict=True
        )
    )


def voc_xml(detections: Detections, file_name: str, size_hw: tuple[int, int]) -> bytes:
    """An annotation to be corrected and trained on: the detections as objects of the image ``file_name``."""
    objects = [
        AnnotatedObject(name, tuple(map(_shortest, box)))  # type: ignore[arg-type]
        for name, box in zip(detections.names, detections.boxes_xyxy, strict=True)
    ]
    return format_annotation(Annotation(Path(file_name), size_hw, tuple(objects)), file_name)


def yolo_text(detections: Detections, size_hw: tuple[int, int]) -> str:
    """Lines ``class_id x y width height score``: centre and size as parts of the image, 0..1."""
    height, width = size_hw
    boxes = detections.boxes_xyxy.astype(np.float64) / (width, height, width, height)
    rows = np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], detections.scores])
    return "".join(
        f"{class_id} {' '.join(f'{value:.6f}' for value in row)}\n"
        for class_id, row in zip(detections.class_ids.tolist(), rows.tolist(), strict=True)
    )


def _shortest(value: FloatArray) -> float:
    """The float with the shortest text that is this float32: people are going to read it."""
    return float(str(value))

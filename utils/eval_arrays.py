"""Ground truth and detections of a whole data set as flat arrays: what every metric works on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.types import BoolArray, Detections, FloatArray, GroundTruth, IntArray

PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True, eq=False)
class EvalArrays:
    """G objects and D detections of all images, sorted by image id, in their own order within an image.

    Boxes are [.., 4] float64 pixels; ``*_image`` index ``image_ids``; ``det_scores`` are float64.
    """

    image_ids: tuple[str, ...]
    class_count: int
    gt_boxes: FloatArray
    gt_classes: IntArray
    gt_difficult: BoolArray
    gt_image: IntArray
    det_boxes: FloatArray
    det_scores: FloatArray
    det_classes: IntArray
    det_image: IntArray

    @classmethod
    def gather(
        cls, ground_truths: Sequence[GroundTruth], detections: Mapping[str, Detections], class_count: int
    ) -> EvalArrays:
        """Lays everything out by image id, so that no number depends on the order images come in.

        An image without an entry in ``detections`` is one where nothing was found. ValueError for an image id that
        is there twice, detections of an unknown image, a class id outside 0..class_count - 1, or a score that is NaN.
        """
        twice = [name for name, times in Counter(truth.image_id for truth in ground_truths).items() if times > 1]
        if twice:
            raise ValueError(f"image id twice in the ground truth: {twice[0]!r}")
        truths = sorted(ground_truths, key=lambda truth: truth.image_id)
        image_ids = tuple(truth.image_id for truth in truths)
        if unknown := sorted(set(detections) - set(image_ids)):
            raise ValueError(f"detections of an image that has no ground truth: {unknown[0]!r}")
        found = [detections.get(image_id) or Detections.empty() for image_id in image_ids]
        arrays = cls(
            image_ids,
            class_count,
            _joined([truth.boxes_xyxy for truth in truths], (0, 4), np.float64),
            _joined([truth.class_ids for truth in truths], (0,), np.int64),
            _joined([truth.difficult for truth in truths], (0,), np.bool_),
            np.repeat(np.arange(len(truths)), [len(truth.class_ids) for truth in truths]),
            _joined([one.boxes_xyxy for one in found], (0, 4), np.float64),
            _joined([one.scores for one in found], (0,), np.float64),
            _joined([one.class_ids for one in found], (0,), np.int64),
            np.repeat(np.arange(len(truths)), [len(one) for one in found]),
        )
        arrays._check()
        return arrays

    def _check(self) -> None:
        for what, ids in (("ground truth", self.gt_classes), ("detections", self.det_classes)):
            if len(ids) and not (ids.min() >= 0 and ids.max() < self.class_count):
                raise ValueError(f"{what}: class ids must lie in 0..{self.class_count - 1}")
        if np.isnan(self.det_scores).any():
            raise ValueError("detections: a score is NaN")


def _joined(parts: Sequence[NDArray[Any]], empty_shape: tuple[int, ...], dtype: type[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros(empty_shape, dtype), *parts]).astype(dtype, copy=False)


def inclusive_iou(first_xyxy: FloatArray, second_xyxy: FloatArray) -> FloatArray:
    """IoU as the VOC devkit takes it: sides are x2 - x1 + 1. [P, 4], [P, 4] -> [P], pair by pair."""
    sides = np.minimum(first_xyxy[:, 2:], second_xyxy[:, 2:]) - np.maximum(first_xyxy[:, :2], second_xyxy[:, :2]) + 1
    overlap = np.where((sides > 0).all(-1), sides.prod(-1), 0.0)
    union = _inclusive_area(first_xyxy) + _inclusive_area(second_xyxy) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _inclusive_area(boxes_xyxy: FloatArray) -> FloatArray:
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2] + 1).prod(-1)


def paired_iou(
    det_boxes: FloatArray, det_keys: IntArray, gt_boxes: FloatArray, gt_keys: IntArray
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """Inclusive IoU of every detection with every object of the same key, in chunks that bound the memory.

    A key stands for an image, or for a class in an image. Yields (detection index [P], object index [P], IoU [P]);
    a detection's pairs lie together, its objects in their own order.
    """
    by_key = np.argsort(gt_keys, kind="stable")
    sorted_keys = gt_keys[by_key]
    first = np.searchsorted(sorted_keys, det_keys, side="left")
    count = np.searchsorted(sorted_keys, det_keys, side="right") - first
    ends = np.cumsum(count)
    start = 0
    while start < len(det_keys):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + PAIRS_AT_ONCE, side="right")))
        pairs = count[start:stop]
        det_index = np.repeat(np.arange(start, stop), pairs)
        within = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs)
        gt_index = by_key[first[det_index] + within]
        if len(det_index):
            yield det_index, gt_index, inclusive_iou(det_boxes[det_index], gt_boxes[gt_index])
        start = stop

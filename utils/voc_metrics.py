"""Pascal VOC average precision, precision/recall/F1 and log-average miss rate, in NumPy.

The matching is the devkit's (VOCdevkit/VOCcode/VOCevaldet.m): each detection looks for the object of its class with the
highest IoU in its image; at IoU >= 0.5 the best-scored detection of an object is a hit and every further one a
false positive; a detection whose object is difficult counts as nothing. Equal scores keep the order of image ids
(by code point), then the detector's own order within the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.eval_arrays import EvalArrays, paired_iou
from utils.types import BoolArray, FloatArray, IntArray

MATCH_IOU = 0.5


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """How one class fares as the score threshold falls: one point per detection that counts, best score first.

    ``scores`` [D] descending; ``true_positives`` and ``false_positives`` [D] are the true and false positives so far;
    ``objects`` is the number of objects to find (difficult ones left out), ``images`` that of images looked at.
    """

    scores: FloatArray
    true_positives: IntArray
    false_positives: IntArray
    objects: int
    images: int

    @property
    def recall(self) -> FloatArray:
        """[D]; NaN where there is nothing to find."""
        return self.true_positives / self.objects if self.objects else np.full(len(self.true_positives), np.nan)

    @property
    def precision(self) -> FloatArray:
        """[D]."""
        return self.true_positives / np.maximum(self.true_positives + self.false_positives, 1)

    @property
    def envelope(self) -> FloatArray:
        """[D]; the best precision at this recall or a higher one."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    def counts_at(self, score_thresholds: FloatArray) -> tuple[IntArray, IntArray]:
        """True and false positives among the detections with a score of at least each threshold. [T] -> [T], [T]."""
        kept = np.searchsorted(-self.scores, -score_thresholds, side="right")
        return np.concatenate([[0], self.true_positives])[kept], np.concatenate([[0], self.false_positives])[kept]


@dataclass(frozen=True)
class OperatingPoint:
    """One class, or all together, at one score threshold. None stands for 0/0.

    ``precision`` is None where nothing was detected; ``recall`` and ``f1`` are then 0, and None only where there is
    no object to find.
    """

    true_positives: int
    false_positives: int
    precision: float | None
    recall: float | None
    f1: float | None


def operating_point(true_positives: int, false_positives: int, objects: int) -> OperatingPoint:
    """Precision TP/(TP+FP), recall TP/objects and F1 = 2 TP/(TP + FP + objects)."""
    detected = true_positives + false_positives
    return OperatingPoint(
        true_positives,
        false_positives,
        true_positives / detected if detected else None,
        true_positives / objects if objects else None,
        2 * true_positives / (detected + objects) if objects else None,
    )


def point_at(curve: ClassCurve, score_threshold: float) -> OperatingPoint:
    """The class at one score threshold, itself included."""
    true_positives, false_positives = curve.counts_at(np.array([score_threshold]))
    return operating_point(int(true_positives[0]), int(false_positives[0]), curve.objects)


def class_curves(arrays: EvalArrays) -> list[ClassCurve]:
    """Matches every detection once and gives each class its curve, in class order."""
    best_iou, best_gt = _best_objects(arrays)
    order = np.argsort(-arrays.det_scores, kind="stable")
    matched = best_iou[order] >= MATCH_IOU
    counts = ~(matched & arrays.gt_difficult[best_gt[order]]) if len(arrays.gt_boxes) else np.ones(len(order), np.bool_)
    order, matched = order[counts], matched[counts]
    hit = _first_of_each(best_gt[order], matched)
    classes = arrays.det_classes[order]
    objects = np.bincount(arrays.gt_classes[~arrays.gt_difficult], minlength=arrays.class_count)
    curves = []
    for class_id in range(arrays.class_count):
        mine = np.flatnonzero(classes == class_id)
        found, false = np.cumsum(hit[mine], dtype=np.int64), np.cumsum(~hit[mine], dtype=np.int64)
        scores = arrays.det_scores[order[mine]]
        curves.append(ClassCurve(scores, found, false, int(objects[class_id]), len(arrays.image_ids)))
    return curves


def _best_objects(arrays: EvalArrays) -> tuple[FloatArray, IntArray]:
    """Per detection the highest IoU with an object of its class and image, and that object (the first if equal)."""
    best_iou = np.zeros(len(arrays.det_boxes))
    best_gt = np.zeros(len(arrays.det_boxes), np.int64)
    det_keys = arrays.det_image * arrays.class_count + arrays.det_classes
    gt_keys = arrays.gt_image * arrays.class_count + arrays.gt_classes
    for det_index, gt_index, iou in paired_iou(arrays.det_boxes, det_keys, arrays.gt_boxes, gt_keys):
        starts = np.flatnonzero(np.diff(det_index, prepend=-1))
        highest = np.maximum.reduceat(iou, starts)
        at_highest = iou == np.repeat(highest, np.diff(starts, append=len(iou)))
        which, first = np.unique(det_index[at_highest], return_index=True)
        best_iou[which] = highest
        best_gt[which] = gt_index[at_highest][first]
    return best_iou, best_gt


def _first_of_each(objects: IntArray, matched: BoolArray) -> BoolArray:
    """True where a matched detection is the first, in this order, of its object. [D], [D] -> [D]."""
    candidates = np.flatnonzero(matched)
    first = np.unique(objects[candidates], return_index=True)[1]
    hit = np.zeros(len(objects), np.bool_)
    hit[candidates[first]] = True
    return hit


def average_precision(curve: ClassCurve) -> float | None:
    """All-point AP (VOC 2010 and later): the area under precision made monotonic from the right.

    None without objects to find, 0 without detections.
    """
    if not curve.objects:
        return None
    recall = np.concatenate([[0.0], curve.recall])
    return float(np.sum(np.diff(recall) * curve.envelope))


def average_precision_11pt(curve: ClassCurve) -> float | None:
    """11-point AP (VOC 2007): the mean of the best precision at recall >= 0, 0.1, .. 1.

    Recalls are compared as integers (10 hits >= step * objects): in floats, 0.1 * 3 > 3/10 would lose a point.
    """
    if not curve.objects:
        return None
    best = [curve.precision[10 * curve.true_positives >= step * curve.objects].max(initial=0.0) for step in range(11)]
    return float(np.sum(best) / 11)


def log_average_miss_rate(curve: ClassCurve) -> float | None:
    """Geometric mean of the miss rate at nine false-positive rates, log-spaced over 0.01..1 per image.

    Dollar et al., "Pedestrian Detection: An Evaluation of the State of the Art", PAMI 2012, section 3.1. Miss rates
    are held at 1e-10 or more for the logarithm. The x axis is false positives per image; the reference
    implementation feeds 1 - precision there, and its values differ. None without objects, 1 without detections.
    """
    if not curve.objects:
        return None
    per_image = np.concatenate([[-1.0], curve.false_positives / curve.images])
    miss_rate = np.concatenate([[1.0], 1.0 - curve.recall])
    last = np.searchsorted(per_image, np.logspace(-2.0, 0.0, 9), side="right") - 1
    return float(np.exp(np.mean(np.log(np.maximum(miss_rate[last], 1e-10)))))

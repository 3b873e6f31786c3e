"""Which class was taken for which."""

from __future__ import annotations

import numpy as np

from utils.eval_arrays import EvalArrays, paired_iou
from utils.types import FloatArray, IntArray
from utils.voc_metrics import MATCH_IOU


def confusion_matrix(arrays: EvalArrays, score_threshold: float) -> IntArray:
    """Counts [true, predicted], the last row and column being the background. [C + 1, C + 1] int64.

    Detections with a score of at least ``score_threshold`` are paired with objects of any class at IoU >= 0.5
    (inclusive widths), greedily: the highest IoU first, then the higher score, then the given order; each is used
    once. An object left over is (class, background): missed. A detection left over, a second one on the same object
    included, is (background, class): a false alarm. Difficult objects take part last: a detection that only one of
    them explains is left out, and so are they.
    """
    size = arrays.class_count + 1
    kept = np.flatnonzero(arrays.det_scores >= score_threshold)
    det_index, gt_index = _candidates(arrays, kept)
    det_used, gt_used = np.zeros(len(arrays.det_boxes), np.bool_), np.zeros(len(arrays.gt_boxes), np.bool_)
    matrix = np.zeros((size, size), np.int64)
    for det, gt in zip(det_index.tolist(), gt_index.tolist(), strict=True):
        if det_used[det] or gt_used[gt]:
            continue
        det_used[det] = gt_used[gt] = True
        if not arrays.gt_difficult[gt]:
            matrix[arrays.gt_classes[gt], arrays.det_classes[det]] += 1
    missed = arrays.gt_classes[~gt_used & ~arrays.gt_difficult]
    alarms = arrays.det_classes[kept][~det_used[kept]]
    matrix[:-1, -1] = np.bincount(missed, minlength=size - 1)
    matrix[-1, :-1] = np.bincount(alarms, minlength=size - 1)
    return matrix


def _candidates(arrays: EvalArrays, kept: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs that overlap enough, in the order in which they may be taken: (detection index, object index)."""
    dets: list[IntArray] = [np.zeros(0, np.int64)]
    gts: list[IntArray] = [np.zeros(0, np.int64)]
    ious: list[FloatArray] = [np.zeros(0)]
    pairs = paired_iou(arrays.det_boxes[kept], arrays.det_image[kept], arrays.gt_boxes, arrays.gt_image)
    for det_index, gt_index, iou in pairs:
        near = iou >= MATCH_IOU
        dets.append(kept[det_index[near]])
        gts.append(gt_index[near])
        ious.append(iou[near])
    det, gt, iou = np.concatenate(dets), np.concatenate(gts), np.concatenate(ious)
    order = np.lexsort((gt, det, -arrays.det_scores[det], -iou, arrays.gt_difficult[gt]))
    return det[order], gt[order]

"""The twelve COCO numbers, through hotcoco (equal to pycocotools, many times faster)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from utils.eval_arrays import EvalArrays

IOU_50, IOU_75 = 0, 5
ALL_SIZES, SMALL, MEDIUM, LARGE = range(4)
MAX_DETECTIONS = (1, 10, 100)


@dataclass(frozen=True)
class CocoNumbers:
    """COCO's summary, each in 0..1, and None where no object of that kind exists.

    ``ap`` is the mean over IoU 0.50:0.05:0.95; small is an area below 32^2 pixels, large above 96^2; ``ar_n`` is the
    recall with the best n detections per image and class. Averages run over the classes that have objects.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


def coco_metrics(
    arrays: EvalArrays, class_names: Sequence[str]
) -> tuple[CocoNumbers, tuple[float | None, ...], tuple[float | None, ...]]:
    """The summary, and AP and AP50 of each class in class order.

    Difficult objects go in as ``iscrowd``; an object's area is its box's. Images are numbered, so their ids stay
    whole. Classes are numbered by code point of their names, so the order of the list decides no last digit.
    """
    by_name = sorted(range(len(class_names)), key=lambda class_id: class_names[class_id])
    rank = np.zeros(len(class_names), np.int64)
    rank[by_name] = np.arange(len(class_names))
    precision, recall = _accumulated(arrays, rank)
    summary = CocoNumbers(
        _mean(precision[:, :, :, ALL_SIZES, -1]),
        _mean(precision[IOU_50, :, :, ALL_SIZES, -1]),
        _mean(precision[IOU_75, :, :, ALL_SIZES, -1]),
        *(_mean(precision[:, :, :, size, -1]) for size in (SMALL, MEDIUM, LARGE)),
        *(_mean(recall[:, :, ALL_SIZES, limit]) for limit in range(len(MAX_DETECTIONS))),
        *(_mean(recall[:, :, size, -1]) for size in (SMALL, MEDIUM, LARGE)),
    )
    per_class = tuple(_mean(precision[:, :, rank[i], ALL_SIZES, -1]) for i in range(len(class_names)))
    per_class_50 = tuple(_mean(precision[IOU_50, :, rank[i], ALL_SIZES, -1]) for i in range(len(class_names)))
    return summary, per_class, per_class_50


def _accumulated(arrays: EvalArrays, rank: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision [IoU 10, recall 101, class, size 4, limit 3] and recall [10, class, 4, 3]; -1 where undefined."""
    from hotcoco import COCO, COCOeval  # loading it costs more than all other metrics of a small set

    truth = COCO.from_arrays(
        [{"id": number} for number in range(1, len(arrays.image_ids) + 1)],
        [{"id": number, "name": str(number)} for number in range(1, len(rank) + 1)],
        arrays.gt_image + 1,
        rank[arrays.gt_classes] + 1,
        _xywh(arrays.gt_boxes),
        iscrowd=arrays.gt_difficult,
    )
    columns = (arrays.det_image + 1, _xywh(arrays.det_boxes), arrays.det_scores, rank[arrays.det_classes] + 1)
    evaluation = COCOeval(truth, truth.load_res(np.column_stack(columns)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    results = cast(dict[str, NDArray[np.float64]], evaluation.eval)
    return results["precision"], results["recall"]


def _xywh(boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean of the defined values, summed exactly so that their order does not matter."""
    defined = values[values > -1]
    return math.fsum(defined.tolist()) / defined.size if defined.size else None

"""What a detector is worth: the one place where VOC and COCO numbers come together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.coco_metrics import CocoNumbers, coco_metrics
from utils.confusion import confusion_matrix
from utils.eval_arrays import EvalArrays
from utils.types import Detections, GroundTruth, IntArray
from utils.voc_metrics import (
    ClassCurve,
    OperatingPoint,
    average_precision,
    average_precision_11pt,
    class_curves,
    log_average_miss_rate,
    operating_point,
    point_at,
)


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """One class. A value is None where it is 0/0: without objects to find there is no AP, recall, F1 or miss rate.

    ``ap`` and ``ap_11pt`` are VOC's at IoU 0.5, ``coco_ap`` COCO's over IoU 0.50:0.95; ``lamr`` is the log-average
    miss rate; ``objects`` are the objects to find, ``difficult`` those left out, ``detections`` all that were given.
    """

    name: str
    ap: float | None
    ap_11pt: float | None
    coco_ap: float | None
    coco_ap50: float | None
    lamr: float | None
    objects: int
    difficult: int
    detections: int
    at_threshold: OperatingPoint
    curve: ClassCurve

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the curve."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for inner in ("name", "curve", "at_threshold"):
            del kept[inner]
        return kept | dataclasses.asdict(self.at_threshold)


@dataclass(frozen=True, eq=False)
class Metrics:
    """A detector on a data set. Means run over the classes that have objects to find; None when no class has.

    ``voc_map_50`` is the mean all-point AP (VOC 2010 and later), ``voc_map_50_11pt`` the mean 11-point AP (VOC 2007),
    both at IoU 0.5 with inclusive widths. ``at_threshold`` counts all classes together at ``score_threshold``.
    ``confusion`` [C + 1, C + 1] holds counts [true, predicted] with the background last.
    """

    voc_map_50: float | None
    voc_map_50_11pt: float | None
    coco: CocoNumbers
    mean_lamr: float | None
    score_threshold: float
    at_threshold: OperatingPoint
    images: int
    classes: tuple[ClassMetrics, ...]
    confusion: IntArray

    @property
    def class_names(self) -> tuple[str, ...]:
        """In class order."""
        return tuple(one.name for one in self.classes)

    @property
    def coco_ap(self) -> float | None:
        """COCO AP over IoU 0.50:0.95."""
        return self.coco.ap

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undefined ones are None, never NaN."""
        return {
            "voc_map_50": self.voc_map_50,
            "voc_map_50_11pt": self.voc_map_50_11pt,
            **{f"coco_{name}": value for name, value in dataclasses.asdict(self.coco).items()},
            "mean_lamr": self.mean_lamr,
            "score_threshold": self.score_threshold,
            **dataclasses.asdict(self.at_threshold),
            "images": self.images,
            "objects": sum(one.objects for one in self.classes),
            "difficult": sum(one.difficult for one in self.classes),
            "detections": sum(one.detections for one in self.classes),
            "per_class": {one.name: one.to_dict() for one in self.classes},
            "confusion": {"labels": [*self.class_names, "background"], "counts": self.confusion.tolist()},
        }


def evaluate(
    ground_truths: Sequence[GroundTruth],
    detections: Mapping[str, Detections],
    class_names: Sequence[str],
    score_threshold: float = 0.5,
) -> Metrics:
    """Measures ``detections`` (by image id; no entry means nothing found) against ``ground_truths``.

    The order of the images decides nothing. ``score_threshold`` affects precision, recall, F1 and the confusion
    matrix alone. ValueError for a repeated image id, detections of an unknown image or an unknown class id.
    """
    arrays = EvalArrays.gather(ground_truths, detections, len(class_names))
    curves = class_curves(arrays)
    coco, coco_aps, coco_aps_50 = coco_metrics(arrays, class_names)
    classes = []
    for class_id, (name, curve) in enumerate(zip(class_names, curves, strict=True)):
        mine = arrays.gt_classes == class_id
        classes.append(
            ClassMetrics(
                name,
                average_precision(curve),
                average_precision_11pt(curve),
                coco_aps[class_id],
                coco_aps_50[class_id],
                log_average_miss_rate(curve),
                curve.objects,
                int((mine & arrays.gt_difficult).sum()),
                int((arrays.det_classes == class_id).sum()),
                point_at(curve, score_threshold),
                curve,
            )
        )
    points = [one.at_threshold for one in classes]
    return Metrics(
        _mean([one.ap for one in classes]),
        _mean([one.ap_11pt for one in classes]),
        coco,
        _mean([one.lamr for one in classes]),
        score_threshold,
        operating_point(
            sum(point.true_positives for point in points),
            sum(point.false_positives for point in points),
            sum(one.objects for one in classes),
        ),
        len(arrays.image_ids),
        tuple(classes),
        confusion_matrix(arrays, score_threshold),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of the defined values, summed exactly so that the order of the classes decides no last digit."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None

"""What a classifier is worth: top-1, top-5, precision and recall by class, and which class was taken for which."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import ConfigError
from utils.types import BoolArray, FloatArray, IntArray

SMALLEST_PROBABILITY = 1e-12
"""Stands in the logarithm for a probability that was rounded to 0."""


@dataclass(frozen=True)
class ClassScores:
    """One class. A ratio is None where it is 0/0: recall without images, precision of what was never predicted."""

    name: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, eq=False)
class ClassificationMetrics:
    """A classifier on a set of images.

    ``top1`` and ``top5`` are shares of the images whose class came first, or among the first five; ``top5`` is None
    with five classes or fewer, where it would always be 1. ``mean_recall`` weighs every class alike, however many
    images it has. ``loss`` is the mean cross-entropy. ``confusion`` [C, C] counts [true, predicted].
    """

    images: int
    top1: float
    top5: float | None
    mean_recall: float
    loss: float
    classes: tuple[ClassScores, ...]
    confusion: IntArray

    @property
    def class_names(self) -> tuple[str, ...]:
        """In class order."""
        return tuple(one.name for one in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undefined ones are None."""
        names = ("images", "top1", "top5", "mean_recall", "loss")
        per_class = {one.name: dataclasses.asdict(one) for one in self.classes}
        for values in per_class.values():
            del values["name"]
        counts = {"labels": list(self.class_names), "counts": self.confusion.tolist()}
        return {**{name: getattr(self, name) for name in names}, "per_class": per_class, "confusion": counts}


def evaluate_classes(
    probabilities: FloatArray, true_ids: IntArray, class_names: Sequence[str]
) -> ClassificationMetrics:
    """Measures ``probabilities`` [N, C] against ``true_ids`` [N]. ConfigError without any image.

    Of equal probabilities that of the lower class id comes first.
    """
    if not len(true_ids):
        raise ConfigError("no image to measure on")
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(confusion, (true_ids, predicted), 1)
    classes = tuple(_scores(name, i, confusion) for i, name in enumerate(class_names))
    recalls = [one.recall for one in classes if one.recall is not None]
    own = probabilities[np.arange(len(true_ids)), true_ids].astype(np.float64)
    return ClassificationMetrics(
        images=len(true_ids),
        top1=float((predicted == true_ids).mean()),
        top5=float(among_first(probabilities, true_ids, 5).mean()) if len(class_names) > 5 else None,
        mean_recall=float(np.mean(recalls)),
        loss=float(-np.log(np.maximum(own, SMALLEST_PROBABILITY)).mean()),
        classes=classes,
        confusion=confusion,
    )


def among_first(probabilities: FloatArray, true_ids: IntArray, count: int) -> BoolArray:
    """Whether the true class is among the ``count`` most probable. [N, C], [N] -> [N]."""
    own = probabilities[np.arange(len(true_ids)), true_ids][:, None]
    earlier = np.arange(probabilities.shape[1]) < true_ids[:, None]
    before = (probabilities > own) | ((probabilities == own) & earlier)
    return before.sum(axis=1) < count


def worst_mistakes(probabilities: FloatArray, true_ids: IntArray, count: int) -> IntArray:
    """Indices of the images that were given a wrong class, the surest mistakes first; at most ``count``."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != true_ids)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]


def _scores(name: str, class_id: int, confusion: IntArray) -> ClassScores:
    right = int(confusion[class_id, class_id])
    images, predicted = int(confusion[class_id].sum()), int(confusion[:, class_id].sum())
    return ClassScores(
        name,
        images,
        predicted,
        precision=right / predicted if predicted else None,
        recall=right / images if images else None,
        f1=2 * right / (images + predicted) if images + predicted else None,
    )

"""Whether two detectors, or one in two forms, found the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from utils.types import Detections


@dataclass(frozen=True)
class Agreement:
    """Boxes of the one and of the other, pairs that are the same, and the largest differences within those pairs."""

    first: int
    second: int
    matched: int
    worst_px: float
    worst_score: float

    @property
    def unmatched(self) -> int:
        """Boxes that only one of the two found."""
        return self.first + self.second - 2 * self.matched


def agreement(
    pairs: Iterable[tuple[Detections, Detections]], score: float, within_px: float, within_score: float
) -> Agreement:
    """Compares detections of the same images, taken above ``score``.

    Two boxes are the same when their class is, their corners lie within ``within_px`` and their scores within
    ``within_score``. A box without partner whose score is that close to the threshold is not counted: the other's may
    lie just below.
    """
    first = second = matched = 0
    worst_px = worst_score = 0.0
    for one, other in pairs:
        found = _pairs(one, other, within_px, within_score)
        for i, j in found:
            worst_px = max(worst_px, float(np.abs(one.boxes_xyxy[i] - other.boxes_xyxy[j]).max()))
            worst_score = max(worst_score, float(abs(one.scores[i] - other.scores[j])))
        matched += len(found)
        first += _counted(one, {i for i, _ in found}, score + within_score)
        second += _counted(other, {j for _, j in found}, score + within_score)
    return Agreement(first, second, matched, worst_px, worst_score)


def _pairs(one: Detections, other: Detections, within_px: float, within_score: float) -> list[tuple[int, int]]:
    free = np.ones(len(other), np.bool_)
    found = []
    for i in range(len(one)):
        apart = np.abs(other.boxes_xyxy - one.boxes_xyxy[i]).max(axis=1)
        same = (other.class_ids == one.class_ids[i]) & (np.abs(other.scores - one.scores[i]) <= within_score)
        apart = np.where(free & same, apart, np.inf)
        if len(apart) and apart.min() <= within_px:
            j = int(apart.argmin())
            free[j] = False
            found.append((i, j))
    return found


def _counted(detections: Detections, partnered: set[int], clear: float) -> int:
    return sum(i in partnered or score > clear for i, score in enumerate(detections.scores.tolist()))

from __future__ import annotations

import numpy as np
import pytest

from utils.box_matching import agreement
from utils.types import Detections


def found(*boxes: tuple[float, float, int]) -> Detections:
    """Boxes 20 px wide, each (left edge, score, class)."""
    corners = np.array([[left, 5, left + 20, 30] for left, _, _ in boxes], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in boxes], np.float32)
    class_ids = np.array([class_id for *_, class_id in boxes], np.int64)
    return Detections(corners, scores, class_ids, tuple("abc"[i] for i in class_ids))


def compare(one: Detections, other: Detections) -> tuple[int, int]:
    result = agreement([(one, other)], 0.5, within_px=0.5, within_score=1e-3)
    return result.matched, result.unmatched


def test_order_is_nothing_and_the_worst_pair_is_told() -> None:
    one = found((10, 0.9, 0), (50, 0.8, 1), (90, 0.7, 0))
    other = found((90.25, 0.7, 0), (10, 0.9, 0), (50, 0.8005, 1))
    result = agreement([(one, other), (found(), found())], 0.5, 0.5, 1e-3)
    assert (result.first, result.second, result.matched, result.unmatched) == (3, 3, 3, 0)
    assert result.worst_px == pytest.approx(0.25)
    assert result.worst_score == pytest.approx(5e-4, abs=1e-6)


@pytest.mark.parametrize("other", [(10.6, 0.9, 0), (10, 0.902, 0), (10, 0.9, 1)])
def test_a_box_that_moved_or_changed_is_another(other: tuple[float, float, int]) -> None:
    assert compare(found((10, 0.9, 0)), found(other)) == (0, 2)


def test_a_box_is_the_partner_of_one_only() -> None:
    assert compare(found((10, 0.9, 0), (10.1, 0.9, 0)), found((10, 0.9, 0))) == (1, 1)


def test_what_lies_at_the_threshold_may_be_missing() -> None:
    assert compare(found((10, 0.9, 0), (50, 0.5005, 0)), found((10, 0.9, 0))) == (1, 0)
    assert compare(found((10, 0.9, 0)), found((10, 0.9, 0), (50, 0.5005, 0))) == (1, 0)
    assert compare(found((10, 0.9, 0), (50, 0.502, 0)), found((10, 0.9, 0))) == (1, 1)

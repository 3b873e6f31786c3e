from __future__ import annotations

import numpy as np
import pytest

from utils.boxes import area, clip, pairwise_iou, shape_iou, xyxy_to_cxcywh

NO_BOXES = np.zeros((0, 4))


def from_centres(boxes_cxcywh: np.ndarray) -> np.ndarray:
    half = boxes_cxcywh[..., 2:] / 2
    return np.concatenate([boxes_cxcywh[..., :2] - half, boxes_cxcywh[..., :2] + half], axis=-1)


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    corners = np.random.default_rng(seed).uniform(0, 100, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def test_areas() -> None:
    assert area(np.array([[0, 0, 2, 3], [5, 5, 5, 9], [4, 4, 2, 9.0]])).tolist() == [6, 0, 0]
    assert area(NO_BOXES).shape == (0,)


def test_iou_of_hand_worked_pairs() -> None:
    first = np.array([[0, 0, 4, 4.0]])
    second = np.array(
        [
            [0, 0, 4, 4],  # itself: 1
            [0, 0, 2, 2],  # a quarter of it: 4 / 16
            [2, 2, 6, 6],  # a corner: 4 / (16 + 16 - 4)
            [4, 0, 8, 4],  # side by side: 0
            [1, 1, 1, 1],  # no area: 0
        ],
        np.float64,
    )
    assert pairwise_iou(first, second)[0].tolist() == [1, 1 / 4, 1 / 7, 0, 0]
    assert pairwise_iou(second[4:], second[4:]).tolist() == [[0]]


def test_iou_keeps_the_shape_of_empty_sets() -> None:
    assert pairwise_iou(NO_BOXES, random_boxes(3)).shape == (0, 3)
    assert pairwise_iou(random_boxes(3), NO_BOXES).shape == (3, 0)


def test_iou_is_symmetric_and_lies_in_0_to_1() -> None:
    iou = pairwise_iou(random_boxes(20), random_boxes(20))
    np.testing.assert_allclose(iou, iou.T)
    np.testing.assert_allclose(iou.diagonal(), 1)
    assert (iou >= 0).all()
    assert (iou <= 1 + 1e-12).all()


def test_shape_iou_is_the_iou_of_boxes_around_one_centre() -> None:
    sizes = np.random.default_rng(1).uniform(1, 50, (8, 2))
    around = from_centres(np.concatenate([np.full((8, 2), 60.0), sizes], axis=1))
    np.testing.assert_allclose(shape_iou(sizes, sizes), pairwise_iou(around, around))
    # 2 x 8 and 4 x 4 share 2 x 4: 8 / (16 + 16 - 8).
    assert shape_iou(np.array([[2, 8.0]]), np.array([[4, 4.0]])).item() == pytest.approx(1 / 3)


def test_clipping_cuts_to_width_and_height() -> None:
    boxes = np.array([[-5, -6, 200, 300], [10, 10, 20, 20.0]])
    assert clip(boxes, (100, 50)).tolist() == [[0, 0, 50, 100], [10, 10, 20, 20]]
    assert clip(boxes.astype(np.float32), (100, 50)).dtype == np.float32


def test_corners_to_centres_and_back() -> None:
    boxes = random_boxes(20)
    np.testing.assert_allclose(from_centres(xyxy_to_cxcywh(boxes)), boxes)
    assert xyxy_to_cxcywh(np.array([[2, 4, 6, 14.0]])).tolist() == [[4, 9, 4, 10]]
    assert xyxy_to_cxcywh(NO_BOXES).shape == (0, 4)

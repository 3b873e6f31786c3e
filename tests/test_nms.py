from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from nets.decode import Slots
from nets.nms import suppress


def plain_nms(boxes: np.ndarray, scores: np.ndarray, score: float, iou: float, most: int) -> list[tuple[int, int]]:
    """(class, slot) kept, one class after the other: greedy, by falling score."""
    kept = []
    for class_id in range(scores.shape[1]):
        chosen: list[int] = []
        for i in sorted(np.flatnonzero(scores[:, class_id] > score), key=lambda i: -scores[i, class_id]):
            if len(chosen) < most and all(plain_iou(boxes[i], boxes[j]) <= iou for j in chosen):
                chosen.append(int(i))
        kept += [(class_id, i) for i in chosen]
    return kept


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def random_slots(batch: int, count: int, classes: int, seed: int) -> Slots:
    rng = np.random.default_rng(seed)
    centres, sizes = rng.uniform(0, 1, (batch, count, 2)), rng.uniform(0.05, 0.4, (batch, count, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1).astype(np.float32)
    objectness = rng.normal(0, 2, (batch, count)).astype(np.float32)
    logits = rng.normal(0, 2, (batch, count, classes)).astype(np.float32)
    return Slots(tf.constant(boxes), tf.constant(objectness), tf.constant(logits))


def scores_of(slots: Slots) -> np.ndarray:
    return (tf.sigmoid(slots.objectness)[..., None] * tf.sigmoid(slots.class_logits)).numpy()


@pytest.mark.parametrize(("seed", "classes", "score", "iou"), [(0, 1, 0.1, 0.3), (1, 3, 0.001, 0.5), (2, 20, 0.5, 0.3)])
def test_equals_plain_nms_on_random_boxes(seed: int, classes: int, score: float, iou: float) -> None:
    slots = random_slots(2, 150, classes, seed)
    found = suppress(slots, score, iou)
    all_scores = scores_of(slots)
    for image in range(2):
        boxes = slots.boxes_xyxy[image].numpy()
        expected = plain_nms(boxes, all_scores[image], score, iou, 100)
        count = int(found.counts[image])
        got = {
            (int(c), *np.round(b, 6).tolist())
            for c, b in zip(found.class_ids[image, :count], found.boxes_xyxy[image, :count].numpy(), strict=True)
        }
        assert got == {(c, *np.round(boxes[i], 6).tolist()) for c, i in expected}
        assert count == len(expected)


def test_best_first_and_zero_padding() -> None:
    found = suppress(random_slots(2, 80, 2, 3), 0.3, 0.5)
    for scores, boxes, count in zip(found.scores.numpy(), found.boxes_xyxy.numpy(), found.counts.numpy(), strict=True):
        assert (np.diff(scores[:count]) <= 0).all()
        assert (scores[count:] == 0).all()
        assert (boxes[count:] == 0).all()


def test_one_box_can_have_several_classes() -> None:
    slots = Slots(tf.constant([[[0.1, 0.1, 0.5, 0.5]]]), tf.constant([[9.0]]), tf.constant([[[9.0, 9.0, -9.0]]]))
    found = suppress(slots, 0.5, 0.3)
    assert sorted(found.class_ids[0, : int(found.counts[0])].numpy().tolist()) == [0, 1]


def test_nothing_above_the_threshold_is_nothing() -> None:
    assert suppress(random_slots(3, 20, 2, 0), 0.9999, 0.5).counts.numpy().tolist() == [0, 0, 0]


def test_at_most_one_hundred_of_a_class() -> None:
    # 225 boxes that do not touch each other
    x, y = np.meshgrid(np.arange(15) / 15, np.arange(15) / 15)
    corners = np.stack([x, y], -1).reshape(-1, 2)
    boxes = np.concatenate([corners, corners + 0.05], -1).astype(np.float32)[None]
    slots = Slots(tf.constant(boxes), tf.fill((1, 225), 5.0), tf.fill((1, 225, 2), 5.0))
    found = suppress(slots, 0.5, 0.5)
    counts = np.bincount(found.class_ids[0, : int(found.counts[0])].numpy().astype(int))
    assert counts.tolist() == [100, 100]


def test_a_batch_equals_its_images_one_by_one() -> None:
    slots = random_slots(4, 60, 3, 5)
    together = tf.function(suppress)(slots, 0.2, 0.4)
    for i in range(4):
        alone = suppress(Slots(*(part[i : i + 1] for part in slots)), 0.2, 0.4)
        count = int(alone.counts[0])
        assert int(together.counts[i]) == count
        np.testing.assert_allclose(together.scores[i, :count], alone.scores[0, :count], rtol=1e-6)

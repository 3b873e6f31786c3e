"""Ground truth and detections for tests of the metrics: short to write down, or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.types import Detections, GroundTruth

Box = tuple[float, float, float, float]


def truth(image_id: str, *objects: tuple[int, Box] | tuple[int, Box, bool]) -> GroundTruth:
    """An image with (class id, box) or (class id, box, difficult) objects."""
    return GroundTruth(
        image_id,
        np.array([one[1] for one in objects], np.float64).reshape(-1, 4),
        np.array([one[0] for one in objects], np.int64),
        np.array([len(one) > 2 and one[-1] for one in objects], np.bool_),
    )


def found(*objects: tuple[int, float, Box]) -> Detections:
    """(class id, score, box) detections, named after their ids."""
    return Detections(
        np.array([one[2] for one in objects], np.float32).reshape(-1, 4),
        np.array([one[1] for one in objects], np.float32),
        np.array([one[0] for one in objects], np.int64),
        tuple(f"class {one[0]}" for one in objects),
    )


def random_case(
    seed: int, images: int = 12, classes: int = 4, coarse: bool = False, most: int = 6
) -> tuple[list[GroundTruth], dict[str, Detections]]:
    """Objects and detections, some of them near objects. ``coarse`` makes ties of IoU and score common."""
    rng = np.random.default_rng(seed)
    truths, detections = [], {}
    for number in range(images):
        image_id = f"{rng.integers(0, 1000):03d}.{number}"
        objects, noise = int(rng.integers(0, most)), int(rng.integers(0, most))
        boxes, class_ids = _boxes(rng, objects, coarse), rng.integers(0, classes, objects)
        truths.append(GroundTruth(image_id, boxes, class_ids, rng.random(objects) < 0.2))
        copies = np.repeat(np.arange(objects), rng.integers(0, 4, objects))
        shifts = rng.integers(-2, 3, (len(copies), 4)) * (1.0 if coarse else 1.7)
        det_boxes = np.concatenate([boxes[copies] + shifts, _boxes(rng, noise, coarse)])
        kept = rng.random(len(copies)) < 0.85
        labels = np.where(kept, class_ids[copies], rng.integers(0, classes, len(copies)))
        det_classes = np.concatenate([labels, rng.integers(0, classes, noise)])
        scores = rng.random(len(det_boxes))
        if coarse:
            scores = np.round(scores * 8) / 8
        names = tuple(f"class {class_id}" for class_id in det_classes)
        detections[image_id] = Detections(
            det_boxes.astype(np.float32), scores.astype(np.float32), det_classes.astype(np.int64), names
        )
    return truths, detections


def _boxes(rng: np.random.Generator, count: int, coarse: bool) -> np.ndarray:
    corners = rng.uniform(0, 300, (count, 2))
    sides = np.exp(rng.uniform(np.log(8), np.log(200), (count, 2)))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    return np.round(boxes / 8) * 8 if coarse else boxes


def class_names(count: int) -> tuple[str, ...]:
    """Names in an order that is not that of their code points."""
    return tuple(f"class {(number * 7) % 10}-{number}" for number in range(count))


def shuffled(truths: Sequence[GroundTruth], seed: int) -> list[GroundTruth]:
    """The same images in another order."""
    return [truths[i] for i in np.random.default_rng(seed).permutation(len(truths))]

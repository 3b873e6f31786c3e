"""The COCO numbers against pycocotools."""

from __future__ import annotations

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from tests.evaluation_data import class_names, found, random_case, truth
from utils.eval_arrays import EvalArrays
from utils.metrics import evaluate
from utils.types import Detections, GroundTruth

A, B = (0, 0, 40, 40), (100, 100, 220, 260)


def oracle(truths: list[GroundTruth], detections: dict[str, Detections], classes: int) -> list[float | None]:
    """The twelve numbers of pycocotools, None for its -1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    numbers = {image_id: i + 1 for i, image_id in enumerate(sorted(one.image_id for one in truths))}
    categories = [{"id": i + 1, "name": f"{i}"} for i in range(classes)]
    images = [{"id": number} for number in numbers.values()]
    annotations, results = [], []
    for one in truths:
        for box, class_id, difficult in zip(one.boxes_xyxy, one.class_ids, one.difficult, strict=True):
            x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[one.image_id],
                    "category_id": int(class_id) + 1,
                    "bbox": [float(v) for v in (x, y, width, height)],
                    "area": float(width * height),
                    "iscrowd": int(difficult),
                }
            )
    for image_id, one in detections.items():
        for box, score, class_id in zip(one.boxes_xyxy.astype(float), one.scores, one.class_ids, strict=True):
            bbox = [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]
            entry = {"image_id": numbers[image_id], "category_id": int(class_id) + 1, "bbox": bbox}
            results.append(
                entry | {"score": float(score), "id": len(results) + 1, "area": bbox[2] * bbox[3], "iscrowd": 0}
            )
    sets = []
    with contextlib.redirect_stdout(io.StringIO()):
        for content in (annotations, results):
            sets.append(COCO())
            sets[-1].dataset = {"images": images, "categories": categories, "annotations": content}
            sets[-1].createIndex()
        evaluation = COCOeval(*sets, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else float(value) for value in evaluation.stats]


def assert_equal_to_oracle(truths: list[GroundTruth], detections: dict[str, Detections], classes: int) -> None:
    coco = evaluate(truths, detections, class_names(classes)).coco
    for (name, mine), theirs in zip(dataclasses.asdict(coco).items(), oracle(truths, detections, classes), strict=True):
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            assert mine == pytest.approx(theirs, abs=1e-6), name


@pytest.mark.parametrize("seed", range(8))
def test_random_data(seed: int) -> None:
    classes = (1, 4)[seed % 2]
    assert_equal_to_oracle(*random_case(seed, images=15, classes=classes, coarse=seed % 3 == 0), classes)


def test_more_than_a_hundred_detections_of_a_class() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 200, (15, 2)).repeat(2, 1)[:, [0, 2, 1, 3]] + [0, 0, 60, 50]
    truths = [truth("1", *((0, tuple(box)) for box in boxes))]
    near = boxes.repeat(12, 0) + rng.normal(0, 3, (180, 4))
    detections = {"1": found(*((0, score, tuple(box)) for score, box in zip(rng.random(180), near, strict=True)))}
    assert_equal_to_oracle(truths, detections, 1)


@pytest.mark.parametrize(
    ("truths", "detections"),
    [
        ([truth("1", (0, A))], {}),
        ([truth("1", (0, A)), truth("2")], {"2": found((0, 0.9, A))}),
        ([truth("1")], {"1": found((0, 0.9, A))}),
        ([truth("1", (0, A, True))], {"1": found((0, 0.9, A))}),
        ([truth("1", (0, A, True), (0, B))], {"1": found((0, 0.9, A), (0, 0.8, (5, 5, 20, 20)), (0, 0.7, B))}),
        ([truth("1", (0, A), (1, B))], {"1": found((0, 0.9, B), (1, 0.8, A))}),
        ([truth("1", (0, (5, 5, 5, 5)))], {"1": found((0, 0.9, (5, 5, 5, 5)))}),
    ],
    ids=[
        "nothing found",
        "empty image",
        "no objects",
        "difficult only",
        "inside a difficult one",
        "swapped",
        "no area",
    ],
)
def test_edges(truths: list[GroundTruth], detections: dict[str, Detections]) -> None:
    assert_equal_to_oracle(truths, {one.image_id: detections.get(one.image_id, found()) for one in truths}, 2)


def test_ids_are_kept_whole() -> None:
    # Cut at their dots, both images would be "a", and b's detection would count for the wrong one.
    truths = [truth("a.b", (0, A)), truth("a.c", (0, B))]
    detections = {"a.b": found((0, 0.9, A)), "a.c": found((0, 0.9, B))}
    assert evaluate(truths, detections, ("thing",)).coco_ap == pytest.approx(1)


def test_each_class_gets_its_own_value() -> None:
    truths = [truth("1", (0, A), (1, B))]
    metrics = evaluate(truths, {"1": found((1, 0.9, B))}, ("zebra", "ant", "never"))
    assert [one.coco_ap for one in metrics.classes] == [0, pytest.approx(1), None]
    assert [one.coco_ap50 for one in metrics.classes] == [0, pytest.approx(1), None]
    assert metrics.coco_ap == pytest.approx(0.5)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(*random_case(1), class_names(4))
    assert capfd.readouterr() == ("", "")


def test_no_images_at_all() -> None:
    assert EvalArrays.gather([], {}, 1).det_boxes.shape == (0, 4)
    assert evaluate([], {}, ("thing",)).coco.ar_100 is None

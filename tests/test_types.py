"""The facts that travel between rooms check themselves once, when made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from utils.types import Annotation, Detections, GroundTruth, Record

BOXES = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]], np.float32)
SCORES = np.array([0.9, 0.25], np.float32)
IDS = np.array([1, 0])
FOUND = Detections(BOXES, SCORES, IDS, ("汽车", "bus"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((BOXES[:, :3], SCORES, IDS, ("a", "b")), "boxes_xyxy"),
        ((BOXES, SCORES[:1], IDS, ("a", "b")), "scores"),
        ((BOXES, SCORES, IDS[:1], ("a", "b")), "class_ids"),
        ((BOXES, SCORES, IDS, ("a",)), "names"),
    ],
)
def test_detections_of_unequal_length_cannot_be_made(values: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Detections(*values)


def test_records_and_ground_truth_of_unequal_length_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="class_ids"):
        Record("a.jpg", BOXES, IDS[:1])
    with pytest.raises(ValueError, match="boxes_xyxy"):
        Record("a.jpg", BOXES[0], IDS[:1])
    with pytest.raises(ValueError, match="difficult"):
        GroundTruth("a", BOXES, IDS, np.zeros(1, np.bool_))


def test_detections_above_a_score_include_it_and_keep_names_with_boxes() -> None:
    assert len(FOUND.above(0.25)) == 2
    best = FOUND.above(0.26)
    assert (best.names, best.class_ids.tolist(), best.boxes_xyxy.tolist()) == (("汽车",), [1], [[1, 2, 3, 4]])
    assert len(FOUND.above(1.0)) == 0


def test_detections_as_plain_values_survive_json() -> None:
    again = json.loads(json.dumps(FOUND.to_dict()))
    assert again == {
        "boxes_xyxy": BOXES.tolist(),
        "scores": [pytest.approx(0.9), 0.25],
        "class_ids": [1, 0],
        "names": ["汽车", "bus"],
    }
    nothing = {"boxes_xyxy": [], "scores": [], "class_ids": [], "names": []}
    assert Detections.empty().to_dict() == nothing


def test_drawing_leaves_the_photo_as_it_was() -> None:
    photo = np.full((40, 40, 3), 90, np.uint8)
    drawn = FOUND.draw(photo)
    assert (photo == 90).all()
    assert drawn.shape == photo.shape
    assert (drawn != photo).any()
    np.testing.assert_array_equal(Detections.empty().draw(photo), photo)


def test_an_image_id_is_kept_whole_at_dots() -> None:
    assert Annotation(Path("x/a.b.xml"), None, ()).image_id == "a.b"

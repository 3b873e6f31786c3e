"""VOC AP and its company: worked by hand, and against a second, plainly written implementation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.evaluation_data import class_names, found, random_case, shuffled, truth
from utils.eval_arrays import EvalArrays, inclusive_iou
from utils.metrics import Metrics, evaluate
from utils.types import Detections, GroundTruth

A, B, C, FAR = (0, 0, 99, 99), (200, 0, 299, 99), (0, 200, 99, 299), (350, 350, 400, 400)


def hand_case() -> tuple[list[GroundTruth], dict[str, Detections]]:
    """Three objects and a difficult one of one class.

    By falling score: A found; nothing there; the difficult one (counts as nothing); B found; A again (false); C found.
        true_positives      1    1    2    2    3
        precision 1/1  1/2  2/3  2/4  3/5
        recall    1/3  1/3  2/3  2/3  3/3
    """
    truths = [truth("1", (0, A), (0, B)), truth("2", (0, C), (0, A, True))]
    detections = {
        "1": found((0, 0.9, A), (0, 0.8, FAR), (0, 0.6, B), (0, 0.5, A)),
        "2": found((0, 0.7, A), (0, 0.4, C)),
    }
    return truths, detections


def test_hand_worked_table() -> None:
    metrics = evaluate(*hand_case(), ("thing",), score_threshold=0.55)
    (only,) = metrics.classes
    assert only.curve.precision.tolist() == [1, 1 / 2, 2 / 3, 2 / 4, 3 / 5]
    assert only.curve.recall.tolist() == [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1]
    # a third of the recall axis each at precision 1, 2/3 and 3/5: (15 + 10 + 9) / 45
    assert only.ap == pytest.approx(34 / 45)
    # recall 0, .1, .2, .3: 1; .4, .5, .6: 2/3; .7, .8, .9, 1: 3/5
    assert only.ap_11pt == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11)
    assert (metrics.voc_map_50, metrics.voc_map_50_11pt) == (only.ap, only.ap_11pt)
    # at 0.55: A, the false one and B count
    point = only.at_threshold
    assert (point.true_positives, point.false_positives, point.precision, point.recall) == (2, 1, 2 / 3, 2 / 3)
    assert point.f1 == pytest.approx(2 / 3)
    assert (only.objects, only.difficult, only.detections) == (3, 1, 6)


def test_eleven_points_compare_recall_exactly() -> None:
    # 3 of 10 objects found without a mistake: recalls 0, .1, .2 and .3 are reached, .3 too although 3 * 0.1 > 0.3
    boxes = [(20.0 * i, 0.0, 20.0 * i + 9, 9.0) for i in range(10)]
    truths = [truth("1", *((0, box) for box in boxes))]
    metrics = evaluate(truths, {"1": found(*((0, 0.9, box) for box in boxes[:3]))}, ("thing",))
    assert metrics.voc_map_50_11pt == pytest.approx(4 / 11)
    assert metrics.voc_map_50 == pytest.approx(0.3)


def test_widths_are_inclusive() -> None:
    # 10 x 10 and 10 x 5 pixels: IoU 1/2, which is enough. Without the + 1 it would be 36/81.
    first, second = np.array([[0, 0, 9, 9]], np.float64), np.array([[0, 0, 9, 4]], np.float64)
    assert inclusive_iou(first, second).tolist() == [0.5]
    metrics = evaluate([truth("1", (0, (0, 0, 9, 9)))], {"1": found((0, 0.9, (0, 0, 9, 4)))}, ("thing",))
    assert metrics.voc_map_50 == 1
    # Boxes side by side share no pixel.
    assert inclusive_iou(first, np.array([[10, 0, 19, 9]], np.float64)).tolist() == [0]


def test_a_detection_goes_to_the_object_of_highest_iou_only() -> None:
    # Both detections lie best on A; the second may not fall back on its neighbour, though their IoU is enough.
    near = (0, 0, 99, 79)
    truths = [truth("1", (0, A), (0, near))]
    metrics = evaluate(truths, {"1": found((0, 0.9, A), (0, 0.8, (0, 0, 99, 95)))}, ("thing",))
    assert (metrics.at_threshold.true_positives, metrics.at_threshold.false_positives) == (1, 1)


def test_equal_scores_keep_image_order_then_given_order() -> None:
    truths = [truth("b", (0, A)), truth("a")]
    detections = {"b": found((0, 0.5, FAR), (0, 0.5, A)), "a": found((0, 0.5, A))}
    # order: a's false one, b's false one, b's hit -> precision 1/3 at recall 1
    for truths_in_order in (truths, truths[::-1]):
        assert evaluate(truths_in_order, detections, ("thing",)).voc_map_50 == pytest.approx(1 / 3)


def test_log_average_miss_rate_by_hand() -> None:
    # 5 images, 2 objects; by score: hit, miss (0.2 false positives an image), hit. Miss rate 0.5 below 0.2, then 0.
    # Of the nine points 0.01 .. 1, six lie below 0.2 (the sixth is 10 ** -0.75 = 0.178), three have 0, held at 1e-10.
    truths = [truth("1", (0, A), (0, B)), *(truth(str(i)) for i in range(2, 6))]
    detections = {"1": found((0, 0.9, A), (0, 0.8, FAR), (0, 0.7, B))}
    expected = math.exp((6 * math.log(0.5) + 3 * math.log(1e-10)) / 9)
    metrics = evaluate(truths, detections, ("thing",))
    assert metrics.classes[0].lamr == pytest.approx(expected)
    assert metrics.mean_lamr == metrics.classes[0].lamr
    assert evaluate(truths, {}, ("thing",)).mean_lamr == 1


def test_no_detection_above_the_threshold() -> None:
    metrics = evaluate([truth("1", (0, A))], {"1": found((0, 0.4, A))}, ("thing",), score_threshold=0.5)
    point = metrics.classes[0].at_threshold
    assert (point.precision, point.recall, point.f1) == (None, 0, 0)
    assert metrics.voc_map_50 == 1


def test_the_threshold_itself_is_included() -> None:
    metrics = evaluate([truth("1", (0, A))], {"1": found((0, 0.5, A))}, ("thing",), score_threshold=0.5)
    assert metrics.at_threshold.recall == 1


def test_a_class_without_objects_is_no_part_of_the_mean() -> None:
    truths = [truth("1", (0, A), (2, B, True))]
    detections = {"1": found((0, 0.9, A), (1, 0.9, B), (2, 0.9, B))}
    metrics = evaluate(truths, detections, ("seen", "never", "difficult only"))
    assert [one.ap for one in metrics.classes] == [1, None, None]
    assert (metrics.voc_map_50, metrics.voc_map_50_11pt, metrics.coco_ap) == (1, 1, pytest.approx(1))
    never, difficult = metrics.classes[1:]
    assert (never.at_threshold.precision, never.at_threshold.recall, never.lamr) == (0, None, None)
    assert (difficult.at_threshold.false_positives, difficult.detections, difficult.difficult) == (0, 1, 1)


def test_no_detections_and_no_objects() -> None:
    nothing_found = evaluate([truth("1", (0, A))], {}, ("thing",))
    assert (nothing_found.voc_map_50, nothing_found.voc_map_50_11pt, nothing_found.coco_ap) == (0, 0, 0)
    for detections in ({}, {"1": found((0, 0.9, A))}):
        nothing_there = evaluate([truth("1")], detections, ("thing",))
        assert (nothing_there.voc_map_50, nothing_there.voc_map_50_11pt, nothing_there.coco_ap) == (None, None, None)
    assert evaluate([], {}, ("thing",)).voc_map_50 is None


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        evaluate([truth("1"), truth("1")], {}, ("thing",))
    with pytest.raises(ValueError, match="no ground truth"):
        evaluate([truth("1")], {"2": found()}, ("thing",))
    with pytest.raises(ValueError, match="class ids"):
        evaluate([truth("1", (1, A))], {}, ("thing",))
    with pytest.raises(ValueError, match="NaN"):
        evaluate([truth("1", (0, A))], {"1": found((0, math.nan, A))}, ("thing",))


def test_to_dict_is_json_without_nan() -> None:
    metrics = evaluate([truth("1", (0, A))], {}, ("thing", "never"))
    values = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert set(values) >= {"voc_map_50", "voc_map_50_11pt", "coco_ap", "coco_ap50", "coco_ap75", "coco_ar_100"}
    assert values["per_class"]["thing"]["ap"] == 0
    assert values["per_class"]["never"]["ap"] is None
    assert set(values["per_class"]["thing"]) >= {"ap_11pt", "precision", "recall", "f1", "lamr", "true_positives"}
    assert values["confusion"] == {"labels": ["thing", "never", "background"], "counts": [[0, 0, 1], [0] * 3, [0] * 3]}


def test_confusion_matrix_by_hand() -> None:
    # A dog taken for a cat, a cat found twice, a dog missed, a cat seen in the background, a difficult dog found.
    cat, dog = 0, 1
    truths = [truth("1", (dog, A), (cat, B), (dog, C), (dog, FAR, True)), truth("2")]
    detections = {
        "1": found((cat, 0.9, A), (cat, 0.8, B), (cat, 0.7, B), (dog, 0.9, FAR), (dog, 0.4, C)),
        "2": found((cat, 0.6, A)),
    }
    confusion = evaluate(truths, detections, ("cat", "dog"), score_threshold=0.5).confusion
    assert confusion.tolist() == [
        [1, 0, 0],  # cat: found once
        [1, 0, 1],  # dog: one taken for a cat, one missed
        [2, 0, 0],  # background: the second on the cat, the one in the empty image
    ]


def test_an_overlap_of_exactly_half_is_enough_for_the_confusion_matrix() -> None:
    # Of 100 x 100 px, both ends counted, the upper half.
    confusion = evaluate([truth("1", (0, (0, 0, 99, 99)))], {"1": found((0, 0.9, (0, 0, 99, 49)))}, ("cat",)).confusion
    assert confusion.tolist() == [[1, 0], [0, 0]]


def test_confusion_prefers_the_higher_iou_over_the_higher_score() -> None:
    exact, loose = (1, 0.6, A), (0, 0.9, (0, 0, 99, 70))
    confusion = evaluate([truth("1", (1, A))], {"1": found(loose, exact)}, ("cat", "dog")).confusion
    assert confusion.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


# The second implementation: loops, one image and one detection at a time, from the devkit's description.


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - both)


def plain_curve(
    truths: list[GroundTruth], detections: dict[str, Detections], class_id: int
) -> tuple[list[tuple[int, int]], int]:
    """(true, false positives) after every detection that counts, and the number of objects."""
    ranked, objects, taken = [], 0, set()
    by_id = {one.image_id: one for one in truths}
    for image_id in sorted(by_id):
        one = by_id[image_id]
        objects += sum(c == class_id and not d for c, d in zip(one.class_ids, one.difficult, strict=True))
        for i in range(len(detections[image_id])):
            if detections[image_id].class_ids[i] == class_id:
                ranked.append((image_id, i))
    ranked.sort(key=lambda pair: -float(detections[pair[0]].scores[pair[1]]))
    points, true_positives, false_positives = [], 0, 0
    for image_id, i in ranked:
        one, box = by_id[image_id], detections[image_id].boxes_xyxy[i].astype(np.float64)
        best, chosen = 0.0, None
        for j in range(len(one.class_ids)):
            overlap = plain_iou(box, one.boxes_xyxy[j])
            if one.class_ids[j] == class_id and overlap > best:
                best, chosen = overlap, j
        if best >= 0.5 and one.difficult[chosen]:
            continue
        if best >= 0.5 and (image_id, chosen) not in taken:
            taken.add((image_id, chosen))
            true_positives += 1
        else:
            false_positives += 1
        points.append((true_positives, false_positives))
    return points, objects


def plain_aps(points: list[tuple[int, int]], objects: int) -> tuple[float, float]:
    area = sum(
        max(h / (h + m) for h, m in points[i:]) / objects
        for i in range(len(points))
        if points[i][0] > (points[i - 1][0] if i else 0)
    )
    eleven = [max((h / (h + m) for h, m in points if 10 * h >= step * objects), default=0.0) for step in range(11)]
    return area, sum(eleven) / 11


def plain_confusion(
    truths: list[GroundTruth], detections: dict[str, Detections], classes: int, threshold: float
) -> np.ndarray:
    matrix = np.zeros((classes + 1, classes + 1), int)
    for one in truths:
        mine = detections[one.image_id]
        shown = [i for i in range(len(mine)) if mine.scores[i] >= threshold]
        left = list(range(len(one.class_ids)))
        for difficult in (False, True):
            while True:
                pairs = [
                    (-plain_iou(mine.boxes_xyxy[i].astype(float), one.boxes_xyxy[j]), -mine.scores[i], i, j)
                    for i in shown
                    for j in left
                    if one.difficult[j] == difficult
                ]
                if not pairs or min(pairs)[0] > -0.5:
                    break
                _, _, i, j = min(pairs)
                shown.remove(i)
                left.remove(j)
                if not difficult:
                    matrix[one.class_ids[j], mine.class_ids[i]] += 1
        for j in left:
            if not one.difficult[j]:
                matrix[one.class_ids[j], classes] += 1
        for i in shown:
            matrix[classes, mine.class_ids[i]] += 1
    return matrix


@pytest.mark.parametrize("seed", range(12))
def test_against_the_plain_implementation(seed: int) -> None:
    truths, detections = random_case(seed, coarse=seed % 2 == 0)
    threshold = 0.5
    metrics = evaluate(shuffled(truths, seed), detections, class_names(4), threshold)
    for class_id, mine in enumerate(metrics.classes):
        points, objects = plain_curve(truths, detections, class_id)
        assert list(zip(mine.curve.true_positives.tolist(), mine.curve.false_positives.tolist(), strict=True)) == points
        assert mine.objects == objects
        if objects:
            assert (mine.ap, mine.ap_11pt) == pytest.approx(plain_aps(points, objects))
    np.testing.assert_array_equal(metrics.confusion, plain_confusion(truths, detections, 4, threshold))


def test_chunks_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3)
    whole = evaluate(*case, class_names(4)).to_dict()
    monkeypatch.setattr("utils.eval_arrays.PAIRS_AT_ONCE", 3)
    assert evaluate(*case, class_names(4)).to_dict() == whole


def test_neither_image_nor_class_order_changes_a_digit() -> None:
    truths, detections = random_case(5, images=30)
    names = class_names(4)
    expected = evaluate(truths, detections, names).to_dict()
    assert evaluate(shuffled(truths, 1), detections, names).to_dict() == expected
    turned = [3 - i for i in range(4)]
    truths = [GroundTruth(t.image_id, t.boxes_xyxy, 3 - t.class_ids, t.difficult) for t in truths]
    detections = {i: Detections(d.boxes_xyxy, d.scores, 3 - d.class_ids, d.names) for i, d in detections.items()}
    again = evaluate(truths, detections, [names[i] for i in turned]).to_dict()
    del again["confusion"], expected["confusion"]
    assert again == expected


def test_ranges_hold() -> None:
    metrics: Metrics = evaluate(*random_case(7, images=40), class_names(4))
    for one in metrics.classes:
        assert one.ap is not None
        assert 0 <= one.ap <= 1
        assert (np.diff(one.curve.scores) <= 0).all()
        assert one.curve.true_positives[-1] <= one.objects
    assert metrics.confusion[:-1].sum() == sum(one.objects for one in metrics.classes)


def test_arrays_follow_image_ids() -> None:
    arrays = EvalArrays.gather([truth("b", (0, A)), truth("a", (1, B))], {"b": found((1, 0.5, A))}, 2)
    assert arrays.image_ids == ("a", "b")
    assert arrays.gt_classes.tolist() == [1, 0]
    assert arrays.det_image.tolist() == [1]
